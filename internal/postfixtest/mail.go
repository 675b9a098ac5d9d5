package postfixtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
)

// Mail is one message with its sender.
type Mail struct {
	Helo     string // "" means client.example
	Client   string // IP address to present with XCLIENT; "" uses 127.0.0.1
	Name     string // verified name of Client; "" means unknown
	Login    string // AUTH PLAIN as this user; "" means no login
	Password string
	TLS      *tls.Config // STARTTLS first; nil means no TLS

	From       string   // envelope sender; "" is the null sender
	Parameters []string // of MAIL, such as "SMTPUTF8"
	To         []string // envelope recipients
	Message    string   // header and body; "" means a small valid one
}

// Replies holds the server's replies to a Mail.
type Replies struct {
	Mail Reply
	Rcpt []Reply // one per recipient
	Data Reply   // to the message; zero if no recipient was accepted
}

// Final returns the reply that decided: the first refusal, or the last reply.
func (r Replies) Final() Reply {
	if !r.Mail.OK() {
		return r.Mail
	}
	for _, reply := range r.Rcpt {
		if !reply.OK() {
			return reply
		}
	}
	return r.Data
}

// Send opens a session with a service, sends m and quits. A refusal of MAIL, RCPT or
// the message is in the Result. An earlier refusal is an error.
func (p *Postfix) Send(ctx context.Context, service string, m Mail) (Replies, error) {
	c, err := p.Dial(ctx, service)
	if err != nil {
		return Replies{}, err
	}
	// The end of ctx ends a blocked read.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := c.Open(m); err != nil {
		return Replies{}, errors.Join(err, c.Close())
	}
	r, err := c.Send(m)
	if err != nil {
		return r, errors.Join(err, c.Close())
	}
	return r, c.Quit()
}

// Open does the steps before MAIL: XCLIENT, EHLO, STARTTLS, AUTH.
func (c *Client) Open(m Mail) error {
	helo := m.Helo
	if helo == "" {
		helo = "client.example"
	}
	if err := c.Hello(helo); err != nil {
		return err
	}
	if m.Client != "" {
		if err := c.XClient(xclient(m)...); err != nil {
			return err
		}
		if err := c.Hello(helo); err != nil {
			return err
		}
	}
	if m.TLS != nil {
		if err := c.StartTLS(m.TLS); err != nil {
			return err
		}
		if err := c.Hello(helo); err != nil {
			return err
		}
	}
	if m.Login == "" {
		return nil
	}
	return c.Login(m.Login, m.Password)
}

func xclient(m Mail) []string {
	name, addr := m.Name, m.Client
	if name == "" {
		name = "[UNAVAILABLE]"
	}
	if strings.Contains(addr, ":") {
		addr = "IPV6:" + addr
	}
	return []string{"NAME=" + name, "ADDR=" + addr}
}

// Send performs one transaction in an open session.
func (c *Client) Send(m Mail) (r Replies, err error) {
	if r.Mail, err = c.Mail(m.From, m.Parameters...); err != nil || !r.Mail.OK() {
		return r, err
	}
	accepted := false
	for _, to := range m.To {
		reply, err := c.Rcpt(to)
		if err != nil {
			return r, err
		}
		r.Rcpt = append(r.Rcpt, reply)
		accepted = accepted || reply.OK()
	}
	if !accepted {
		// The session can go on with another mail.
		return r, c.Reset()
	}
	r.Data, err = c.Data(message(m))
	return r, err
}

func message(m Mail) string {
	if m.Message != "" {
		return m.Message
	}
	return fmt.Sprintf("From: <%s>\nTo: <%s>\nSubject: a test\n\nHello.\n", m.From, strings.Join(m.To, ">, <"))
}
