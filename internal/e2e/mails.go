package e2e

import (
	"context"
	"fmt"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// Case is a mail that "make try" shows and the tests send. A new line in Cases adds one
// to both.
type Case struct {
	Name    string
	Service string // postfixtest.MX or postfixtest.Submission
	Mail    postfixtest.Mail
	Code    int           // of the reply that decides
	Reason  record.Reason // of the check that decides
}

// Cases returns the mails to a site with lists, in the order in which they are
// shown.
func Cases() []Case {
	return []Case{
		{"alice sends as herself", postfixtest.Submission, As(Alice, Alice, Stranger), 250, record.OwnerSelf},
		{"alice sends as bob", postfixtest.Submission, As(Alice, Bob, Stranger), 553, record.OwnerNotOwned},
		{"alice sends as bob%home.example, which Postfix completes", postfixtest.Submission, As(Alice, "bob%home.example", Stranger), 553, record.OwnerNotOwned},
		{"alice sends as home.example!bob, likewise", postfixtest.Submission, As(Alice, "home.example!bob", Stranger), 553, record.OwnerNotOwned},
		{"bob sends as info, an alias that leads to him", postfixtest.Submission, As(Bob, Info, Stranger), 250, record.OwnerOwnedByAlias},
		{"alice sends as alice+shop", postfixtest.Submission, As(Alice, "alice+shop@home.example", Stranger), 250, record.OwnerSelf},
		{"alice sends as press, hers by the owners map", postfixtest.Submission, As(Alice, Press, Stranger), 250, record.OwnerOwned},
		{"a stranger writes to alice, no login", postfixtest.MX, fromOutside(Stranger, Alice), 250, record.DNSBLClean},
		{"a client that Spamhaus lists writes to alice", postfixtest.MX, client("192.0.2.7", "mx.away.example", Stranger, Alice), 550, record.DNSBLClientListed},
		{"mail from a domain that Spamhaus lists", postfixtest.MX, client("192.0.2.25", "mx.away.example", "offer@spam.example", Alice), 550, record.DNSBLSenderListed},
		// This is the last case, because its list is then out of service until a
		// self-test passes.
		{"from a client about whom the list gives an error code", postfixtest.MX, client("192.0.2.9", "mx.away.example", Stranger, Alice), 250, record.DNSBLUnavailable},
	}
}

// fromOutside returns a mail that another site sends.
func fromOutside(from string, to ...string) postfixtest.Mail {
	return client("192.0.2.25", "mx.away.example", from, to...)
}

// client returns a mail from an address. name is its confirmed name and its HELO.
func client(addr, name, from string, to ...string) postfixtest.Mail {
	return postfixtest.Mail{Client: addr, Name: name, Helo: name, From: from, To: to}
}

// Outcome is the result of a Case.
type Outcome struct {
	Reply  postfixtest.Reply
	Record postfixtest.Record
	Wrong  error // nil if all was as expected
}

// Run sends the mail, and waits for its record and, if the mail was accepted, for its
// delivery. An error means that the site itself failed.
func (c Case) Run(ctx context.Context, s *Site) (Outcome, error) {
	o, _, err := c.run(ctx, s)
	return o, err
}

// run also returns the delivery.
func (c Case) run(ctx context.Context, s *Site) (o Outcome, d postfixtest.Delivery, err error) {
	result, err := s.Postfix.Send(ctx, c.Service, c.Mail)
	if err != nil {
		return o, d, fmt.Errorf("%s: %w", c.Name, err)
	}
	o.Reply = result.Final()
	if o.Record, err = s.Record(ctx, c.Mail); err != nil {
		return o, d, fmt.Errorf("%s: %w", c.Name, err)
	}
	if reason, _ := o.Record.Why(); o.Reply.Code != c.Code || reason != string(c.Reason) {
		o.Wrong = fmt.Errorf("%s: answered %d because of %q, expected %d because of %q", c.Name, o.Reply.Code, reason, c.Code, c.Reason)
		return o, d, nil
	}
	if c.Code != 250 {
		return o, d, nil
	}
	if d, err = s.Postfix.Delivered(ctx, c.Mail.To[0]); err != nil {
		return o, d, fmt.Errorf("%s: %w", c.Name, err)
	}
	if d.Sender != c.Mail.From {
		o.Wrong = fmt.Errorf("%s: delivered with sender %q", c.Name, d.Sender)
	}
	return o, d, nil
}
