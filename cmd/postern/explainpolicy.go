package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/policyd"
)

// Bounds of one run of the command.
const (
	maxAttributes = 128
	maxRequest    = 64 << 10
	maxExplained  = 100
)

// bindPolicyFlags adds the flags that give attributes of a request.
func bindPolicyFlags(fs *pflag.FlagSet) {
	fs.String("client", "", "`address` of the SMTP client")
	fs.String("client-name", "", "its confirmed host `name`")
	fs.String("reverse-name", "", "its host `name`, confirmed or not")
	fs.String("helo", "", "`name` that it gives in HELO or EHLO")
	fs.String("sender", "", "envelope `sender`; \"\" is the null sender")
	fs.String("recipient", "", "envelope `recipient`")
	fs.String("login", "", "`login`, as Postfix has it in sasl_username")
	fs.String("context", "", "`checks` to ask, as the policy_context of a hook (default all)")
	fs.String("state", "", "protocol `state` in which Postfix asks (default RCPT)")
}

// policyAttributes returns the attributes that have a flag, in order.
func policyAttributes() []struct{ flag, attribute string } {
	return []struct{ flag, attribute string }{
		{"client", "client_address"}, {"client-name", "client_name"}, {"reverse-name", "reverse_client_name"}, {"helo", "helo_name"},
		{"sender", "sender"}, {"recipient", "recipient"}, {"login", "sasl_username"}, {"context", "policy_context"}, {"state", "protocol_state"},
	}
}

func bindExplainPolicy(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	bindPolicyFlags(fs)
	more := fs.StringArray("attribute", nil, "`name=value` of any other attribute of the request; repeat for several")
	file := fs.String("record", "", "`file` with records to ask about again, - for standard input")
	asJSON := fs.Bool("json", false, "print the answers as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		asked, err := policyQuestions(ctx, fs, *more, *file, args)
		if err != nil {
			return exitFailed, err
		}
		code := exitYes
		for i, q := range asked {
			var x api.PolicyExplanation
			if err := client.Call(ctx, api.PolicyExplain, api.PolicyExplainArgs{Attributes: q.attributes}, &x, nil); err != nil {
				return exitFailed, olderDaemon(client, err, "does not know this command")
			}
			x.Notes = append(x.Notes, q.notes...)
			if x.Mode != "shadow" && (x.Verdict == "defer" || x.Verdict == "reject") {
				code = exitNo
			}
			if *asJSON {
				err = printJSON(io.out, x)
			} else {
				if i > 0 {
					fmt.Fprintln(io.out)
				}
				err = printPolicy(io.out, q, &x)
			}
			if err != nil {
				return exitFailed, err
			}
		}
		return code, nil
	}
}

// policyQuestion is a request to ask about.
type policyQuestion struct {
	attributes []api.Attribute
	notes      []string
	was        *maillog.Entry // the record from which it was made, or nil
}

// policyQuestions reads the requests from the flags, a file, or standard input.
func policyQuestions(ctx context.Context, fs *pflag.FlagSet, more []string, file string, args []string) ([]policyQuestion, error) {
	given, err := givenAttributes(fs, more)
	if err != nil {
		return nil, err
	}
	fromStdin := len(args) == 1 && args[0] == "-"
	switch {
	case len(args) > 0 && !fromStdin:
		return nil, errUsage
	case file != "" && fromStdin:
		return nil, errors.New("--record and - are two requests; leave out one of them")
	case file != "":
		return recordQuestions(ctx, file, given)
	case !fromStdin && len(given) == 0 && isTerminal(os.Stdin):
		return nil, errors.New("no request; give --client, --sender and --recipient, --record FILE, or name=value lines on standard input")
	case fromStdin || len(given) == 0:
		attributes, err := readAttributes(stdin(ctx))
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}
		return []policyQuestion{{attributes: complete(merged(attributes, given))}}, nil
	}
	return []policyQuestion{{attributes: complete(given)}}, nil
}

// givenAttributes returns the attributes that the flags set.
func givenAttributes(fs *pflag.FlagSet, more []string) ([]api.Attribute, error) {
	var all []api.Attribute
	if client := fs.Lookup("client").Value.String(); client != "" && client != "unknown" { // Postfix's word for none
		if _, err := netip.ParseAddr(client); err != nil {
			return nil, fmt.Errorf("--client %.60q is no IP address; names are for --client-name", client)
		}
	}
	for _, f := range policyAttributes() {
		if fs.Changed(f.flag) {
			value := fs.Lookup(f.flag).Value.String()
			if f.flag == "sender" || f.flag == "recipient" {
				value = policyd.Unquoted(value)
			}
			all = append(all, api.Attribute{Name: f.attribute, Value: value})
		}
	}
	for _, text := range more {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--attribute %.40q is not name=value", text)
		}
		all = append(all, api.Attribute{Name: name, Value: value})
	}
	return all, nil
}

// merged returns all, with attributes replaced by those of over that have the same
// name.
func merged(all, over []api.Attribute) []api.Attribute {
	for _, a := range over {
		all = append(without(all, a.Name), a)
	}
	return all
}

func without(all []api.Attribute, name string) []api.Attribute {
	var rest []api.Attribute
	for _, a := range all {
		if a.Name != name {
			rest = append(rest, a)
		}
	}
	return rest
}

// complete adds the attributes that every request of Postfix has. Postfix sends
// senders and recipients without angle brackets.
func complete(all []api.Attribute) []api.Attribute {
	has := make(map[string]bool)
	for i, a := range all {
		has[a.Name] = true
		if a.Name == "sender" || a.Name == "recipient" {
			all[i].Value = strings.TrimSuffix(strings.TrimPrefix(a.Value, "<"), ">")
		}
	}
	for _, a := range []api.Attribute{{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"}} {
		if !has[a.Name] {
			all = append(all, a)
		}
	}
	return all
}

// readAttributes reads a request as Postfix sends it: name=value lines up to an empty
// line or the end.
func readAttributes(r io.Reader) ([]api.Attribute, error) {
	var all []api.Attribute
	lines := bufio.NewScanner(io.LimitReader(r, maxRequest))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d: %.40q is not name=value", number, line)
		}
		if len(all) == maxAttributes {
			return nil, fmt.Errorf("line %d: more than %d attributes", number, maxAttributes)
		}
		all = append(all, api.Attribute{Name: name, Value: value})
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("no attributes; write name=value lines as Postfix sends them, or give --client, --sender and --recipient")
	}
	return all, nil
}

// recordQuestions makes requests from the records in a file. Attributes from flags
// replace those from records.
func recordQuestions(ctx context.Context, file string, given []api.Attribute) ([]policyQuestion, error) {
	source, err := openRecords(ctx)(file)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	var all []policyQuestion
	for {
		e, err := source.Next()
		switch {
		case errors.Is(err, io.EOF) && len(all) == 0:
			return nil, fmt.Errorf("%s: no record of postern-policyd about a request in %d lines", source.Name, source.Records+source.Others)
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case e.Daemon != "policyd" || e.Peer != "":
			continue
		case len(all) == maxExplained:
			return nil, fmt.Errorf("%s has more than %d records; pick some of them with postern log", source.Name, maxExplained)
		}
		q := recordQuestion(e)
		q.attributes = complete(merged(q.attributes, given))
		all = append(all, q)
	}
}

// recordQuestion returns the request that a record is about, as far as the record
// contains it.
func recordQuestion(e *maillog.Entry) policyQuestion {
	q := policyQuestion{was: e}
	for _, a := range []api.Attribute{
		{Name: "instance", Value: e.Instance}, {Name: "queue_id", Value: e.QueueID},
		{Name: "client_address", Value: e.ClientAddress}, {Name: "client_port", Value: e.ClientPort}, {Name: "client_name", Value: e.ClientName},
		{Name: "helo_name", Value: e.Helo}, {Name: "sender", Value: e.Sender}, {Name: "recipient", Value: e.Recipient},
		{Name: "sasl_username", Value: e.SASLUsername},
	} {
		if a.Value != "" {
			q.attributes = append(q.attributes, a)
		}
	}
	if e.ClientName != "" {
		q.attributes = append(q.attributes, api.Attribute{Name: "reverse_client_name", Value: e.ClientName})
	} else {
		q.notes = append(q.notes, "the record has no reverse_client_name; give --reverse-name if the check of suspicions needs it")
	}
	if e.Recipient == "" {
		q.notes = append(q.notes, "the record has no recipient and no protocol state; RCPT is assumed unless --state says otherwise")
	}
	var checks []string
	for _, s := range e.Steps {
		checks = append(checks, s.Check)
	}
	if len(checks) > 0 {
		q.attributes = append(q.attributes, api.Attribute{Name: "policy_context", Value: strings.Join(checks, ",")})
	}
	return q
}

// printPolicy prints an answer for people.
func printPolicy(w io.Writer, q policyQuestion, x *api.PolicyExplanation) error {
	var b strings.Builder
	if e := q.was; e != nil {
		fmt.Fprintf(&b, "recorded at %s: %s %s %s for %s -> %s\n", local(e.Time), shown(cmp.Or(e.Check, "-")), shown(e.Verdict), shown(e.Reason), shown(cmp.Or(e.Sender, "-")), shown(cmp.Or(e.Recipient, "-")))
	}
	fmt.Fprintf(&b, "checks (%s)\n", shown(cmp.Or(x.Context, "all that run")))
	for i := range x.Steps {
		printPolicyStep(&b, &x.Steps[i])
	}
	for _, name := range x.Unasked {
		fmt.Fprintf(&b, "  %-10s not asked\n", shown(name))
	}
	fmt.Fprintf(&b, "\nanswer    %s\n", shown(x.Action))
	fmt.Fprintf(&b, "because   %s %s %s", shown(cmp.Or(x.Check, "no check")), shown(x.Verdict), shown(x.Reason))
	if x.Mode == "shadow" {
		b.WriteString(" (shadow: recorded, not done)")
	}
	b.WriteByte('\n')
	if x.Check == "" && x.Error != "" {
		fmt.Fprintf(&b, "          %s\n", shown(x.Error))
	}
	if len(x.Advice) > 0 {
		b.WriteString("\nwhat would change it\n")
	}
	for _, a := range x.Advice {
		fmt.Fprintf(&b, "  %s: %s\n", shown(a.Check), shown(a.Text))
	}
	for _, note := range x.Notes {
		fmt.Fprintf(&b, "\nnote: %s\n", shown(note))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printPolicyStep(b *strings.Builder, s *api.PolicyStep) {
	fmt.Fprintf(b, "  %-10s %-6s %s%s", shown(s.Check), shown(s.Verdict), shown(s.Reason), inShadow(s.Mode))
	fmt.Fprintf(b, "  %s", time.Duration(s.Millis*float64(time.Millisecond)).Round(10*time.Microsecond))
	if s.Decides {
		b.WriteString("  <- decides")
	}
	b.WriteByte('\n')
	if s.Detail != "" {
		fmt.Fprintf(b, "             %s\n", shown(s.Detail))
	}
	if s.Error != "" {
		fmt.Fprintf(b, "             %s", shown(s.Error))
		if s.OnError != "" {
			fmt.Fprintf(b, "; on error: %s", shown(s.OnError))
		}
		b.WriteByte('\n')
	}
}
