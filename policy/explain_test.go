package policy

import (
	"context"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// remembering is a check that changes state in Check and not in Peek.
type remembering struct {
	scripted
	peeked int
}

func (r *remembering) Peek(context.Context, *Request, Signals) (Verdict, error) {
	r.peeked++
	return r.v, r.err
}

func TestExplainLeavesNothingBehind(t *testing.T) {
	first := &scripted{name: "first", v: Verdict{Kind: Pass, Reason: "fine", Signals: Signals{DNSBLScore: 1}}}
	second := &remembering{scripted: scripted{name: "second", v: Verdict{Kind: Reject, Reason: "bad", Text: "no"}}}
	third := &scripted{name: "third"}
	chain := Chain{{Check: first}, {Check: second}, {Check: third}}
	x := chain.Explain(t.Context(), new(Request))
	if x.Kind != Reject || x.Check != "second" || x.Action.String() != "550 5.7.1 no" || len(x.Steps) != 2 || len(x.Took) != 2 {
		t.Errorf("got %+v", x)
	}
	if first.asked != 1 || second.asked != 0 || second.peeked != 1 || third.asked != 0 {
		t.Errorf("asked %d, %d, %d; looked at %d", first.asked, second.asked, third.asked, second.peeked)
	}
	if d := chain.Decide(t.Context(), new(Request)); d.Kind != x.Kind || second.asked != 1 {
		t.Errorf("a request gets %+v", d)
	}
}

func TestLookRemembersNothing(t *testing.T) {
	told := 0
	router := NewRouter(Chain{entry("ownership", Verdict{}, nil), entry("greylist", Verdict{}, nil)}, RouterOptions{Closed: []string{"ownership"}, Unknown: func(error) { told++ }})
	for context, want := range map[string]int{"": 2, "greylist": 1, "GREYLIST, ownership": 2, "ownershp": 1, "greylist,unknown": 2} {
		chain, err := router.Look(context)
		if len(chain) != want || (err != nil) != (context == "ownershp" || context == "greylist,unknown") {
			t.Errorf("%q: %d checks, %v", context, len(chain), err)
		}
	}
	if told != 0 || len(router.routes) != 0 {
		t.Errorf("%d told, %d remembered", told, len(router.routes))
	}
}

func TestParseAttributes(t *testing.T) {
	at := time.Unix(1, 0)
	r, err := ParseRequest([]Attribute{
		{"request", "smtpd_access_policy"}, {"protocol_state", "RCPT"}, {"client_address", "192.0.2.7"}, {"sender", "ann@x.example"}, {"of_a_newer_postfix", "1"},
	}, at)
	if err != nil || r.State != StateRcpt || r.Client.Address.String() != "192.0.2.7" || r.Sender.Domain != "x.example" || !r.Received.Equal(at) {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, wrong := range [][]Attribute{nil, {{"request", "other"}}, {{"request", "smtpd_access_policy"}, {"sender", "a"}, {"sender", "b"}}, {{"request", "smtpd_access_policy"}, {"size", "x"}}} {
		if _, err := ParseRequest(wrong, at); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
}

// Explain applies the error rule to a check that fails.
func TestExplainTrouble(t *testing.T) {
	chain := Chain{{Check: &scripted{name: "a", err: errBackend}, OnError: ErrorDefer, ErrorReason: record.GreylistUnavailable}}
	if x := chain.Explain(t.Context(), new(Request)); x.Kind != Defer || x.Reason != record.GreylistUnavailable || x.Err == nil {
		t.Errorf("got %+v", x)
	}
}
