package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// policyDaemon answers with x, and sends what it was asked.
func policyDaemon(t *testing.T, x api.PolicyExplanation) (path string, asked <-chan string) {
	questions := make(chan string, 10)
	path = serveCommands(t, api.Policyd, map[string]admin.Handler{
		api.PolicyExplain: admin.Typed(func(_ context.Context, args api.PolicyExplainArgs, _ func(any)) (any, error) {
			var words []string
			for _, a := range args.Attributes {
				words = append(words, a.Name+"="+a.Value)
			}
			questions <- strings.Join(words, " ")
			return x, nil
		}),
	})
	return path, questions
}

// onStdin makes text the standard input.
func onStdin(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stdin")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdin
	os.Stdin = file
	t.Cleanup(func() { os.Stdin = before; file.Close() })
}

func TestExplainPolicyQuestions(t *testing.T) {
	record := logFile(t, "log", policydLines)
	tests := []struct {
		name, stdin string
		args        []string
		want        []string
	}{
		{"flags", "", []string{"--client", "192.0.2.7", "--sender", "<ann@x.example>", "--recipient", "bob@y.example", "--context", "greylist", "--attribute", "size=7"},
			[]string{"client_address=192.0.2.7 sender=ann@x.example recipient=bob@y.example policy_context=greylist size=7 request=smtpd_access_policy protocol_state=RCPT"}},
		{"the null sender", "", []string{"--client", "192.0.2.7", "--sender", ""}, []string{"client_address=192.0.2.7 sender= request=smtpd_access_policy protocol_state=RCPT"}},
		{"quotes, as in SMTP", "", []string{"--sender", `<"a b"@x.example>`, "--recipient", `"c\"d"@y.example`}, []string{`sender=a b@x.example recipient=c"d@y.example request=smtpd_access_policy protocol_state=RCPT`}},
		{"quotes on standard input", `sender="a b"@x.example`, nil, []string{`sender="a b"@x.example request=smtpd_access_policy protocol_state=RCPT`}},
		{"as Postfix sends it", "request=smtpd_access_policy\nprotocol_state=DATA\nsender=a=b@x.example\n\nignored", nil,
			[]string{"request=smtpd_access_policy protocol_state=DATA sender=a=b@x.example"}},
		{"flags replace what comes in", "sender=a@x.example\r\nsize=1", []string{"-", "--sender", "b@x.example"},
			[]string{"size=1 sender=b@x.example request=smtpd_access_policy protocol_state=RCPT"}},
		{"records", "", []string{"--record", record, "--helo", "other"}, []string{
			"instance=a client_address=192.0.2.7 client_port=4711 client_name=mx.x.example sender=ann@x.example recipient=bob@y.example reverse_client_name=mx.x.example policy_context=greylist helo_name=other request=smtpd_access_policy protocol_state=RCPT",
			"instance=a queue_id=Q1 client_address=192.0.2.7 client_port=4711 client_name=mx.x.example sender=ann@x.example recipient=eve\x1b[2J@y.example reverse_client_name=mx.x.example helo_name=other request=smtpd_access_policy protocol_state=RCPT",
			"instance=b client_address=198.51.100.9 client_port=1 sender=pr@y.example recipient=eve@z.example sasl_username=bob helo_name=other request=smtpd_access_policy protocol_state=RCPT",
		}},
		{"a record on standard input", policydLines[2], []string{"--record", "-"},
			[]string{"instance=b client_address=198.51.100.9 client_port=1 sender=pr@y.example recipient=eve@z.example sasl_username=bob request=smtpd_access_policy protocol_state=RCPT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, asked := policyDaemon(t, api.PolicyExplanation{Verdict: "pass", Action: "DUNNO", Reason: "not_applicable"})
			onStdin(t, tt.stdin)
			code, _, stderr := postern(t, append([]string{"explain", "policy", "--admin", path}, tt.args...)...)
			if code != exitYes || stderr != "" || len(asked) != len(tt.want) {
				t.Fatalf("exit %d, %s, %d questions", code, stderr, len(asked))
			}
			for _, want := range tt.want {
				if got := <-asked; got != want {
					t.Errorf("asked %q\nwant  %q", got, want)
				}
			}
		})
	}
}

func TestExplainPolicyAnswers(t *testing.T) {
	utc(t)
	x := api.PolicyExplanation{
		Verdict: "defer", Check: "greylist", Reason: "greylist_early", Mode: "enforce", Action: "DEFER_IF_PERMIT 4.2.0 Greylisted, please try again in 131 seconds",
		Steps: []api.PolicyStep{
			{Check: "dnsbl", Verdict: "error", Reason: "dnsbl_unavailable", Mode: "enforce", Error: "no list answers", OnError: "pass", Millis: 12.345},
			{Check: "greylist", Verdict: "defer", Reason: "greylist_early", Mode: "enforce", Detail: "key=192.0.2.0/24\x1b", Decides: true},
		},
		Unasked: []string{"later"},
		Advice:  []api.PolicyAdvice{{Check: "greylist", Text: "2m11s left"}},
		Notes:   []string{"a note"},
	}
	path, _ := policyDaemon(t, x)
	code, out, stderr := postern(t, "explain", "policy", "--admin", path, "--client", "192.0.2.7")
	want := `checks (all that run)
  dnsbl      error  dnsbl_unavailable  12.35ms
             no list answers; on error: pass
  greylist   defer  greylist_early  0s  <- decides
             key=192.0.2.0/24\x1b
  later      not asked

answer    DEFER_IF_PERMIT 4.2.0 Greylisted, please try again in 131 seconds
because   greylist defer greylist_early

what would change it
  greylist: 2m11s left

note: a note
`
	if code != exitNo || stderr != "" || out != want {
		t.Errorf("exit %d, %s\ngot\n%s\nwant\n%s", code, stderr, out, want)
	}
	code, out, _ = postern(t, "explain", "policy", "--admin", path, "--record", logFile(t, "log", policydLines[:1]), "--json")
	var got api.PolicyExplanation
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitNo || len(got.Steps) != 2 {
		t.Errorf("exit %d, %v in %s", code, err, out)
	}
	_, out, _ = postern(t, "explain", "policy", "--admin", path, "--record", logFile(t, "log", policydLines[:1]))
	if !strings.HasPrefix(out, "recorded at 2026-11-21 02:00:00Z: greylist defer greylist_new for ann@x.example -> bob@y.example\n") {
		t.Errorf("got %s", out)
	}
	x.Mode = "shadow"
	path, _ = policyDaemon(t, x)
	if code, out, _ = postern(t, "explain", "policy", "--admin", path, "--client", "192.0.2.7"); code != exitYes || !strings.Contains(out, "greylist_early (shadow: recorded, not done)") {
		t.Errorf("in the shadow: exit %d, %s", code, out)
	}
}

func TestExplainPolicyMistakes(t *testing.T) {
	for _, tt := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", nil, "no attributes; write name=value lines"},
		{"sender", nil, `line 1: "sender" is not name=value`},
		{"a=b\n=c", nil, `line 2: "=c" is not name=value`},
		{strings.Repeat("a=b\n", maxAttributes+1), nil, "more than 128 attributes"},
		{"", []string{"--attribute", "size"}, `--attribute "size" is not name=value`},
		{"", []string{"file"}, "usage: postern explain policy"},
		{"", []string{"--record", "-", "-"}, "two requests"},
		{"x", []string{"--record", "-"}, "standard input: no record of postern-policyd about a request in 1 lines"},
		{"", []string{"--record", "/nonexistent"}, "open /nonexistent"},
		{"", []string{"--client", "mx.example.org"}, "is no IP address; names are for --client-name"},
		{"", []string{"--client", "192.0.2.7", "--admin", serveCommands(t, api.Policyd, nil)}, "does not know this command; restart it (postern restart policyd)"},
	} {
		onStdin(t, tt.stdin)
		code, out, stderr := postern(t, append([]string{"explain", "policy"}, tt.args...)...)
		if code != exitFailed || out != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%q: exit %d, %q, %q", tt.args, code, out, stderr)
		}
	}
}
