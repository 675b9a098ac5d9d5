package checks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// limited is a chain of the limit check and a check with a fixed answer.
type limited struct {
	*testing.T
	check *Limit
	chain policy.Chain
	later policy.Verdict
	now   time.Time
	mails int
	store *failingStore
}

// failingStore is a store that may fail.
type failingStore struct {
	limit.Store
	err error
}

func (f *failingStore) Take(ctx context.Context, op *limit.Op) (limit.Answer, error) {
	if f.err != nil {
		return limit.Answer{}, f.err
	}
	return f.Store.Take(ctx, op)
}

type laterCheck struct{ *limited }

func (laterCheck) Name() string { return "later" }

func (l laterCheck) Check(context.Context, *policy.Request, policy.Signals) (policy.Verdict, error) {
	return l.later, nil
}

func newLimited(t *testing.T, mode policy.Mode, rules ...limit.Rule) *limited {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &limited{T: t, now: now, store: &failingStore{Store: memstore.New(memstore.Options{Start: now})}}
	l.check = &Limit{URL: "https://x.example/limits", Alarm: func(limit.Alarm) {}, Exempt: AlarmAddress("Ops@X.example"), Judge: limit.NewJudge(limit.Config{
		Rules: rules, Keyer: limit.Keyer{Bits4: 24, Bits6: 64}, Store: l.store, Ends: new(limit.Ends), Watch: mode == policy.Shadow,
		Blocks: limit.NewBlocks(l.store),
	})}
	l.chain = policy.Chain{{Check: l.check, Mode: mode, OnError: policy.ErrorDefer, ErrorReason: record.LimitUnavailable}, {Check: laterCheck{l}}}
	return l
}

func rule(unit limit.Unit, count int64, action limit.Action) limit.Rule {
	return limit.Rule{Key: limit.Login, Unit: unit, Count: count, Window: time.Hour, Action: action}
}

// ask sends a request of bob, changed by f.
func (l *limited) ask(state policy.State, f func(*policy.Request)) policy.Decision {
	r := &policy.Request{
		Received: l.now, State: state, Instance: fmt.Sprint("i", l.mails), Login: "bob", Sender: mailaddr.Parse("bob@x.example"),
		Client: policy.Client{Address: netip.MustParseAddr("192.0.2.7"), Port: "1234"}, Recipient: mailaddr.Parse("ann@y.example"),
	}
	if state == policy.StateEndOfMessage {
		r.RecipientCount = 1
	}
	if f != nil {
		f(r)
	}
	return l.chain.Decide(l.Context(), r)
}

// name sends a recipient of a new mail.
func (l *limited) name() policy.Decision {
	l.mails++
	return l.ask(policy.StateRcpt, nil)
}

func (l *limited) want(d policy.Decision, kind policy.Kind, reason record.Reason) {
	l.Helper()
	if d.Kind != kind || d.Reason != reason {
		l.Errorf("mail %d: %s %s, want %s %s: %+v", l.mails, d.Kind, d.Reason, kind, reason, d.Steps)
	}
}

func TestLimitActions(t *testing.T) {
	for action, want := range map[limit.Action]struct {
		kind   policy.Kind
		reason record.Reason
		code   policy.Code
		text   string
	}{
		limit.Defer:  {policy.Defer, record.LimitRecipients, policy.CodeTooMuch, "Limit of 2 recipients in 1h reached for this account, try again in 61 min; see https://x.example/limits"},
		limit.Reject: {policy.Reject, record.LimitRecipients, policy.CodeRefused, "Limit of 2 recipients in 1h reached for this account, try again in 61 min; see https://x.example/limits"},
		limit.Hold:   {policy.Hold, record.LimitRecipients, policy.Code{}, "Limit of 2 recipients in 1h reached for this account, try again in 61 min; see https://x.example/limits"},
		limit.Warn:   {policy.Pass, record.LimitWarned, policy.Code{}, ""},
	} {
		l := newLimited(t, policy.Enforce, rule(limit.Recipients, 2, action))
		for range 2 {
			l.want(l.name(), policy.Pass, record.LimitWithin)
		}
		d := l.name()
		l.want(d, want.kind, want.reason)
		if d.Code != want.code || d.Text != want.text {
			t.Errorf("%s: %v %q", action, d.Code, d.Text)
		}
		l.now = l.now.Add(62 * time.Minute)
		l.want(l.name(), policy.Pass, record.LimitWithin)
	}
}

// A recipient that another check refuses is not counted, except as "refused".
func TestLimitOfWhatIsRefused(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 2, limit.Defer), rule(limit.Refused, 3, limit.Reject))
	l.later = policy.Verdict{Kind: policy.Defer, Reason: record.GreylistNew}
	for range 20 {
		l.want(l.name(), policy.Defer, record.GreylistNew)
	}
	l.later = policy.Verdict{Kind: policy.Reject, Reason: record.DNSBLClientListed}
	for range 3 {
		l.want(l.name(), policy.Reject, record.DNSBLClientListed)
	}
	l.later = policy.Verdict{}
	l.want(l.name(), policy.Reject, record.LimitRefused)
	l.now = l.now.Add(62 * time.Minute)
	l.want(l.name(), policy.Pass, record.LimitWithin)
	l.want(l.name(), policy.Pass, record.LimitWithin)
	l.want(l.name(), policy.Defer, record.LimitRecipients)
}

// An earlier check may refuse too.
func TestLimitIsNotAskedAndCounts(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Refused, 3, limit.Reject))
	l.chain = policy.Chain{l.chain[1], l.chain[0]}
	l.later = policy.Verdict{Kind: policy.Reject, Reason: record.OwnerNotOwned}
	for range 3 {
		l.want(l.name(), policy.Reject, record.OwnerNotOwned)
	}
	l.later = policy.Verdict{}
	l.want(l.name(), policy.Reject, record.LimitRefused)
}

// A refusal overrides a hold. A check without an objection does not.
func TestLimitHoldAndOthers(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 1, limit.Hold))
	l.name()
	l.later = policy.Verdict{Kind: policy.Pass, Reason: record.GreylistKnown, Header: "X-Later: yes"}
	d := l.name()
	l.want(d, policy.Hold, record.LimitRecipients)
	if d.Check != LimitName {
		t.Errorf("decided by %q", d.Check)
	}
	l.later = policy.Verdict{Kind: policy.Reject, Reason: record.DNSBLClientListed}
	l.want(l.name(), policy.Reject, record.DNSBLClientListed)
}

func TestLimitShadow(t *testing.T) {
	l := newLimited(t, policy.Shadow, rule(limit.Recipients, 2, limit.Reject))
	l.name()
	l.name()
	for i := range int64(3) {
		d := l.name()
		l.want(d, policy.Pass, record.NotApplicable)
		if d.Mode != policy.Shadow || d.Would.Reason != record.LimitRecipients || d.Would.Kind != policy.Reject {
			t.Errorf("%+v", d.Would)
		}
		if want := fmt.Sprintf("limit=login.recipients=2/1h used=%d login=bob", i+3); d.Steps[0].Verdict.Detail != want {
			t.Errorf("%q, want %q", d.Steps[0].Verdict.Detail, want)
		}
	}
}

func TestLimitStates(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 2, limit.Defer), rule(limit.Bytes, 1000, limit.Defer))
	for _, state := range []policy.State{policy.StateConnect, policy.StateEHLO, policy.StateMail, policy.StateData, policy.StateVRFY, policy.StateETRN} {
		for range 5 {
			l.want(l.ask(state, nil), policy.Pass, record.NotApplicable)
		}
	}
	l.want(l.ask(policy.StateOther, nil), policy.Pass, record.UnknownState)
	// An announced size is not counted.
	huge := func(r *policy.Request) { r.Size = 1 << 40 }
	l.want(l.ask(policy.StateRcpt, huge), policy.Pass, record.LimitWithin)
	l.want(l.ask(policy.StateEndOfMessage, huge), policy.Defer, record.LimitBytes)
	l.want(l.ask(policy.StateRcpt, nil), policy.Pass, record.LimitWithin)
	l.want(l.ask(policy.StateEndOfMessage, func(r *policy.Request) { r.Size = 1000 }), policy.Pass, record.LimitWithin)
	l.mails++
	l.want(l.ask(policy.StateRcpt, nil), policy.Defer, record.LimitBytes)
}

// A repeated request counts once, also when it was already answered.
func TestLimitRepeats(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 2, limit.Defer))
	l.mails++
	for range 5 {
		l.want(l.ask(policy.StateRcpt, nil), policy.Pass, record.LimitWithin)
	}
	for range 5 {
		l.want(l.ask(policy.StateEndOfMessage, nil), policy.Pass, record.LimitWithin)
	}
	l.want(l.name(), policy.Pass, record.LimitWithin)
	l.want(l.name(), policy.Defer, record.LimitRecipients)
}

func TestLimitWithoutInstance(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 2, limit.Defer))
	bare := func(r *policy.Request) { r.Instance = "" }
	for i := range 4 {
		l.now = l.now.Add(time.Second)
		d := l.ask(policy.StateRcpt, bare)
		if (d.Kind == policy.Defer) != (i >= 2) {
			t.Errorf("mail %d: %s", i, d.Reason)
		}
		if i < 2 {
			l.want(l.ask(policy.StateEndOfMessage, bare), policy.Pass, record.NotApplicable)
		}
	}
}

func TestLimitBlocked(t *testing.T) {
	l := newLimited(t, policy.Enforce, rule(limit.Recipients, 20, limit.Defer))
	if err := l.store.SetBlock(t.Context(), limit.Block{Login: "bob", Since: l.now, Until: l.now.Add(2 * time.Hour)}, false); err != nil {
		t.Fatal(err)
	}
	d := l.name()
	l.want(d, policy.Reject, record.LimitBlocked)
	if d.Code != policy.CodeRefused || d.Text != "This account may not send mail at the moment, please ask your administrator, or try again in 2 h" {
		t.Errorf("%v %q", d.Code, d.Text)
	}
	// A known block applies without the store, and before any recipient.
	blocks := limit.NewBlocks(l.store)
	if err := blocks.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.check.Judge = limit.NewJudge(limit.Config{Rules: []limit.Rule{rule(limit.Recipients, 20, limit.Defer)}, Store: l.store, Ends: new(limit.Ends), Blocks: blocks})
	l.store.err = errors.New("gone")
	l.want(l.name(), policy.Reject, record.LimitBlocked)
	l.want(l.ask(policy.StateMail, nil), policy.Reject, record.LimitBlocked)
	l.now = l.now.Add(2 * time.Hour)
	l.want(l.name(), policy.Defer, record.LimitUnavailable)
}

func TestLimitExempt(t *testing.T) {
	l := newLimited(t, policy.Enforce, limit.Rule{Key: limit.Global, Unit: limit.Recipients, Count: 1, Window: time.Hour, Action: limit.Defer})
	alarm := func(r *policy.Request) {
		r.Login, r.Sender, r.Recipient, r.Client.Address = "", mailaddr.Parse(""), mailaddr.Parse("ops@x.example"), netip.MustParseAddr("127.0.0.1")
	}
	for range 5 {
		l.mails++
		l.want(l.ask(policy.StateRcpt, alarm), policy.Pass, record.NotApplicable)
		l.want(l.ask(policy.StateEndOfMessage, alarm), policy.Pass, record.NotApplicable)
	}
	l.want(l.name(), policy.Pass, record.LimitWithin)
	for _, change := range []func(*policy.Request){
		func(r *policy.Request) { r.Login = "bob" },
		func(r *policy.Request) { r.Sender = mailaddr.Parse("x@x.example") },
		func(r *policy.Request) { r.Recipient = mailaddr.Parse("else@x.example") },
		func(r *policy.Request) { r.Client.Address = netip.MustParseAddr("192.0.2.1") },
	} {
		l.mails++
		l.want(l.ask(policy.StateRcpt, func(r *policy.Request) { alarm(r); change(r) }), policy.Defer, record.LimitRecipients)
	}
}

func TestNoLimits(t *testing.T) {
	v, err := new(Limit).Check(t.Context(), &policy.Request{State: policy.StateRcpt}, nil)
	if err != nil || v.Kind != policy.None || v.Reason != record.LimitNone {
		t.Errorf("%+v, %v", v, err)
	}
	new(Limit).Settle(t.Context(), &policy.Request{State: policy.StateRcpt}, nil, &policy.Decision{Verdict: policy.Verdict{Kind: policy.Reject}})
}

// gone is a table of overrides whose server is away.
type gone struct{}

func (gone) Find(context.Context, string) (*limit.Override, error) {
	return nil, errors.New("no server")
}

// While overrides are unknown, mail that limit-on-error lets pass is counted, and the
// record shows it. What a later check refuses is taken back.
func TestLimitOverridesUnknown(t *testing.T) {
	network := limit.Rule{Key: limit.Network, Unit: limit.Recipients, Count: 4, Window: time.Hour, Action: limit.Reject}
	for _, tt := range []struct {
		rules []limit.Rule
		want  policy.Kind // at last
	}{
		{[]limit.Rule{rule(limit.Recipients, 2, limit.Reject), network}, policy.Reject},
		{[]limit.Rule{rule(limit.Recipients, 2, limit.Hold)}, policy.Pass},
		{nil, policy.Pass},
	} {
		l := newLimited(t, policy.Enforce)
		l.check.Judge = limit.NewJudge(limit.Config{
			Rules: tt.rules, Keyer: limit.Keyer{Bits4: 24, Bits6: 64}, Store: l.store, Ends: new(limit.Ends), Overrides: gone{}, PassUnknown: true,
		})
		l.later = policy.Verdict{Kind: policy.Defer, Reason: record.GreylistNew}
		l.want(l.name(), policy.Defer, record.GreylistNew)
		l.later = policy.Verdict{}
		for range 4 {
			d := l.name()
			l.want(d, policy.Pass, record.LimitUnavailable)
			if s := &d.Steps[0]; d.Err == nil || !s.Failed() || s.Unanswered() == nil || d.Check != LimitName {
				t.Errorf("%+v", d)
			}
		}
		d := l.name()
		if d.Kind != tt.want || d.Steps[0].Unanswered() == nil || d.Steps[0].Failed() != (tt.want == policy.Pass) || tt.want == policy.Reject && (d.Reason != record.LimitRecipients || d.Err != nil) {
			t.Errorf("%v: %+v", tt.rules, d)
		}
	}
}
