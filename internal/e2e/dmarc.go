package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// bankZone holds the records of a bank that asks receivers to reject mail it did not
// send, and of another site with a mailing list.
const bankZone = `bank.example. TXT "v=spf1 ip4:192.0.2.40 -all"
_dmarc.bank.example. TXT "v=DMARC1; p=reject; rua=mailto:dmarc@bank.example"
mx.bank.example. A 192.0.2.40
40.2.0.192.in-addr.arpa. PTR mx.bank.example.
list.example. TXT "v=spf1 ip4:192.0.2.41 -all"
mx.list.example. A 192.0.2.41
41.2.0.192.in-addr.arpa. PTR mx.list.example.
`

// The people of these examples.
const (
	Banker   = "alice@bank.example"
	listMail = "bounces@list.example"
	spoofer  = "x@spammer.example"
)

// sealer is the domain whose ARC seals the site trusts. sealServer is the authserv-id
// of the list's server.
const (
	sealer     = "list.example"
	sealServer = "mx.list.example"
)

// DMARCCase is a mail from outside that "make try" shows and the tests send. A new line
// in DMARCCases adds one to both.
type DMARCCase struct {
	Name  string
	Flags []string // further flags of postern-milterd
	Mail  postfixtest.Mail
	// Sealed makes the list's server seal the mail with ARC, after DMARC has passed
	// there.
	Sealed bool

	Code        int    // of Postfix's reply
	Disposition string // in the record
	Marked      bool   // the mail is delivered with X-Postern-Quarantine
	Want        string // a text in our results
}

// DMARCCases returns the mails, in the order in which they are shown.
func DMARCCases() []DMARCCase {
	evidence := []string{"--dmarc-enforce=evidence"}
	own := authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), "")
	spoof := authored(client("192.0.2.66", "", spoofer, Dora), "")
	spoof.Helo = "spammer.example"
	list := authored(client("192.0.2.41", "mx.list.example", listMail, Dora), "List-Id: <friends.list.example>\n")
	const fails = "dmarc=fail (p=reject dis=quarantine) header.from=bank.example policy.dmarc=reject"
	return []DMARCCase{
		{"the bank's own mail", nil, own, false, 250, "pass", false, "dmarc=pass (p=reject dis=none) header.from=bank.example"},
		{"a spoof of the bank, which asks for p=reject", nil, spoof, false, 250, "quarantine", true, fails},
		{"the bank's mail over a mailing list", nil, list, false, 250, "quarantine", true, fails},
		{"the same, sealed (ARC) by a list that the site trusts", nil, list, true, 250, "none", false, "dmarc=fail (p=reject dis=none) header.from=bank.example"},
		{"the spoof, --dmarc-enforce evidence", evidence, spoof, false, 550, "reject", false, ""},
		{"the mailing list, --dmarc-enforce evidence", evidence, list, false, 250, "quarantine", true, fails},
	}
}

// authored returns a mail with the bank's employee as its author.
func authored(m postfixtest.Mail, header string) postfixtest.Mail {
	m.Message = header + "From: Alice <" + Banker + ">\nTo: <" + m.To[0] + ">\nSubject: your account\nMessage-ID: <1@bank.example>\n\nHello.\n"
	return m
}

// DMARCRecord holds the fields of a mail's record about DMARC.
type DMARCRecord struct {
	postfixtest.Record
	DMARC       string `json:"dmarc"`
	ARC         string `json:"arc"`
	Disposition string `json:"disposition"`
}

// DMARCOutcome is the result of a DMARCCase.
type DMARCOutcome struct {
	Reply     postfixtest.Reply
	Record    DMARCRecord
	Delivered postfixtest.Delivery // zero if the mail was refused
	Wrong     error                // nil if all was as expected
}

// Rule returns the row of the table of dispositions that decided.
func (o DMARCOutcome) Rule() string {
	rule, _, _ := strings.Cut(o.Record.Step("dmarc").Detail, ";")
	return strings.TrimPrefix(rule, "rule ")
}

// quarantineField is the header field that marks a mail.
const quarantineField = "X-Postern-Quarantine"

// Run sends the mail, and waits for its record and, if the mail was accepted, for its
// delivery. An error means that the site itself failed.
func (c DMARCCase) Run(ctx context.Context, s *Site) (o DMARCOutcome, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
	}()
	if err := s.milterdWith(ctx, c.Flags); err != nil {
		return o, err
	}
	m := c.Mail
	if c.Sealed {
		if m.Message, err = s.seal(ctx, m.Message); err != nil {
			return o, err
		}
	}
	r, err := s.Postfix.Send(ctx, postfixtest.MX, m)
	if err != nil {
		return o, err
	}
	o.Reply = r.Final()
	record, err := s.VerifyRecord(ctx, m)
	if err != nil {
		return o, err
	}
	if err := json.Unmarshal([]byte(record.Raw), &o.Record); err != nil {
		return o, err
	}
	o.Record.Record = record.Record
	if o.Reply.Code == 250 {
		if o.Delivered, err = s.Postfix.Delivered(ctx, m.To[0]); err != nil {
			return o, err
		}
	}
	o.Wrong = c.check(o)
	return o, nil
}

// check compares the outcome with the expected one.
func (c DMARCCase) check(o DMARCOutcome) error {
	var errs []error
	if o.Reply.Code != c.Code || o.Record.Disposition != c.Disposition {
		errs = append(errs, fmt.Errorf("%s: %s, disposition %s, expected %d, %s", c.Name, o.Reply, o.Record.Disposition, c.Code, c.Disposition))
	}
	if o.Reply.Code != 250 {
		return errors.Join(errs...)
	}
	if mark := o.Delivered.Header(quarantineField); (mark == "dmarc") != c.Marked {
		errs = append(errs, fmt.Errorf("%s: %s is %q", c.Name, quarantineField, mark))
	}
	_, err := ourResults(o.Delivered, []string{c.Want})
	return errors.Join(append(errs, err)...)
}

// milterdWith makes postern-milterd run with further flags. It restarts the daemon
// unless it has these flags already.
func (s *Site) milterdWith(ctx context.Context, flags []string) error {
	flags = append([]string{"--trusted-arc-sealers=" + s.sealersPath()}, flags...)
	if slices.Equal(flags, s.extra) {
		return nil
	}
	if err := os.WriteFile(s.sealersPath(), []byte(sealer+"\n"), 0o644); err != nil {
		return err
	}
	if err := s.Milterd.StopUnlessEnded(); err != nil {
		return err
	}
	s.extra = flags
	return s.StartMilterd(ctx)
}

func (s *Site) sealersPath() string { return filepath.Join(s.Dir, "sealers") }

// arcSeal adds a set of ARC fields to the mail on its standard input. They are for the
// results in the mail that the server in its arguments has written.
const arcSeal = `
import sys, dkim
server, selector, domain, key = (a.encode() for a in sys.argv[1:])
mail = sys.stdin.buffer.read().replace(b"\n", b"\r\n")
fields = dkim.arc_sign(mail, selector, domain, open(key, "rb").read(), server)
sys.stdout.buffer.write((b"".join(fields) + mail).replace(b"\r\n", b"\n"))
`

// seal returns a message that python3-dkim has sealed as the list's server.
func (s *Site) seal(ctx context.Context, message string) (string, error) {
	dir := filepath.Join(s.Dir, "sealer")
	if _, err := os.Stat(dir); err != nil {
		if _, err := s.Postern(ctx, "dkim", "genkey", sealer, "--dir", dir); err != nil {
			return "", err
		}
		zone, err := s.Postern(ctx, "dkim", "dns", "--dir", dir)
		if err != nil {
			return "", err
		}
		if err := s.DNS.Add(zone); err != nil {
			return "", err
		}
	}
	key, err := rsaKey(filepath.Join(dir, sealer))
	if err != nil {
		return "", err
	}
	message = "Authentication-Results: " + sealServer + "; spf=pass smtp.mailfrom=bank.example; dmarc=pass header.from=bank.example\n" + message
	var out, errs bytes.Buffer
	selector := strings.TrimSuffix(filepath.Base(key), ".private")
	cmd := exec.CommandContext(ctx, python, "-c", arcSeal, sealServer, selector, sealer, key)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(message), &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("python3-dkim: %w\n%s", err, errs.String())
	}
	return out.String(), nil
}

// rsaKey returns a key that python3-dkim can seal with.
func rsaKey(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if strings.HasSuffix(path, ".private") && len(text) > 1000 { // an Ed25519 key has some 120 octets
			return path, nil
		}
	}
	return "", fmt.Errorf("no RSA key in %s", dir)
}
