package postfixtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	// startTries is how often Start tries again with other ports when another process
	// has taken one.
	startTries = 4
	// startLimit bounds a start whose context has no deadline. With many mistakes in
	// its configuration, Postfix runs but never greets.
	startLimit = time.Minute
)

var (
	errNotRoot = errors.New("a private Postfix needs root")
	errTooSlow = fmt.Errorf("not started within %s", startLimit)
)

// Postfix is a running private Postfix. Its methods are safe for concurrent use.
type Postfix struct {
	layout  layout
	config  Config
	addrs   map[string]string
	roots   *x509.CertPool
	sink    *sink
	master  *process
	dovecot *process
	out     tailBuffer // the output of master itself
}

// Start starts a private Postfix and returns when each of its services greets. An error
// includes the end of the log. ctx bounds the start only, which takes a minute at most.
// The caller must call Stop.
func Start(ctx context.Context, c Config) (*Postfix, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooSlow)
	defer cancel()
	var failed error
	for range startTries {
		p, err := startOnce(ctx, c)
		if err == nil {
			return p, nil
		}
		if failed = err; !strings.Contains(err.Error(), "Address already in use") {
			break
		}
	}
	return nil, failed
}

func startOnce(ctx context.Context, c Config) (_ *Postfix, err error) {
	dir := c.Dir
	if dir == "" {
		if dir, err = MakeDir(); err != nil {
			return nil, err
		}
	}
	p := &Postfix{layout: layout{dir: dir}, config: c, addrs: map[string]string{}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, p.complaint(ctx))
			err = errors.Join(err, p.Stop())
		}
	}()
	if err := p.layout.check(); err != nil {
		return nil, err
	}
	if err := p.prepare(); err != nil {
		return nil, err
	}
	if len(c.Users) > 0 {
		if p.dovecot, err = startDovecot(ctx, p.layout, c.Users); err != nil {
			return nil, err
		}
	}
	if err := p.startMaster(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// complaint returns what Postfix reports about a failed start. master(8) does not
// report mistakes in main.cf, since there is no log yet. postqueue reads the same file
// and reports them.
func (p *Postfix) complaint(ctx context.Context) string {
	if _, err := os.Stat(p.layout.log()); err == nil {
		return fileTail(p.layout.log())
	}
	_, err := p.Queue(ctx)
	return fmt.Sprint(p.out.String(), err)
}

// prepare opens the sink and writes every file.
func (p *Postfix) prepare() (err error) {
	if p.sink, err = startSink(); err != nil {
		return err
	}
	for _, s := range p.config.services() {
		if p.addrs[s.Name], err = FreeAddr(); err != nil {
			return err
		}
	}
	if err := writeConfig(p.config, p.layout, p.addrs, p.sink.addr()); err != nil {
		return err
	}
	if p.config.TLS {
		p.roots, err = writeCertificate(p.layout.chain(), p.config.Hostname, time.Now())
	}
	return err
}

// startMaster runs master(8) directly: postfix(1) would detach it from us.
func (p *Postfix) startMaster(ctx context.Context) error {
	path, err := masterPath(ctx)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "-c", p.layout.config())
	cmd.Env = []string{"MAIL_CONFIG=" + p.layout.config(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	if p.master, err = startProcess(cmd); err != nil {
		return err
	}
	for _, s := range p.config.services() {
		err := poll(ctx, p.master.done, func() bool { return greets(ctx, p.addrs[s.Name], s.Proxied) })
		if err != nil {
			return fmt.Errorf("service %s at %s does not greet: %w", s.Name, p.addrs[s.Name], err)
		}
	}
	return nil
}

// greets reports whether an SMTP server answers at addr.
func greets(ctx context.Context, addr string, proxied bool) bool {
	hello := ""
	if proxied {
		hello = ProxyLine(netip.MustParseAddrPort("127.0.0.1:1"))
	}
	c, err := dial(ctx, addr, hello)
	if err != nil {
		return false
	}
	_, err = c.Cmd("QUIT")
	return errors.Join(err, c.Close()) == nil
}

// MakeDir makes a temporary directory that daemons without root can read. The caller
// removes it.
func MakeDir() (string, error) {
	dir, err := os.MkdirTemp("", "postern-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// Stop ends Postfix, Dovecot and the sink. It removes their directory unless Config.Dir
// names it. It may be called more than once, but not concurrently.
func (p *Postfix) Stop() error {
	var errs []error
	if p.master != nil {
		// An orderly end of master(8) takes a second, and is not needed: the queue is
		// removed.
		p.master.kill()
	}
	if p.dovecot != nil {
		errs = append(errs, p.dovecot.stop())
	}
	if p.sink != nil {
		errs = append(errs, p.sink.stop())
	}
	p.master, p.dovecot, p.sink = nil, nil, nil
	if p.config.Dir == "" {
		errs = append(errs, os.RemoveAll(p.layout.dir))
	}
	return errors.Join(errs...)
}

// Addr returns host:port of a service. It panics if there is no service of that name.
func (p *Postfix) Addr(service string) string {
	addr, ok := p.addrs[service]
	if !ok {
		panic("postfixtest: no service named " + service)
	}
	return addr
}

// Dial connects to a service and reads its greeting.
func (p *Postfix) Dial(ctx context.Context, service string) (*Client, error) {
	return Dial(ctx, p.Addr(service))
}

// Dir returns the directory of all files, which the postfix user may read. Stop removes
// it unless Config.Dir names it.
func (p *Postfix) Dir() string { return p.layout.dir }

// ConfigDir returns the config_directory.
func (p *Postfix) ConfigDir() string { return p.layout.config() }

// QueueDir returns the queue_directory. Relative paths of sockets are below it.
func (p *Postfix) QueueDir() string { return p.layout.queue() }

// LogPath returns the path of Postfix's log.
func (p *Postfix) LogPath() string { return p.layout.log() }

// TLSConfig returns a configuration that trusts the server's certificate.
func (p *Postfix) TLSConfig() *tls.Config {
	return &tls.Config{RootCAs: p.roots, ServerName: p.config.Hostname, MinVersion: tls.VersionTLS12}
}
