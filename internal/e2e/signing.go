package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// The lines that attach postern-milterd, as in README.md. While the daemon is away,
// mail passes unchecked.

// verifyMilter returns the milter for mail from the internet.
func verifyMilter(endpoint string) string {
	return "smtpd_milters = { " + endpoint + ", default_action=accept }"
}

// localMilter returns the milter for mail from sendmail(1).
func localMilter(endpoint string) string {
	return "non_smtpd_milters = { " + endpoint + ", default_action=accept }"
}

// submissionMilter returns the options of the services for users.
func submissionMilter(endpoint string) []string {
	return []string{"smtpd_milters=" + endpoint, "milter_macro_daemon_name=ORIGINATING"}
}

// homeDomain is the domain that the site signs for.
const homeDomain = "home.example"

// signer holds the parts of a site that signs.
type signer struct {
	// Milterd listens on two addresses: for mail of others and for our own.
	Milterd             *postfixtest.Daemon
	verifyAddr, ourAddr string

	KeysDir string
	DNS     *resolvertest.Server // serves the records of the keys

	milterdMetricsAddr string
	extra              []string // further flags of postern-milterd, for a DMARCCase
}

// startSigning makes keys, publishes them and starts postern-milterd.
func (s *Site) startSigning(ctx context.Context) (err error) {
	g := &signer{KeysDir: filepath.Join(s.Dir, "dkim")}
	s.signer = g
	for _, addr := range []*string{&g.verifyAddr, &g.ourAddr} {
		if *addr, err = postfixtest.FreeAddr(); err != nil {
			return err
		}
	}
	// The files in /etc/postern of this machine are not read.
	if err := os.WriteFile(filepath.Join(s.Dir, "milterd.toml"), nil, 0o644); err != nil {
		return err
	}
	if g.DNS, err = resolvertest.Start(""); err != nil {
		return err
	}
	s.config.Progress("making DKIM keys for " + homeDomain)
	if _, err := s.Postern(ctx, "dkim", "genkey", homeDomain, "--dir", g.KeysDir); err != nil {
		return err
	}
	if err := s.PublishKeys(ctx); err != nil {
		return err
	}
	return s.StartMilterd(ctx)
}

// PublishKeys publishes the DNS records of all keys. It takes them from the output of
// the postern command, as an administrator does.
func (s *Site) PublishKeys(ctx context.Context) error {
	zone, err := s.Postern(ctx, "dkim", "dns", "--dir", s.KeysDir)
	if err != nil {
		return err
	}
	return s.DNS.Replace(awayZone + bankZone + Zones + zone)
}

// Postern runs the administrator's command and returns its output.
func (s *Site) Postern(ctx context.Context, args ...string) (string, error) {
	path, err := s.config.Binaries.Path(ctx, "postern")
	if err != nil {
		return "", err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("postern %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// MilterdConfig returns how the site starts postern-milterd.
func (s *Site) MilterdConfig(ctx context.Context) (postfixtest.DaemonConfig, error) {
	path, err := s.config.Binaries.Path(ctx, "postern-milterd")
	if err != nil {
		return postfixtest.DaemonConfig{}, err
	}
	metrics, err := postfixtest.FreeAddr()
	if err != nil {
		return postfixtest.DaemonConfig{}, err
	}
	args := []string{
		"--config", filepath.Join(s.Dir, "milterd.toml"),
		"--listen-verify", "inet:" + s.verifyAddr,
		"--listen-sign", "inet:" + s.ourAddr,
		"--dkim-keys", s.KeysDir,
		"--resolver", s.DNS.Addr(),
		"--admin", "unix:" + filepath.Join(s.Dir, "milterd.sock"),
		"--metrics-listen", "inet:" + metrics,
	}
	s.milterdMetricsAddr = metrics
	return postfixtest.DaemonConfig{Path: path, Args: slices.Concat(args, s.config.Milterd, s.extra), Copy: s.config.SignLog}, nil
}

// StartMilterd starts postern-milterd, or starts it again after it has ended.
func (s *Site) StartMilterd(ctx context.Context) error {
	c, err := s.MilterdConfig(ctx)
	if err != nil {
		return err
	}
	s.config.Progress("starting postern-milterd on " + s.ourAddr + " (ours) and " + s.verifyAddr + " (the internet's)")
	s.Milterd, err = postfixtest.StartDaemon(ctx, c)
	return err
}

// attachMilters adds the lines to a Postfix to be started.
func (s *Site) attachMilters(c *postfixtest.Config) {
	c.Main = append(c.Main, verifyMilter("inet:"+s.verifyAddr), localMilter("inet:"+s.ourAddr))
	c.Submission = append(c.Submission, submissionMilter("inet:"+s.ourAddr)...)
}

// stopSigning ends the daemon and the DNS server. Postfix must end first, because the
// daemon waits for the sessions of Postfix.
func (s *Site) stopSigning() error {
	var err error
	if s.Milterd != nil {
		err = s.Milterd.StopUnlessEnded()
	}
	if s.DNS != nil {
		s.DNS.Close()
	}
	return err
}

// SignRecord holds the fields that only the record of a signed mail has.
type SignRecord struct {
	postfixtest.Record
	MessageID string `json:"message_id"`
	From      string `json:"from"`
	SignedBy  string `json:"signed_by"`
}

// SignRecord waits for the record of the sign role about a mail.
func (s *Site) SignRecord(ctx context.Context, sender, recipient string) (SignRecord, error) {
	if sender == "" {
		sender = "<>"
	}
	r, err := s.Milterd.WaitRecord(ctx, func(r postfixtest.Record) bool {
		return r.Check == "sign" && r.Sender == sender && r.Recipient == recipient
	})
	if err != nil {
		return SignRecord{}, fmt.Errorf("the signing record of the mail from %s to %s: %w", sender, recipient, err)
	}
	var more SignRecord
	err = json.Unmarshal([]byte(r.Raw), &more)
	more.Record = r
	return more, err
}

// dkimpy verifies every signature of a mail on its standard input and prints True or
// False for each. It asks the DNS server on a port of 127.0.0.1.
const dkimpy = `
import sys, dns.resolver, dkim
r = dns.resolver.Resolver(configure=False)
r.nameservers, r.port, r.cache = ["127.0.0.1"], int(sys.argv[1]), None
dns.resolver.default_resolver = r
mail = sys.stdin.buffer.read()
d = dkim.DKIM(mail)
n = sum(name.lower() == b"dkim-signature" for name, _ in d.headers)
for i in range(n):
    try:
        print(dkim.DKIM(mail).verify(idx=i))
    except dkim.DKIMException as e:
        print("False", e)
`

// python is Debian's Python: another one does not find Debian's modules.
const python = "/usr/bin/python3"

// VerifyDKIM verifies all signatures of a mail with Debian's python3-dkim. good is the
// number of those that verify.
func VerifyDKIM(ctx context.Context, dns *resolvertest.Server, mail []byte) (good, all int, err error) {
	_, port, err := net.SplitHostPort(dns.Addr())
	if err != nil {
		return 0, 0, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, python, "-c", dkimpy, port)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(mail), &out, &errs
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("python3-dkim: %w\n%s", err, errs.String())
	}
	for line := range strings.Lines(out.String()) {
		all++
		if strings.TrimSpace(line) == "True" {
			good++
		}
	}
	return good, all, nil
}

// Sendmail is the service of a mail that a program on this machine passes to
// sendmail(1).
const Sendmail = "sendmail"

// submit sends a mail through a service, or passes it to sendmail(1).
func (s *Site) submit(ctx context.Context, service string, m postfixtest.Mail) (postfixtest.Reply, error) {
	if service == Sendmail {
		err := s.Postfix.Sendmail(ctx, m.Message, append([]string{"-f", m.From, "--"}, m.To...)...)
		return postfixtest.Reply{Code: 250, Lines: []string{"(sendmail)"}}, err
	}
	r, err := s.Postfix.Send(ctx, service, m)
	return r.Final(), err
}

// SignCase is a mail that "make try" shows and the tests send. A new line in SignCases
// adds one to both.
type SignCase struct {
	Name    string
	Service string // of postfixtest, or Sendmail
	Mail    postfixtest.Mail
	Reason  record.Reason // of the sign role
	Good    int           // number of signatures in the delivered mail; all verify
}

// SignCases returns the mails, in the order in which they are shown.
func SignCases() []SignCase {
	return []SignCase{
		{"alice sends through submission", postfixtest.Submission, As(Alice, Alice, Dora), record.Signed, 2},
		{"a program sends through sendmail(1)", Sendmail, ofProgram(Bob), record.Signed, 2},
		{"alice writes From: another domain", postfixtest.Submission, withFrom("<alice@away.example>"), record.SignNoKey, 0},
		{"alice writes two From fields", postfixtest.Submission, withFrom("<" + Alice + ">\nFrom: <" + Bob + ">"), record.SignSeveralFrom, 0},
	}
}

// ofProgram returns a mail of a program that runs as a user.
func ofProgram(from string) postfixtest.Mail {
	return postfixtest.Mail{From: from, To: []string{Dora}, Message: "From: <" + from + ">\nSubject: a report\n\nAll is well.\n"}
}

// withFrom returns a mail of Alice with a From field that is not hers.
func withFrom(from string) postfixtest.Mail {
	m := As(Alice, Alice, Dora)
	m.Message = "From: " + from + "\nTo: <" + Dora + ">\nSubject: a test\n\nHello.\n"
	return m
}

// SignOutcome is the result of a SignCase.
type SignOutcome struct {
	Record    SignRecord
	Delivered postfixtest.Delivery
	Good, All int   // signatures of the delivered mail
	Wrong     error // nil if all was as expected
}

// Why describes the outcome.
func (o SignOutcome) Why() string {
	if o.All == 0 {
		return o.Record.Reason
	}
	return o.Record.Reason + " by " + strings.ReplaceAll(o.Record.SignedBy, ",", " and ") +
		"; python3-dkim verifies " + strconv.Itoa(o.Good) + " of " + strconv.Itoa(o.All)
}

// Run sends the mail and waits for its record and its delivery. An error means that the
// site itself failed.
func (c SignCase) Run(ctx context.Context, s *Site) (o SignOutcome, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
	}()
	r, err := s.submit(ctx, c.Service, c.Mail)
	if err != nil {
		return o, err
	}
	if r.Code != 250 {
		return o, errors.New(r.String())
	}
	if o.Record, err = s.SignRecord(ctx, c.Mail.From, c.Mail.To[0]); err != nil {
		return o, err
	}
	if o.Delivered, err = s.Postfix.Delivered(ctx, c.Mail.To[0]); err != nil {
		return o, err
	}
	if o.Good, o.All, err = VerifyDKIM(ctx, s.DNS, o.Delivered.Data); err != nil {
		return o, err
	}
	if o.Record.Reason != string(c.Reason) || o.Good != c.Good || o.All != c.Good {
		o.Wrong = fmt.Errorf("%s: %s with %d good of %d signatures, expected %s with %d",
			c.Name, o.Record.Reason, o.Good, o.All, c.Reason, c.Good)
	}
	return o, nil
}
