package policy

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// safe matches the lines that Postfix reads as they are meant: DUNNO, a
// deferral, a rejection or HOLD with a text, or a header.
var safe = regexp.MustCompile(`\A(DUNNO|(DEFER_IF_PERMIT|HOLD|450 4\.7\.1|451 4\.3\.0|550 5\.7\.1|553 5\.7\.1|554 5\.7\.1) \S[^\x00-\x1f\x7f]*|PREPEND [!-9;-~]+:[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*)\z`)

// hostile are texts that got into replies of other servers.
var hostile = []string{
	"", " ", "\n", "\r\n", "\x00", "ok\r", "a\nb", "a\naction=OK", "a\n\naction=OK\n\n", "action=",
	"\xff\xfe", "jürgen \xe4", "\u2028", "\u202e", "\ufeff", "é" + strings.Repeat("ü", 400), strings.Repeat("x", 1<<20),
	"X-Header: value", "X-Header:", ": value", "X Header: v", "X-Greylist: a\r\nBcc: x@y", "DUNNO", "450", "%s %d",
}

// kinds and codes are all that a verdict can have.
var (
	kinds = []Kind{None, Pass, Defer, Hold, Reject}
	codes = []Code{{}, CodePolicy, CodeSenderPolicy, CodeTemporary, CodeTooMuch, CodeRefused}
)

func TestActionsAreSafe(t *testing.T) {
	states := []State{StateOther, StateRcpt, StateData, StateEndOfMessage}
	for _, text := range hostile {
		for _, kind := range kinds {
			for _, code := range codes {
				for _, state := range states {
					d := Decision{Verdict: Verdict{Kind: kind, Code: code, Text: text, Header: text}}
					checkSafe(t, action(&Request{State: state}, &d).line)
				}
			}
		}
	}
}

func checkSafe(t *testing.T, line string) {
	t.Helper()
	if !safe.MatchString(line) || !utf8.ValidString(line) || len(line) > maxText+64 {
		t.Errorf("unsafe action %.300q", line)
	}
}

func FuzzAction(f *testing.F) {
	for _, text := range hostile {
		for i := range codes {
			f.Add(text, uint8(i), uint8(i), uint8(StateRcpt))
		}
	}
	f.Fuzz(func(t *testing.T, text string, kind, code, state uint8) {
		d := Decision{Verdict: Verdict{Kind: kinds[int(kind)%len(kinds)], Code: codes[int(code)%len(codes)], Text: text, Header: text}}
		checkSafe(t, action(&Request{State: State(state % 10)}, &d).line)
	})
}

func TestAction(t *testing.T) {
	tests := []struct {
		name  string
		state State
		v     Verdict
		want  string
	}{
		{"pass", StateRcpt, Verdict{Kind: Pass}, "DUNNO"},
		{"nothing to say", StateRcpt, Verdict{}, "DUNNO"},
		{"reject", StateRcpt, Verdict{Kind: Reject, Text: "listed"}, "550 5.7.1 listed"},
		{"reject with a code", StateRcpt, Verdict{Kind: Reject, Code: CodeSenderPolicy, Text: "not owned by user x"}, "553 5.7.1 not owned by user x"},
		{"reject without a text", StateRcpt, Verdict{Kind: Reject}, "550 5.7.1 Rejected by policy"},
		{"defer", StateRcpt, Verdict{Kind: Defer, Text: "Greylisted, try again in 180 seconds"}, "DEFER_IF_PERMIT Greylisted, try again in 180 seconds"},
		{"defer without a text", StateRcpt, Verdict{Kind: Defer}, "DEFER_IF_PERMIT Temporarily deferred by policy, please try again later"},
		{"defer with a code", StateRcpt, Verdict{Kind: Defer, Code: CodeTemporary}, "451 4.3.0 Temporarily deferred by policy, please try again later"},
		{"a limit is reached", StateRcpt, Verdict{Kind: Defer, Code: CodeTooMuch, Text: "too much"}, "450 4.7.1 too much"},
		{"a login is blocked", StateRcpt, Verdict{Kind: Reject, Code: CodeRefused, Text: "blocked"}, "554 5.7.1 blocked"},
		{"hold", StateRcpt, Verdict{Kind: Hold, Text: "too much"}, "HOLD too much"},
		{"hold without a text", StateRcpt, Verdict{Kind: Hold}, "HOLD Held by policy"},
		{"header", StateRcpt, Verdict{Kind: Pass, Header: "X-Greylist: delayed 200 seconds"}, "PREPEND X-Greylist: delayed 200 seconds"},
		{"header where it is invalid", StateEndOfMessage, Verdict{Kind: Pass, Header: "X-Greylist: delayed"}, "DUNNO"},
		{"header that is none", StateRcpt, Verdict{Kind: Pass, Header: "delayed"}, "DUNNO"},
		{"UTF-8", StateRcpt, Verdict{Kind: Reject, Text: "not owned by user jürgen"}, "550 5.7.1 not owned by user jürgen"},
		{"control", StateRcpt, Verdict{Kind: Reject, Text: "a\r\nb"}, "550 5.7.1 a??b"},
	}
	for _, tt := range tests {
		if got := action(&Request{State: tt.state}, &Decision{Verdict: tt.v}).String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
