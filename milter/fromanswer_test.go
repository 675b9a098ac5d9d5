package milter

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/record"
)

func TestFromCheck(t *testing.T) {
	tables, away := testJudge(t), &ownership.Judge{Owners: failing{}}
	const own, foreign = "From: alice@home.example", "From: bob@home.example"
	for _, tt := range []struct {
		name   string
		judge  *ownership.Judge
		check  FromCheck
		login  string
		auth   string
		header string

		verdict Verdict
		reply   string
		step    string // verdict, reason and mode; "" for none
		trouble error
	}{
		{"own", tables, FromCheck{}, ownerOfAll, "PLAIN", own, Continue, "continue", "pass owned_by_login enforce", nil},
		{"foreign", tables, FromCheck{}, ownerOfAll, "PLAIN", foreign, Reject, "550 5.7.1 <bob@home.example>: From address rejected: not owned by user alice@home.example", "reject from_not_owned enforce", nil},
		{"foreign, shadow", tables, FromCheck{Shadow: true}, ownerOfAll, "PLAIN", foreign, Continue, "continue", "reject from_not_owned shadow", nil},
		{"no login", tables, FromCheck{}, "", "", foreign, Continue, "continue", "", nil},
		{"a login without a name", tables, FromCheck{}, "", "EXTERNAL", own, Defer, "451 4.3.0 The owners of addresses cannot be looked up now, try again later", "defer owners_unavailable enforce", nil},
		{"tables away", away, FromCheck{}, ownerOfAll, "PLAIN", own, Defer, "451 4.3.0 The owners of addresses cannot be looked up now, try again later", "defer owners_unavailable enforce", nil},
		{"tables away, pass", away, FromCheck{PassOnError: true}, ownerOfAll, "PLAIN", own, Continue, "continue", "error owners_unavailable enforce", errTables},
		{"tables away, shadow", away, FromCheck{Shadow: true}, ownerOfAll, "PLAIN", own, Continue, "continue", "defer owners_unavailable shadow", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			counted := ""
			check := tt.check
			check.Owners = &FromOwners{Judge: tt.judge}
			check.Count = func(verdict string, reason record.Reason, mode string) {
				counted += verdict + " " + string(reason) + " " + mode
			}
			m := &message{Message: Message{Login: tt.login, AuthType: tt.auth, Sender: mailaddr.Parse(ownerOfAll), Header: header(tt.header)}, settings: &Settings{Verify: signing{}}}
			a := check.answer(t.Context(), m)
			if got := replyTo(a).String(); a.Verdict != tt.verdict || got != tt.reply || counted != tt.step {
				t.Errorf("verdict %v, reply %q, counted %q", a.Verdict, got, counted)
			}
			if !errors.Is(m.trouble, tt.trouble) || len(m.steps) != min(len(tt.step), 1) {
				t.Fatalf("trouble %v, steps %+v", m.trouble, m.steps)
			}
			// What the handler answers later has the step and the error too.
			if a.Verdict == Continue {
				a = Answer{Verdict: Accept, Reason: record.Signed, Details: Details{Steps: []record.Step{{Check: "sign"}}}}
			}
			d := m.record(m.Received)
			d.describe(m, &a, replyTo(a).String())
			if len(m.steps) > 0 && d.Steps[0].Check != FromOwnership || tt.trouble != nil && !errors.Is(d.Err, tt.trouble) {
				t.Errorf("record %+v", d.Record)
			}
			if want := map[bool]string{true: "verify", false: FromOwnership}[tt.verdict == Continue]; d.Check != want || d.Verdict != tt.verdict.String() {
				t.Errorf("record of check %s, verdict %s", d.Check, d.Verdict)
			}
		})
	}
	if a := (*FromCheck)(nil).answer(t.Context(), &message{Message: Message{Login: "x"}}); a.Verdict != Continue {
		t.Errorf("without the check: %+v", a)
	}
}

// The text of a client never breaks the reply.
func TestFromReplyIsSafe(t *testing.T) {
	check := FromCheck{Owners: &FromOwners{Judge: testJudge(t)}}
	for _, from := range []string{"From: <x%sy@home.example>", "From: \"a\\\r\n250 ok\"@home.example", "From: <b\u00fc@home.example>", "From: <" + strings.Repeat("x", 2000) + "@home.example>"} {
		m := &message{Message: Message{Login: ownerOfAll, Header: []Field{{Name: "From", Value: from[len("From: "):]}}}}
		a := check.answer(t.Context(), m)
		text := replyTo(a).String()
		for line := range strings.SplitSeq(text, "\r\n") {
			if !strings.HasPrefix(line, "550") || len(line) > 450 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%q: reply %q", from, text)
			}
		}
	}
}
