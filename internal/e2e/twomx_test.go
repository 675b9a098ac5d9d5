package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// twoMXMain is what each of the hosts has before.
const twoMXMain = "compatibility_level = 3.6\nmynetworks = 127.0.0.0/8\n"

// twoMXStore is the Redis of the example: hosts have addresses of 127.0.0.0/8 of
// their own, and the ports are those of the files.
type twoMXStore struct {
	dir      string
	hosts    [3]string // in the places of 10.0.0.1 to 10.0.0.3
	redis    []*redistest.Server
	watchers []*redistest.Server
	password string // file
}

// TestTwoMX sends the same senders to both hosts, and takes the master away.
func TestTwoMX(t *testing.T) {
	t.Parallel()
	postfixtest.Require(t)
	store := startTwoMXStore(t)
	dns := resolvertest.New(t, awayZone+bankZone+Zones)
	markKey := filepath.Join(store.dir, "mark.key")
	mx1, mx2 := store.host(t, dns, markKey), store.host(t, dns, markKey)

	first := client("198.51.100.9", "mx.new.example", "first@new.example", Alice)
	mx1.expect(t, postfixtest.MX, first, 450, record.GreylistNew)
	eventually(t, func() bool { return mx2.send(t, postfixtest.MX, first).Code == 250 })
	mx1.expect(t, postfixtest.MX, first, 250, record.GreylistKnown)

	t.Run("what one hands to the other", func(t *testing.T) { handsOver(t, mx2, mx1) })

	store.redis[0].Kill()
	for _, w := range store.watchers {
		w.Await("+switch-master greylist ")
	}
	// Who has passed is known at both, and who is new waits once for both.
	for _, mx := range []*example{mx1, mx2} {
		eventually(t, func() bool { return mx.reason(t, first) == string(record.GreylistKnown) })
	}
	second := client("198.51.100.19", "mx.second.example", "second@second.example", Alice)
	mx2.expect(t, postfixtest.MX, second, 450, record.GreylistNew)
	eventually(t, func() bool { return mx1.send(t, postfixtest.MX, second).Code == 250 })
	mx2.expect(t, postfixtest.MX, second, 250, record.GreylistKnown)
}

// handsOver has one host take a stranger's mail and hand it to the other one, which
// neither delays nor judges it again.
func handsOver(t *testing.T, from, to *example) {
	m := fromOutside(Stranger, Dora)
	eventually(t, func() bool { return from.send(t, postfixtest.MX, m).Code == 250 })
	d := from.delivered(t, Dora)
	from.judgedOnce(t, d, "mx.example.org", "spf=pass")
	relayed := client("10.0.0.2", "mx2.example.org", Stranger, Dora)
	relayed.Message = strings.ReplaceAll(string(d.Data), "\r\n", "\n")
	to.expect(t, postfixtest.MX, relayed, 250, record.GreylistLocalClient)
	r, err := to.milter.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Sender == Stranger })
	if err != nil {
		t.Fatal(err)
	}
	if r.Reason != string(record.VerdictKept) {
		t.Errorf("the other host: %s", r.Raw)
	}
	to.judgedOnce(t, to.delivered(t, Dora), "mx.example.org", "spf=pass")
}

// reason sends a mail and returns why it was decided as it was, whatever was decided of
// the same sender before.
func (e *example) reason(t *testing.T, m postfixtest.Mail) string {
	t.Helper()
	same := func(r postfixtest.Record) bool { return r.Sender == m.From }
	before := len(slices.DeleteFunc(e.policyd.Records(), func(r postfixtest.Record) bool { return !same(r) }))
	e.send(t, postfixtest.MX, m)
	for {
		if all := slices.DeleteFunc(e.policyd.Records(), func(r postfixtest.Record) bool { return !same(r) }); len(all) > before {
			why, _ := all[before].Why()
			return why
		}
		if _, err := e.policyd.WaitRecord(t.Context(), same); err != nil {
			t.Fatal(err)
		}
	}
}

// host starts an MX host from the files of the example.
func (s *twoMXStore) host(t *testing.T, dns *resolvertest.Server, markKey string) *example {
	t.Helper()
	e := &example{name: "two-mx", dir: openDir(t), dns: dns}
	e.addresses(t)
	e.replace = append(e.replace,
		"10.0.0.1,10.0.0.2,10.0.0.3", strings.Join(s.hosts[:], ","),
		"/etc/postern/redis.password", s.password, "/var/lib/postern/mark.key", markKey)
	e.startPolicyd(t, "policyd.toml", "--listen", e.place("inet:127.0.0.1:10045"), "--greylist-delay", "1s")
	e.startMilterd(t, "milterd.toml", "--listen-verify", e.place("inet:127.0.0.1:10046"), "--listen-sign", e.place("inet:127.0.0.1:10047"), "--dkim-keys", "")
	main, _ := e.attach(t, twoMXMain, "smtp inet n - y - - smtpd\n")
	e.postfix = postfixtest.New(t, postfixtest.Config{Main: append(main, "mynetworks =")})
	return e
}

// startTwoMXStore starts both Redis and three Sentinels from the files of the
// example.
func startTwoMXStore(t *testing.T) *twoMXStore {
	t.Helper()
	redistest.Require(t)
	const secret = "a-password-of-both"
	s := &twoMXStore{dir: openDir(t)}
	network := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(250), 1+rand.IntN(250))
	for i := range s.hosts {
		s.hosts[i] = fmt.Sprint(network, i+1)
	}
	s.password = filepath.Join(s.dir, "redis.password")
	if err := os.WriteFile(s.password, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, host := range s.hosts[:2] {
		text := s.file(t, "redis.conf", host, secret) + "dir " + t.TempDir() + "\nrepl-diskless-sync-delay 0\n" // Debian's own file has a directory
		if i == 1 {
			text += "replicaof " + s.hosts[0] + " 6379\n"
		}
		s.redis = append(s.redis, redistest.StartFile(t, "redis-server", host+":6379", writeFile(t, t.TempDir(), "redis.conf", text)))
		s.redis[i].Await("Ready to accept connections")
	}
	s.redis[1].Await("Finished with success")
	for _, host := range s.hosts {
		w := redistest.StartFile(t, "redis-sentinel", host+":26379", writeFile(t, t.TempDir(), "sentinel.conf", s.file(t, "sentinel.conf", host, secret)))
		s.watchers = append(s.watchers, w)
	}
	for _, w := range s.watchers {
		w.Await("+slave ")
		w.AwaitCount("+sentinel sentinel", 2)
	}
	return s
}

// file is a file of Redis for one host, its times shorter. The source address is that
// of the host where hosts have interfaces of their own.
func (s *twoMXStore) file(t *testing.T, name, host, secret string) string {
	t.Helper()
	dir := t.TempDir()
	text := readDeploy(t, "examples/two-mx/"+name)
	return strings.NewReplacer(
		"bind 10.0.0.1 127.0.0.1", "bind "+host+"\nbind-source-addr "+host, "10.0.0.1", s.hosts[0], "PASSWORD", secret,
		"dir /var/lib/redis", "dir "+dir, "/run/sentinel", dir, "/var/log/redis", dir,
		"down-after-milliseconds greylist 5000", "down-after-milliseconds greylist 1000", "failover-timeout greylist 30000", "failover-timeout greylist 5000",
	).Replace(text)
}
