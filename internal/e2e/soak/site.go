package soak

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/disktest"
	"github.com/postern-mail/postern/internal/store/redistest/slownet"
	"github.com/postern-mail/postern/internal/store/redistest/tied"
)

// site holds both daemons and the servers that they ask.
type site struct {
	dir       string
	binaries  *postfixtest.Binaries
	dns       *resolvertest.Server
	redis     *exec.Cmd
	redisPort string
	network   *slownet.Proxy // between postern-policyd and Redis
	table     *table
	servers   []*tableServer
	disk      bool // is mounted
	policyd, milterd,
	limits *daemon // a postern-policyd that only limits, with a file
	killings atomic.Int64 // of daemons: odd while one is started again
}

// tableServer is a database or a directory with a table of owners. Its table lists one
// sender, of the user dave.
type tableServer struct {
	name    string // of the product
	mapType string // of the table, and the local part of the sender
	text    string // of the table's file
	server  interface {
		Pause()
		Resume()
		Kill()
		Start()
	}
	answered atomic.Int64 // how often its entry was found
}

func (t *tableServer) sender() string { return t.mapType + "@home.example" }

// daemon is a daemon that can be started again.
type daemon struct {
	*postfixtest.Daemon
	name  string // of its files
	start func(context.Context) (*postfixtest.Daemon, error)
}

// daemons returns all daemons that were started.
func (s *site) daemons() (all []*daemon) {
	for _, d := range []*daemon{s.policyd, s.milterd, s.limits} {
		if d != nil {
			all = append(all, d)
		}
	}
	return all
}

const owners = "press@home.example alice\n" // beside lines that change

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

// start starts everything. If a step fails, it stops what it has started.
func start(ctx context.Context, servers []*tableServer) (s *site, err error) {
	s = &site{servers: servers}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.dir, err = postfixtest.MakeDir(); err != nil {
		return s, err
	}
	if s.binaries, err = postfixtest.NewBinaries(); err != nil {
		return s, err
	}
	if err := s.write("owners", owners); err != nil {
		return s, err
	}
	record, err := s.writeKey()
	if err != nil {
		return s, err
	}
	if s.dns, err = resolvertest.Start("s1._domainkey.home.example. 2 IN TXT \"" + record + "\"\n" +
		"home.example. 2 IN TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\n_dmarc.home.example. 2 IN TXT \"v=DMARC1; p=reject\"\n"); err != nil {
		return s, err
	}
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		return s, err
	}
	if _, s.redisPort, err = net.SplitHostPort(addr); err != nil {
		return s, err
	}
	if err := s.startRedis(ctx); err != nil {
		return s, err
	}
	if s.network, err = slownet.Start("127.0.0.1:" + s.redisPort); err != nil {
		return s, err
	}
	if s.table, err = startTable(s.path("table")); err != nil {
		return s, err
	}
	if err := s.mountDisk(); err != nil {
		return s, err
	}
	return s, s.startDaemons(ctx)
}

// startRedis returns when Redis accepts connections.
func (s *site) startRedis(ctx context.Context) error {
	cmd := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", s.redisPort, "--dir", s.dir, "--save", "", "--logfile", s.path("redis.log"))
	if err := tied.Start(cmd); err != nil {
		return fmt.Errorf("redis-server: %w", err)
	}
	s.redis = cmd
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("redis-server accepts no connection"))
	defer cancel()
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", s.redisPort))
		if err == nil {
			return conn.Close()
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *site) killRedis() {
	_ = s.redis.Process.Kill()
	_ = s.redis.Wait() // it was killed
}

func (s *site) startDaemons(ctx context.Context) (err error) {
	common := []string{"--resolver=" + s.dns.Addr(), "--dns-timeout=500ms"}
	redis := "redis://" + s.network.Addr
	tables, err := s.owners()
	if err != nil {
		return err
	}
	if s.policyd, err = s.startDaemon(ctx, "policyd", "postern-policyd", append(append(common, tables...),
		"--checks=ownership,limit,greylist", "--listen=unix:"+s.path("policy"), "--owners-timeout=500ms", "--owners-cache-ttl=0", "--owners-cache-size=1000",
		"--greylist-store="+redis, "--greylist-delay=1s", "--greylist-flood=0", "--greylist-flood-network=0", "--greylist-awl-after=0",
		"--limit-store="+redis, "--limit=login.recipients=1000000/1h")...); err != nil {
		return err
	}
	if s.limits, err = s.startDaemon(ctx, "limits", "postern-policyd",
		"--checks=limit", "--listen=unix:"+s.path("limits"), "--limit-store=sqlite:"+filepath.Join(s.diskDir(), "limits.db"), "--limit=login.recipients=1000000/1h"); err != nil {
		return err
	}
	s.milterd, err = s.startDaemon(ctx, "milterd", "postern-milterd", append(common,
		"--listen-sign=unix:"+s.path("sign"), "--listen-verify=unix:"+s.path("verify"), "--dkim-keys="+s.path("keys"), "--authserv-id=mx.home.example")...)
	return err
}

// owners returns the flags of the tables of owners, and writes their files.
func (s *site) owners() (flags []string, err error) {
	flags = []string{"--owners=texthash:" + s.path("owners"), "--owners=socketmap:unix:" + s.path("table") + ":more"}
	for _, one := range s.servers {
		name := one.mapType + ".cf"
		err = errors.Join(err, s.write(name, one.text))
		flags = append(flags, "--owners="+one.mapType+":"+s.path(name))
	}
	return flags, err
}

func (s *site) startDaemon(ctx context.Context, name, program string, args ...string) (*daemon, error) {
	path, err := s.binaries.Path(ctx, program)
	if err != nil {
		return nil, err
	}
	config := postfixtest.DaemonConfig{Path: path, Args: append([]string{
		"--config=", "--admin=", "--metrics-listen=unix:" + s.path(name+".metrics"), "--log-file=" + s.path(name+".log"), "--drain-timeout=5s",
	}, args...)}
	d := &daemon{name: name, start: func(ctx context.Context) (*postfixtest.Daemon, error) { return postfixtest.StartDaemon(ctx, config) }}
	d.Daemon, err = d.start(ctx)
	return d, err
}

// diskSize, in MiB, is more than the daemon that only limits writes in half an hour: the
// file keeps up to 16 MB of the latest transactions beside its counters and its log.
const diskSize = 64

// diskDir is where the small disk is mounted.
func (s *site) diskDir() string { return s.path("disk") }

func (s *site) mountDisk() error {
	if err := os.Mkdir(s.diskDir(), 0o700); err != nil {
		return err
	}
	err := disktest.Mount(s.diskDir(), diskSize)
	s.disk = err == nil
	return err
}

// writeKey writes a signing key and returns its record.
func (s *site) writeKey() (record string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", err
	}
	folder := filepath.Join("keys", "home.example")
	if err := os.MkdirAll(s.path(folder), 0o700); err != nil {
		return "", err
	}
	return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public),
		s.write(filepath.Join(folder, "s1.private"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

// write replaces a file atomically, as administrators' tools do.
func (s *site) write(name, text string) error {
	beside := s.path(name) + ".new"
	return errors.Join(os.WriteFile(beside, []byte(text), 0o600), os.Rename(beside, s.path(name)))
}

// lastErrors returns the last lines of a daemon's log that are errors.
func (s *site) lastErrors(name string) string {
	text, err := os.ReadFile(s.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	var last []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `"level":"error"`) {
			last = append(last, line)
		}
	}
	return strings.Join(last[max(0, len(last)-10):], "")
}

// stop ends everything. It returns an error if a daemon has ended by itself or does not
// exit with 0.
func (s *site) stop() error {
	var err error
	for _, d := range s.daemons() {
		if d.Daemon == nil {
			continue
		}
		if stopped := d.Stop(); stopped != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w\n%s%s", d.name, stopped, d.LogTail(), s.lastErrors(d.name)))
		}
	}
	if s.disk {
		err = errors.Join(err, disktest.Unmount(s.diskDir()))
	}
	if s.table != nil {
		s.table.close()
	}
	if s.network != nil {
		err = errors.Join(err, s.network.Close())
	}
	if s.redis != nil {
		s.killRedis()
	}
	if s.dns != nil {
		s.dns.Close()
	}
	if s.binaries != nil {
		err = errors.Join(err, s.binaries.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
