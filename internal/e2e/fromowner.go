package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// fromCheck is the name of the check in records.
const fromCheck = "from_ownership"

// FromCase is a mail whose From is checked, which "make try" shows and the tests send.
// A new line in FromCases adds one to both.
type FromCase struct {
	Name    string
	Service string // of postfixtest, or Sendmail
	Mail    postfixtest.Mail
	Code    int           // of Postfix's reply
	Reason  record.Reason // of the check; "" if it is not asked
	Reply   string        // text in the reply
}

// FromCases returns the mails, in the order in which they are shown.
func FromCases() []FromCase {
	const submission = postfixtest.Submission
	return []FromCase{
		{"alice writes as herself", submission, withHeader(Alice, "From: Alice <"+Alice+">"), 250, record.OwnerSelf, ""},
		{"alice sends as herself and writes From: bob", submission, withHeader(Alice, "From: Bob <"+Bob+">"), 550, record.FromNotOwned,
			"5.7.1 <" + Bob + ">: From address rejected: not owned by user " + Alice},
		{"alice writes as press, hers by the owners map", submission, withHeader(Alice, "From: Press <"+Press+">"), 250, record.OwnerOwned, ""},
		{"bob writes as info, an alias that leads to him", submission, withHeader(Bob, "From: "+Info), 250, record.OwnerOwnedByAlias, ""},
		{"alice names bob in Sender", submission, withHeader(Alice, "From: "+Alice+"\nSender: "+Bob), 550, record.FromNotOwned,
			"5.7.1 <" + Bob + ">: Sender address rejected"},
		{"alice redirects a stranger's mail", submission, withHeader(Alice, "From: "+Stranger+"\nResent-From: "+Alice), 550, record.FromRedirected,
			"forward the message instead"},
		{"alice writes two From fields", submission, withHeader(Alice, "From: "+Alice+"\nFrom: "+Bob), 550, record.FromSeveral, "several From fields"},
		{"alice writes a From without an address", submission, withHeader(Alice, "From: undisclosed:;"), 550, record.FromUnreadable, "From field rejected"},
		{`alice writes "bob@home.example" as her name`, submission, withHeader(Alice, "From: \""+Bob+"\" <"+Alice+">"), 550, record.FromDisplay,
			"5.7.1 <" + Bob + ">: name in From"},
		{"a program writes From: bob through sendmail(1)", Sendmail, withHeader(Alice, "From: Bob <"+Bob+">"), 250, "", ""},
	}
}

// withHeader returns a mail of a user with these fields in its header.
func withHeader(login, fields string) postfixtest.Mail {
	m := As(login, login, Dora)
	m.Message = fields + "\nTo: <" + Dora + ">\nSubject: a test\n\nHello.\n"
	return m
}

// FromFlags returns the flags of postern-milterd in these cases.
func (s *Site) FromFlags() []string {
	return []string{
		"--from-ownership=enforce", "--from-display=reject",
		"--owners=hash:" + s.OwnersPath(), "--owner-aliases=hash:" + s.AliasesPath(),
	}
}

// FromOutcome is the result of a FromCase.
type FromOutcome struct {
	Reply  postfixtest.Reply
	Record postfixtest.Record
	Wrong  error // nil if all was as expected
}

// Step returns the step of the check, or the zero value if it was not asked.
func (o FromOutcome) Step() postfixtest.Step { return o.Record.Step(fromCheck) }

// Run sends the mail and waits for its record. An error means that the site itself
// failed.
func (c FromCase) Run(ctx context.Context, s *Site) (o FromOutcome, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
	}()
	if err := s.milterdWith(ctx, s.FromFlags()); err != nil {
		return o, err
	}
	if o.Reply, err = s.submit(ctx, c.Service, c.Mail); err != nil {
		return o, err
	}
	o.Record, err = s.Milterd.WaitRecord(ctx, func(r postfixtest.Record) bool {
		return r.Sender == c.Mail.From && r.Recipient == c.Mail.To[0]
	})
	if err != nil {
		return o, err
	}
	if o.Reply.Code == 250 {
		if _, err := s.Postfix.Delivered(ctx, c.Mail.To[0]); err != nil {
			return o, err
		}
	}
	o.Wrong = c.check(o)
	return o, nil
}

// check compares the outcome with the expected one.
func (c FromCase) check(o FromOutcome) error {
	var errs []error
	step := o.Step()
	if o.Reply.Code != c.Code || !strings.Contains(o.Reply.String(), c.Reply) || step.Reason != string(c.Reason) {
		errs = append(errs, fmt.Errorf("%s: answered %s because of %q, expected %d %s because of %q", c.Name, o.Reply, step.Reason, c.Code, c.Reply, c.Reason))
	}
	if refused := c.Code != 250; refused != (o.Record.Check == fromCheck) || refused && o.Record.Verdict != "reject" {
		errs = append(errs, fmt.Errorf("%s: record %s", c.Name, o.Record.Raw))
	}
	return errors.Join(errs...)
}
