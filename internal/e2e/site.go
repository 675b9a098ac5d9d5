package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// The people of the site and the addresses that they own. Dora has a mailbox but no
// login.
const (
	Alice    = "alice@home.example"
	Bob      = "bob@home.example"
	Dora     = "dora@home.example"
	Press    = "press@home.example" // Alice's, by the owners map
	Info     = "info@home.example"  // an alias for Bob
	Stranger = "stranger@away.example"

	password = "correct horse"
)

// ownersMap and aliasMap are maps of Postfix.
const (
	ownersMap = `# who may send as whom, as in smtpd_sender_login_maps
alice@home.example      alice@home.example
bob@home.example        bob@home.example
press@home.example      alice@home.example
@catchall.example       bob@home.example
jürgen@bücher.example   alice@home.example
`
	aliasMap = `# as in virtual_alias_maps
info@home.example       bob@home.example
team@home.example       alice@home.example, bob@home.example
`
)

// SiteConfig holds the differences between sites. With only Binaries set, the site has
// postern-policyd alone. "make try" also signs.
type SiteConfig struct {
	Binaries *postfixtest.Binaries
	Dir      string                    // made by postfixtest.MakeDir; "" means one that Stop removes
	Progress func(step string)         // called before each step; nil for none
	Log      io.Writer                 // also gets the log of postern-policyd; nil for none
	SignLog  io.Writer                 // also gets the log of postern-milterd; nil for none
	Policyd  []string                  // further flags of postern-policyd
	Files    []*os.File                // its sockets, for "systemd" in a --listen of Policyd
	Signing  bool                      // also run postern-milterd, with keys for home.example
	Milterd  []string                  // further flags of postern-milterd
	Postfix  func(*postfixtest.Config) // changes the Postfix to be started; nil for no change
}

// Site is a running site.
type Site struct {
	Postfix *postfixtest.Postfix
	Policyd *postfixtest.Daemon

	// Dir holds the maps. PolicyAddr is the address of postern-policyd.
	Dir, PolicyAddr string

	config SiteConfig
	*signer
}

// OwnersPath returns the path of the owners map.
func (s *Site) OwnersPath() string { return filepath.Join(s.Dir, "owners") }

// AliasesPath returns the path of the alias map.
func (s *Site) AliasesPath() string { return filepath.Join(s.Dir, "aliases") }

// Start starts a site. ctx bounds the start only. The caller must Stop the returned
// site.
func Start(ctx context.Context, c SiteConfig) (_ *Site, err error) {
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	s := &Site{config: c, Dir: c.Dir, signer: new(signer)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	if err := s.StartPolicyd(ctx); err != nil {
		return nil, err
	}
	if c.Signing {
		if err := s.startSigning(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.startPostfix(ctx)
}

// prepare writes the maps and chooses the address of postern-policyd.
func (s *Site) prepare() (err error) {
	if s.Dir == "" {
		if s.Dir, err = postfixtest.MakeDir(); err != nil {
			return err
		}
	}
	if s.PolicyAddr, err = postfixtest.FreeAddr(); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(s.OwnersPath(), []byte(ownersMap), 0o644),
		os.WriteFile(s.AliasesPath(), []byte(aliasMap), 0o644),
		// The files in /etc/postern of this machine are not read.
		os.WriteFile(filepath.Join(s.Dir, "policyd.toml"), nil, 0o644),
		// For sockets below the queue directory.
		os.MkdirAll(filepath.Join(s.queueDir(), "postern"), 0o755),
	)
}

func (s *Site) queueDir() string { return filepath.Join(s.Dir, "postfix", "queue") }

// Endpoint returns the address of postern-policyd in Postfix's spelling.
func (s *Site) Endpoint() string { return "inet:" + s.PolicyAddr }

// noDNS is an address without a name server. A site without a name server must not use
// that of the machine.
const noDNS = "127.0.0.1:9"

// PolicydConfig returns how the site starts postern-policyd.
func (s *Site) PolicydConfig(ctx context.Context) (postfixtest.DaemonConfig, error) {
	path, err := s.config.Binaries.Path(ctx, "postern-policyd")
	if err != nil {
		return postfixtest.DaemonConfig{}, err
	}
	metrics, err := postfixtest.FreeAddr()
	if err != nil {
		return postfixtest.DaemonConfig{}, err
	}
	args := []string{
		"--config", filepath.Join(s.Dir, "policyd.toml"),
		"--owners", "hash:" + s.OwnersPath(),
		"--owner-aliases", "hash:" + s.AliasesPath(),
		"--admin", "unix:" + filepath.Join(s.Dir, "policyd.sock"),
		"--metrics-listen", "inet:" + metrics,
		"--greylist-store", "memory:", // a further flag may name another
		"--queue-directory", s.queueDir(),
	}
	if len(s.config.Files) == 0 {
		args = append(args, "--listen", s.Endpoint())
	}
	if !slices.ContainsFunc(s.config.Policyd, func(arg string) bool { return strings.HasPrefix(arg, "--resolver") }) {
		args = append(args, "--resolver", noDNS)
	}
	return postfixtest.DaemonConfig{
		Path:  path,
		Args:  slices.Concat(args, s.config.Policyd),
		Files: s.config.Files,
		Copy:  s.config.Log,
	}, nil
}

// StartPolicyd starts postern-policyd, or starts it again after it has ended.
func (s *Site) StartPolicyd(ctx context.Context) error {
	c, err := s.PolicydConfig(ctx)
	if err != nil {
		return err
	}
	s.config.Progress("starting postern-policyd on " + s.PolicyAddr)
	s.Policyd, err = postfixtest.StartDaemon(ctx, c)
	return err
}

func (s *Site) startPostfix(ctx context.Context) (err error) {
	s.config.Progress("starting a private Postfix and Dovecot")
	c := postfixtest.Config{
		Dir:        filepath.Join(s.Dir, "postfix"),
		Users:      map[string]string{Alice: password, Bob: password},
		Mailboxes:  []string{Alice, Bob, Dora, Press},
		Main:       []string{"virtual_alias_maps = texthash:" + s.AliasesPath()},
		MX:         []string{recipientRestrictions(s.Endpoint(), ownership)},
		Submission: []string{senderRestrictions(s.Endpoint())},
	}
	if s.config.Signing {
		s.attachMilters(&c)
	}
	if s.config.Postfix != nil {
		s.config.Postfix(&c)
	}
	s.Postfix, err = postfixtest.Start(ctx, c)
	return err
}

// Stop ends everything. An exit code of a daemon other than 0 is an error, unless the
// daemon has ended before.
func (s *Site) Stop() error {
	var errs []error
	if s.Postfix != nil {
		errs = append(errs, s.Postfix.Stop())
	}
	if s.Policyd != nil {
		errs = append(errs, s.Policyd.StopUnlessEnded())
	}
	errs = append(errs, s.stopSigning())
	if s.config.Dir == "" && s.Dir != "" {
		errs = append(errs, os.RemoveAll(s.Dir))
	}
	return errors.Join(errs...)
}

// As returns a mail from a user who logs in.
func As(login, from string, to ...string) postfixtest.Mail {
	return postfixtest.Mail{Login: login, Password: password, From: from, To: to}
}

// Record waits for the decision record of a mail's sender and first recipient.
func (s *Site) Record(ctx context.Context, m postfixtest.Mail) (postfixtest.Record, error) {
	sender := m.From
	if sender == "" {
		sender = "<>"
	}
	r, err := s.Policyd.WaitRecord(ctx, func(r postfixtest.Record) bool {
		return r.Sender == sender && r.Recipient == m.To[0]
	})
	if err != nil {
		return r, fmt.Errorf("the record of the mail from %s to %s: %w", sender, m.To[0], err)
	}
	return r, nil
}
