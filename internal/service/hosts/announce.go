package hosts

import (
	"context"
	"crypto/sha256"
	_ "embed" // announce.lua
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

//go:embed announce.lua
var announceSource string

// Self is what a daemon writes about itself.
type Self struct {
	// Setting is the setting that names the Redis, such as greylist-store.
	Setting string
	// Store is what it names. If it is not in a Redis, nothing is written.
	Store any
	// Settings must be the same on all hosts. None of them is a secret.
	Settings map[string]string
}

// Announce has the record of this host written while the state is in force. No request waits
// for it. That Redis does not answer is no error here, because the probe of the store reports
// it. What else prevents a record is logged once.
func Announce(l *service.Life, r service.Runtime, s Self) {
	store, ok := s.Store.(interface{ Client() *redisclient.Client })
	if !ok {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		r.Log.Error(notCompared+"; give it a name", zap.String("setting", s.Setting), zap.Error(err))
		return
	}
	self := record{Host: clip(host), Release: clip(service.Version()), Successor: r.Succeeds, Settings: make(map[string]string)}
	for name, text := range s.Settings {
		self.Settings[name] = clip(text)
	}
	a := &announcer{client: store.Client(), script: redisclient.NewScript(announceSource), setting: s.Setting, self: self, log: r.Log}
	l.Background(a.run)
}

const notCompared = "the settings of this host cannot be compared with those of the others that share its Redis"

// Texts returns settings as texts for people, without secrets.
func Texts(set *config.Set, names ...string) map[string]string {
	all := make(map[string]string)
	for _, name := range names {
		all[name] = strings.Join(config.Literals(set.Value(name).Text), " ")
	}
	return all
}

// announcer writes the record of one daemon for one setting.
type announcer struct {
	client  *redisclient.Client
	script  *redisclient.Script
	setting string
	self    record
	log     *zap.Logger
	told    bool // that a right is missing
}

func (a *announcer) run(ctx context.Context) {
	again := time.NewTicker(Every)
	defer again.Stop()
	for {
		a.try(ctx)
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// try writes the record, and logs that a right is missing.
func (a *announcer) try(ctx context.Context) {
	err := a.write(ctx)
	if !redisclient.LacksRights(err) || a.told {
		return
	}
	a.told = true
	a.log.Error(notCompared+"; correct the rights of the user", zap.String("setting", a.setting), zap.Error(err))
}

// write writes the record now.
func (a *announcer) write(ctx context.Context) error {
	self := a.self
	self.Clock = time.Now().UnixMilli()
	up, err := uptime()
	if err != nil {
		return err
	}
	self.Up = up.Milliseconds()
	text, err := json.Marshal(self)
	if err != nil {
		return err
	}
	call := a.client.NewCall(a.script)
	call.Key(a.client.Tag + key(a.setting))
	call.Keys()
	call.Arg(a.client.ID())
	call.Arg(string(text))
	for _, n := range []int64{Keep.Milliseconds(), Most, longest} {
		call.Arg(strconv.FormatInt(n, 10))
	}
	_, err = a.client.Ask(ctx, call)
	return err
}

// uptime returns how long the machine runs. Unlike the files in /proc that identify a machine
// or its start, the units of the daemons do not hide it.
func uptime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, os.NewSyscallError("clock_gettime", err)
	}
	return time.Duration(t.Nano()), nil
}

// clip returns a text in a form that plain takes: of a long one its beginning and its hash,
// which show that two of them differ.
func clip(text string) string {
	if plain(text) {
		return text
	}
	const begin = 96
	sum := sha256.Sum256([]byte(text))
	head := strings.ToValidUTF8(text[:min(begin, len(text))], "")
	head = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, head)
	return fmt.Sprintf("%s… (%d characters, SHA-256 %s)", head, len(text), hex.EncodeToString(sum[:6]))
}
