package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// awayZone holds the records of the other site. They exist from the start, because
// resolvers would remember that they do not.
const awayZone = `away.example. TXT "v=spf1 ip4:192.0.2.25 -all"
mx.away.example. A 192.0.2.25
25.2.0.192.in-addr.arpa. PTR mx.away.example.
`

// forgedResults are two fields: one that claims to be ours, and one that does not.
const forgedResults = "Authentication-Results: mail.home.example; dkim=pass header.d=bank.example; spf=pass\n" +
	"Authentication-Results: mx.other.example; spf=pass smtp.mailfrom=other.example\n"

// VerifyCase is a session with mails from outside, which "make try" shows and the tests
// send. A new line in VerifyCases adds one to both.
type VerifyCase struct {
	Name  string
	Mails []postfixtest.Mail // in one session; its client is that of the first mail
	// SignedFirst makes the site sign the message before it is sent, as for a mail that
	// comes back from a mailing list.
	SignedFirst bool
	Want        [][]string // of each mail: texts in its results
}

// VerifyCases returns the sessions, in the order in which they are shown.
func VerifyCases() []VerifyCase {
	good, bad := fromOutside(Stranger, Dora), fromOutside(Stranger, Dora)
	bad.Client, bad.Name, bad.Helo = "192.0.2.66", "", "spammer.example"
	forged := good
	forged.Message = forgedResults + "From: <" + Stranger + ">\nSubject: a test\n\nHello.\n"
	other := fromOutside("news@other.example", Dora)
	return []VerifyCase{
		{"a stranger's mail by the server that SPF names", []postfixtest.Mail{good}, false, [][]string{{"spf=pass (ip4:192.0.2.25) smtp.mailfrom=away.example", "iprev=pass (mx.away.example)"}}},
		{"the same by another server", []postfixtest.Mail{bad}, false, [][]string{{"spf=fail (-all) smtp.mailfrom=away.example", "iprev=permerror"}}},
		{"with results that claim to be ours", []postfixtest.Mail{forged}, false, [][]string{{"spf=pass", "dkim=none"}}},
		{"our own signed mail, back over a list", []postfixtest.Mail{good}, true, [][]string{{"dkim=pass (2048-bit key) header.d=home.example", "header.a=ed25519-sha256"}}},
		{"two mails in one session", []postfixtest.Mail{good, other}, false, [][]string{{"smtp.mailfrom=away.example"}, {"spf=none smtp.mailfrom=other.example"}}},
	}
}

// VerifyRecord holds the fields that only the record of a verified mail has.
type VerifyRecord struct {
	postfixtest.Record
	MessageID string `json:"message_id"`
	From      string `json:"from"`
	SPF       string `json:"spf"`
	DKIM      string `json:"dkim"`
}

// VerifyRecord waits for the record of the verify role about a mail.
func (s *Site) VerifyRecord(ctx context.Context, m postfixtest.Mail) (VerifyRecord, error) {
	r, err := s.Milterd.WaitRecord(ctx, func(r postfixtest.Record) bool {
		return r.Check == "verify" && (r.Sender == m.From || m.From == "" && r.Sender == "<>") && r.Recipient == m.To[0]
	})
	if err != nil {
		return VerifyRecord{}, fmt.Errorf("the verifying record of the mail from %s to %s: %w", m.From, m.To[0], err)
	}
	more := VerifyRecord{}
	err = json.Unmarshal([]byte(r.Raw), &more)
	more.Record = r
	return more, err
}

// VerifyOutcome is the result for one mail of a VerifyCase.
type VerifyOutcome struct {
	Results string // our Authentication-Results, unfolded
	Record  VerifyRecord
	Wrong   error // nil if all was as expected
}

// Run sends the mails in one session, and waits for their records and their
// deliveries. An error means that the site itself failed.
func (c VerifyCase) Run(ctx context.Context, s *Site) (all []VerifyOutcome, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
	}()
	message := ""
	if c.SignedFirst {
		if message, err = s.signedMessage(ctx); err != nil {
			return nil, err
		}
	}
	session, err := s.Postfix.Dial(ctx, postfixtest.MX)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if err := session.Open(c.Mails[0]); err != nil {
		return nil, err
	}
	for i, m := range c.Mails {
		if message != "" {
			m.Message = message
		}
		o, err := s.verified(ctx, session, m, c.Want[i])
		if err != nil {
			return all, err
		}
		all = append(all, o)
	}
	return all, session.Quit()
}

// signedMessage returns a mail that the site has signed.
func (s *Site) signedMessage(ctx context.Context) (string, error) {
	r, err := s.Postfix.Send(ctx, postfixtest.Submission, As(Alice, Alice, Dora))
	if err != nil {
		return "", err
	}
	if got := r.Final(); got.Code != 250 {
		return "", errors.New(got.String())
	}
	d, err := s.Postfix.Delivered(ctx, Dora)
	return string(d.Data), err
}

// verified sends one mail and compares what was delivered.
func (s *Site) verified(ctx context.Context, session *postfixtest.Client, m postfixtest.Mail, want []string) (o VerifyOutcome, err error) {
	r, err := session.Send(m)
	if err != nil {
		return o, err
	}
	if got := r.Final(); got.Code != 250 {
		return o, errors.New(got.String())
	}
	if o.Record, err = s.VerifyRecord(ctx, m); err != nil {
		return o, err
	}
	d, err := s.Postfix.Delivered(ctx, m.To[0])
	if err != nil {
		return o, err
	}
	o.Results, o.Wrong = ourResults(d, want)
	return o, nil
}

// ourResults returns our field of results. It must be the only one of ours, and the
// first field.
func ourResults(d postfixtest.Delivery, want []string) (string, error) {
	const ours = "mail.home.example;"
	fields := d.Headers("Authentication-Results")
	if len(fields) == 0 || !strings.HasPrefix(fields[0], ours) || !strings.HasPrefix(string(d.Data), "Authentication-Results:") {
		return "", fmt.Errorf("the first field is not our Authentication-Results: %q", fields)
	}
	for _, f := range fields[1:] {
		if strings.HasPrefix(f, ours) {
			return fields[0], fmt.Errorf("another field claims to be ours: %q", f)
		}
	}
	for _, text := range want {
		if !strings.Contains(fields[0], text) {
			return fields[0], fmt.Errorf("%q does not say %q", fields[0], text)
		}
	}
	return fields[0], nil
}
