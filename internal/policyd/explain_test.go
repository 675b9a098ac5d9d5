package policyd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/policy"
)

// explanation is that of a request, given as name=value words.
func explanation(t *testing.T, c *current, request string) api.PolicyExplanation {
	t.Helper()
	args := api.PolicyExplainArgs{Attributes: []api.Attribute{{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"}}}
	for word := range strings.FieldsSeq(request) {
		name, value, _ := strings.Cut(word, "=")
		args.Attributes = append(args.Attributes, api.Attribute{Name: name, Value: value})
	}
	answer, err := c.explain(t.Context(), args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return answer.(api.PolicyExplanation)
}

const explainedZone = `
9.113.0.203.zen.test. A 127.0.0.2
good.test. TXT "v=spf1 ip4:192.0.2.0/24 -all"
`

// What the advice says is tried: with it the same request passes.
func TestAdviceHelps(t *testing.T) {
	dns := resolvertest.New(t, explainedZone).Addr()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	owners := write("owners", "pr@x.test ann\n")
	var (
		ownership = []string{"--checks=ownership", "--owners=texthash:" + owners}
		lists     = []string{"--checks=dnsbl", "--resolver=" + dns, "--dnsbl=zen.test*3", "--dbl=dbl.test", "--dnsbl-selftest=zen.test=off", "--dnsbl-selftest=dbl.test=off", "--dnsbl-threshold=2"}
		grey      = []string{"--checks=greylist", "--resolver=" + dns, "--greylist-store=memory:"}
	)
	const stranger = "client_address=192.0.2.7 sender=a@good.test recipient=b@y.test"
	tests := []struct {
		name, request string
		args          []string
		reason        string
		advice        string   // a part of it
		with          []string // the flags that it names
	}{
		{"an owner is missing", "sasl_username=bob sender=pr@x.test", ownership, "not_owned",
			"ownership: bob among the owners of pr@x.test at " + owners + ":1 would pass it", []string{"--checks=ownership", "--owners=texthash:" + write("owners2", "pr@x.test ann,bob\n")}},
		{"an exempt login", "sasl_username=bob sender=pr@x.test", ownership, "not_owned",
			"ownership: --owner-exempt=bob would let this login use any sender", append(ownership, "--owner-exempt=bob")},
		{"unlisted", "sasl_username=bob sender=new@x.test", ownership, "sender_unlisted",
			`ownership: an entry "new@x.test bob" in a table of --owners would pass it`, []string{"--checks=ownership", "--owners=texthash:" + write("owners3", "new@x.test bob\n")}},
		{"unlisted senders pass", "sasl_username=bob sender=new@x.test", ownership, "sender_unlisted",
			"ownership: --owners-unlisted=pass would pass every sender that no table lists", append(ownership, "--owners-unlisted=pass")},
		{"no login", "sender=pr@x.test", append(ownership, "--owners-unauthenticated=reject"), "not_logged_in",
			"ownership: --owners-unauthenticated=pass would pass it", ownership},
		{"the null sender", "sasl_username=bob", append(ownership, "--null-sender=reject"), "null_sender",
			"ownership: --null-sender=pass would pass it", ownership},
		{"a listed client", "client_address=203.0.113.9 sender=a@x.test recipient=b@y.test", lists, "dnsbl_client_listed",
			"dnsbl: score 3 of 2; --dnsbl-threshold=4 would pass it", append(lists, "--dnsbl-threshold=4")},
		{"an allowed client", "client_address=203.0.113.9 sender=a@x.test recipient=b@y.test", lists, "dnsbl_client_listed",
			"dnsbl: an entry for 203.0.113.9 in --dnsbl-allow-clients would pass it", append(lists, "--dnsbl-allow-clients="+write("clients", "203.0.113.9\n"))},
		{"an allowed recipient", "client_address=203.0.113.9 sender=a@x.test recipient=b@y.test", lists, "dnsbl_client_listed",
			"dnsbl: an entry for b@y.test in --dnsbl-allow-recipients would pass it", append(lists, "--dnsbl-allow-recipients="+write("recipients", "b@y.test\n"))},
		{"only watched", "client_address=203.0.113.9 sender=a@x.test recipient=b@y.test", lists, "dnsbl_client_listed",
			"dnsbl: --shadow=dnsbl would record it and let it pass", append(lists, "--shadow=dnsbl")},
		{"a new sender", stranger, grey, "greylist_new",
			"greylist: an entry for 192.0.2.7 in --greylist-allow-clients, or `postern greylist allow 192.0.2.7`, would pass it", append(grey, "--greylist-allow-clients="+write("grey", "192.0.2.7\n"))},
		{"a new sender's recipient", stranger, grey, "greylist_new",
			"greylist: an entry for b@y.test in --greylist-allow-recipients would pass it", append(grey, "--greylist-allow-recipients="+write("grey2", "b@y.test\n"))},
		{"a wrong hook", stranger + " policy_context=ownershp", ownership, "unknown_policy_context",
			"policy_context: correct policy_context in main.cf or master.cf", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := inForceWith(t, tt.args...)
			x := explanation(t, c, tt.request)
			var advice []string
			for _, a := range x.Advice {
				advice = append(advice, a.Check+": "+a.Text)
			}
			if all := strings.Join(advice, "\n"); x.Reason != tt.reason || !strings.Contains(all, tt.advice) {
				t.Errorf("%s %s, advice\n%s", x.Verdict, x.Reason, all)
			}
			if tt.with == nil {
				return
			}
			c, _ = inForceWith(t, tt.with...)
			if y := explanation(t, c, tt.request); strings.HasPrefix(y.Action, "5") || strings.HasPrefix(y.Action, "DEFER") {
				t.Errorf("with %q: %s %s, %s", tt.with, y.Verdict, y.Reason, y.Action)
			}
		})
	}
}

// A mail that waits is told how long, and which delay would let it in now.
func TestAdviceOnTheDelay(t *testing.T) {
	dns := resolvertest.New(t, explainedZone).Addr()
	c, s := inForceWith(t, "--checks=greylist", "--resolver="+dns, "--greylist-store=memory:", "--greylist-delay=10m")
	hook, err := c.Hook("", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer hook.Release()
	request := func(at time.Time) *policy.Request {
		r, err := policy.ParseRequest([]policy.Attribute{{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"}, {Name: "client_address", Value: "192.0.2.7"}, {Name: "sender", Value: "a@good.test"}, {Name: "recipient", Value: "b@y.test"}}, at)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := time.Now().Add(-50 * time.Second)
	hook.Chain.Decide(t.Context(), request(first))
	for range 2 {
		x := s.explain(t.Context(), request(first.Add(50*time.Second)))
		want := "9m10s left; the same mail passes when the client tries again after that; --greylist-delay=49s or less would pass it now"
		if x.Reason != "greylist_early" || len(x.Advice) == 0 || x.Advice[0].Text != want {
			t.Errorf("%s, advice %+v", x.Reason, x.Advice)
		}
	}
}

// The question leaves no trace: no record, no count, no route, no readiness.
func TestExplainLeavesNoTrace(t *testing.T) {
	c, s := inForceWith(t, "--checks=greylist,ownership", "--greylist-store=memory:", "--greylist-key=network", "--greylist-allow-senders=none", "--owners=inline:{a@x.test=ann}", "--shadow=ownership", "--owners-unauthenticated=reject")
	for range 3 {
		x := explanation(t, c, "client_address=192.0.2.7 sender=a@x.test recipient=b@y.test policy_context=greylist,ownership,no-such")
		if x.Verdict != "reject" && x.Verdict != "defer" || x.Action == "DUNNO" || len(x.Steps) != 2 || x.Steps[0].Check != "ownership" || len(x.Unasked) != 1 {
			t.Errorf("got %+v", x)
		}
		if len(x.Notes) != 1 || !strings.Contains(x.Notes[0], `"no-such"`) {
			t.Errorf("notes %q", x.Notes)
		}
		if x.Steps[1].Reason != "greylist_new" {
			t.Errorf("the question before was remembered: %+v", x.Steps[1])
		}
	}
	stats, err := partOf[*greylistPart](t, s).stats(t.Context(), struct{}{}, func(any) {})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(stats.(api.GreylistStatsResult).Triplets); got != "map[]" {
		t.Errorf("the store has %s", got)
	}
}

func TestExplainMistakes(t *testing.T) {
	c, _ := inForceWith(t, "--checks=greylist", "--greylist-store=memory:")
	for want, attributes := range map[string][]api.Attribute{
		"no request attribute":            nil,
		"attribute sender sent twice":     {{Name: "request", Value: "smtpd_access_policy"}, {Name: "sender", Value: "a"}, {Name: "sender", Value: "b"}},
		`attribute size="x" is not a num`: {{Name: "request", Value: "smtpd_access_policy"}, {Name: "size", Value: "x"}},
	} {
		if _, err := c.explain(t.Context(), api.PolicyExplainArgs{Attributes: attributes}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// A state that no check knows is explained as it is recorded.
func TestExplainUnknownState(t *testing.T) {
	c, _ := inForceWith(t, "--checks=greylist", "--greylist-store=memory:")
	for state, want := range map[string]string{"": "unknown_protocol_state", "TURN": "unknown_protocol_state", "MAIL": "not_applicable"} {
		answer, err := c.explain(t.Context(), api.PolicyExplainArgs{Attributes: []api.Attribute{{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: state}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if x := answer.(api.PolicyExplanation); x.Reason != want || strings.Contains(x.Error, "protocol_state is missing") != (want != "not_applicable") {
			t.Errorf("%q: %+v", state, x)
		}
	}
}
