package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
)

// logPrinter prints records in one of the command's forms.
type logPrinter struct {
	out     io.Writer
	filter  *maillog.Filter
	flat    bool
	asJSON  bool
	color   bool
	printed int
	last    *maillog.Mail // whose head was printed last
}

// timeOnly is the format of times below one with its zone.
const timeOnly = "15:04:05.000"

// jsonMail is a mail in the output of --json.
type jsonMail struct {
	Time       time.Time         `json:"ts"`
	QueueID    string            `json:"queue_id,omitempty"`
	Client     string            `json:"client_address,omitempty"`
	Port       string            `json:"client_port,omitempty"`
	Sender     string            `json:"sender,omitempty"`
	Login      string            `json:"sasl_username,omitempty"`
	Recipients []string          `json:"recipients,omitempty"`
	Records    []json.RawMessage `json:"records"`
}

// mail prints a mail with all its records, if one of them matches.
func (p *logPrinter) mail(m *maillog.Mail) error {
	if p.flat || !p.filter.Mail(m) {
		return nil
	}
	p.printed++
	if p.asJSON {
		return p.jsonLine(m)
	}
	err := p.head(m)
	for _, e := range m.Entries {
		err = errors.Join(err, p.entry(e))
	}
	return err
}

func (p *logPrinter) jsonLine(m *maillog.Mail) error {
	first := m.First()
	line := jsonMail{
		Time: first.Time, QueueID: m.QueueID, Client: first.ClientAddress, Port: first.ClientPort,
		Sender: senderOf(m), Login: loginOf(m), Recipients: m.Recipients,
	}
	for _, e := range m.Entries {
		line.Records = append(line.Records, e.Line)
	}
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(line)
}

func senderOf(m *maillog.Mail) string {
	return m.Text(func(e *maillog.Entry) string { return e.Sender })
}

func loginOf(m *maillog.Mail) string {
	return m.Text(func(e *maillog.Entry) string { return e.SASLUsername })
}

// follow prints records as they arrive. The head of a mail is printed before its first
// record, and again when the record before was of another mail.
func (p *logPrinter) follow(entries iter.Seq[*maillog.Entry], joiner *maillog.Joiner) error {
	for e := range entries {
		m := joiner.Add(e)
		if err := p.record(e, m); err != nil {
			return err
		}
	}
	return nil
}

// record prints one record of a mail, if it matches.
func (p *logPrinter) record(e *maillog.Entry, m *maillog.Mail) error {
	if !p.filter.Entry(e, m) {
		return nil
	}
	p.printed++
	var err error
	switch {
	case p.asJSON:
		_, err = fmt.Fprintf(p.out, "%s\n", e.Line)
		return err
	case p.flat:
		_, err = fmt.Fprintf(p.out, "%s %s %s\n", local(e.Time), p.decided(e), whoAndWhat(e))
		return err
	case p.last != m:
		err = p.head(m)
	}
	return errors.Join(err, p.entry(e))
}

// head prints the fields that all records of a mail share.
func (p *logPrinter) head(m *maillog.Mail) error {
	p.last = m
	first := m.First()
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s", local(first.Time), shown(cmp.Or(senderOf(m), "-")))
	for i, r := range m.Recipients {
		if i == 0 {
			b.WriteString(" ->")
		} else {
			b.WriteByte(',')
		}
		if i == 5 {
			fmt.Fprintf(&b, " and %d more", len(m.Recipients)-i)
			break
		}
		b.WriteString(" " + shown(r))
	}
	b.WriteByte('\n')
	client := maillog.Client(m.Text(func(e *maillog.Entry) string { return e.ClientName }), first.ClientAddress)
	if client != "" && first.ClientPort != "" {
		client += ":" + first.ClientPort
	}
	words := named("client", cmp.Or(client, first.Peer)) +
		named("helo", m.Text(func(e *maillog.Entry) string { return e.Helo })) +
		named("login", loginOf(m)) + named("queue", m.QueueID) +
		named("message-id", m.Text(func(e *maillog.Entry) string { return e.MessageID }))
	if words != "" {
		b.WriteString(" " + words + "\n")
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

func named(name, text string) string {
	if text == "" {
		return ""
	}
	return " " + name + "=" + shown(text)
}

// entry prints one record below the head of its mail, and the results of its checks.
func (p *logPrinter) entry(e *maillog.Entry) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s  %s %s", e.Time.Local().Format(timeOnly), e.Daemon, p.decided(e))
	if e.Daemon == "policyd" {
		b.WriteString(named("recipient", e.Recipient))
	}
	b.WriteString(found(e))
	fmt.Fprintf(&b, " %.1fms\n", e.Millis)
	for i := range e.Steps {
		s := &e.Steps[i]
		fmt.Fprintf(&b, "      %s: %s %s", shown(s.Check), p.colored(s.Verdict), shown(s.Reason)+inShadow(s.Mode))
		if s.Detail != "" {
			b.WriteString("  " + shown(s.Detail))
		}
		b.WriteString(named("error", s.Error) + "\n")
	}
	_, err := io.WriteString(p.out, b.String())
	return err
}

// decided returns the verdict of a record and its reason.
func (p *logPrinter) decided(e *maillog.Entry) string {
	return shown(cmp.Or(e.Check, "-")) + " " + p.colored(e.Verdict) + " " + shown(cmp.Or(e.Reason, "-")) + inShadow(e.Mode)
}

// inShadow returns what is printed after a reason that was recorded without effect.
func inShadow(mode string) string {
	if mode == "shadow" {
		return " (shadow)"
	}
	return ""
}

// found returns the fields of a record that are not in the head of its mail.
func found(e *maillog.Entry) string {
	return named("whose", e.Whose) + named("from", e.From) + named("spf", e.SPF) + named("dkim", e.DKIM) + named("arc", e.ARC) + named("dmarc", e.DMARC) +
		named("disposition", e.Disposition) + named("signed", e.SignedBy) + named("reply", e.Action) + named("error", e.Error)
}

func whoAndWhat(e *maillog.Entry) string {
	return strings.TrimPrefix(named("queue", e.QueueID)+named("client", cmp.Or(maillog.Client(e.ClientName, e.ClientAddress), e.Peer))+named("login", e.SASLUsername)+
		named("sender", e.Sender)+named("recipient", e.Recipient)+found(e), " ")
}

// colors are terminal colors by verdict.
var colors = map[string]string{"pass": "32", "hold": "33", "defer": "33", "reject": "31", "error": "35"}

func (p *logPrinter) colored(verdict string) string {
	verdict = shown(cmp.Or(verdict, "-"))
	if code := colors[verdict]; p.color && code != "" {
		return "\x1b[" + code + "m" + verdict + "\x1b[0m"
	}
	return verdict
}
