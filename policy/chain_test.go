package policy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// scripted is a check with a fixed answer.
type scripted struct {
	name string
	v    Verdict
	err  error
	// prior is what it was handed; asked counts.
	prior Signals
	asked int
	// wait holds the answer back until the context ends.
	wait bool
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Check(ctx context.Context, _ *Request, prior Signals) (Verdict, error) {
	s.prior, s.asked = prior, s.asked+1
	if s.wait {
		<-ctx.Done()
		return s.v, ctx.Err()
	}
	return s.v, s.err
}

var errBackend = errors.New("backend gone")

func TestDecide(t *testing.T) {
	passing := Verdict{Kind: Pass, Reason: "ok"}
	rejecting := Verdict{Kind: Reject, Reason: "bad", Text: "no"}
	deferring := Verdict{Kind: Defer, Reason: "wait", Text: "later"}
	tests := []struct {
		name   string
		chain  Chain
		kind   Kind
		reason record.Reason
		check  string
		mode   Mode
		asked  []int
		err    bool
	}{
		{name: "nothing runs", kind: Pass, reason: record.NoChecks},
		{name: "passes without an answer", chain: Chain{entry("a", Verdict{Kind: Pass, Reason: "unsure", Unknown: errBackend}, nil), entry("b", Verdict{}, nil)}, kind: Pass, reason: "unsure", check: "a", asked: []int{1, 1}, err: true},
		{name: "a later check passes with one", chain: Chain{entry("a", Verdict{Kind: Pass, Reason: "unsure", Unknown: errBackend}, nil), entry("b", passing, nil)}, kind: Pass, reason: "ok", check: "b", asked: []int{1, 1}},
		{name: "rejects without an answer", chain: Chain{entry("a", Verdict{Kind: Reject, Reason: "bad", Unknown: errBackend}, nil)}, kind: Reject, reason: "bad", check: "a", asked: []int{1}},
		{name: "no check applies", chain: Chain{entry("a", Verdict{Reason: record.NotApplicable}, nil)}, kind: Pass, reason: record.NotApplicable, asked: []int{1}},
		{name: "the last pass has the reason", chain: Chain{entry("a", passing, nil), entry("b", Verdict{Kind: Pass, Reason: "fine"}, nil)}, kind: Pass, reason: "fine", check: "b", asked: []int{1, 1}},
		{name: "silence does not hide a pass", chain: Chain{entry("a", passing, nil), entry("b", Verdict{}, nil)}, kind: Pass, reason: "ok", check: "a", asked: []int{1, 1}},
		{name: "a reject ends the chain", chain: Chain{entry("a", rejecting, nil), entry("b", deferring, nil)}, kind: Reject, reason: "bad", check: "a", asked: []int{1, 0}},
		{name: "a defer ends the chain", chain: Chain{entry("a", passing, nil), entry("b", deferring, nil)}, kind: Defer, reason: "wait", check: "b", asked: []int{1, 1}},
		{name: "a shadowed reject does not", chain: Chain{shadowed(entry("a", rejecting, nil)), entry("b", passing, nil)}, kind: Pass, reason: "ok", check: "b", mode: Shadow, asked: []int{1, 1}},
		{name: "an enforced reject after a shadowed one", chain: Chain{shadowed(entry("a", rejecting, nil)), entry("b", deferring, nil)}, kind: Defer, reason: "wait", check: "b", asked: []int{1, 1}},
		{name: "fails, pass", chain: Chain{entry("a", Verdict{}, errBackend), entry("b", passing, nil)}, kind: Pass, reason: "ok", check: "b", asked: []int{1, 1}},
		{name: "fails, pass, and no other decides", chain: Chain{entry("a", passing, nil), passing2("b", errBackend), entry("c", Verdict{}, nil)}, kind: Pass, reason: "b_unavailable", check: "b", asked: []int{1, 1, 1}, err: true},
		{name: "fails, defer", chain: Chain{deferring2("a", errBackend), entry("b", passing, nil)}, kind: Defer, reason: "a_unavailable", check: "a", asked: []int{1, 0}, err: true},
		{name: "fails, defer, shadowed", chain: Chain{shadowed(deferring2("a", errBackend)), entry("b", passing, nil)}, kind: Pass, reason: "ok", check: "b", mode: Shadow, asked: []int{1, 1}},
		{name: "out of time", chain: Chain{deferring2("a", context.DeadlineExceeded)}, kind: Defer, reason: record.DeadlineSpent, check: "a", asked: []int{1}, err: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.chain.Decide(t.Context(), &Request{State: StateRcpt})
			if d.Kind != tt.kind || d.Reason != tt.reason || d.Check != tt.check || d.Mode != tt.mode || (d.Err != nil) != tt.err {
				t.Errorf("got %s %q by %q in %s, error %v", d.Kind, d.Reason, d.Check, d.Mode, d.Err)
			}
			var asked []int
			for _, e := range tt.chain {
				asked = append(asked, e.Check.(*scripted).asked)
			}
			if !slices.Equal(asked, tt.asked) {
				t.Errorf("asked %v, want %v", asked, tt.asked)
			}
			if want := map[Kind]string{Defer: errorText}[d.Kind]; d.Err != nil && d.Text != want {
				t.Errorf("the client would read %q", d.Text)
			}
		})
	}
}

func entry(name string, v Verdict, err error) Entry {
	return Entry{Check: &scripted{name: name, v: v, err: err}}
}

func shadowed(e Entry) Entry {
	e.Mode = Shadow
	return e
}

func passing2(name string, err error) Entry {
	e := deferring2(name, err)
	e.OnError = ErrorPass
	return e
}

func deferring2(name string, err error) Entry {
	e := entry(name, Verdict{}, err)
	e.OnError, e.ErrorReason = ErrorDefer, record.Reason(name+"_unavailable")
	return e
}

// A shadowed decision keeps the first objection. An enforced decision
// keeps none.
func TestWouldHaveDecided(t *testing.T) {
	passing := Verdict{Kind: Pass, Reason: "ok"}
	rejecting := Verdict{Kind: Reject, Reason: "bad", Text: "no"}
	tests := []struct {
		name  string
		chain Chain
		want  Would
	}{
		{"the first of two", Chain{shadowed(entry("a", rejecting, nil)), entry("b", passing, nil), shadowed(entry("c", Verdict{Kind: Defer, Reason: "wait"}, nil))}, Would{Check: "a", Kind: Reject, Reason: "bad"}},
		{"fails", Chain{shadowed(deferring2("a", errBackend))}, Would{Check: "a", Kind: Defer, Reason: "a_unavailable"}},
		{"nothing", Chain{shadowed(entry("a", passing, nil))}, Would{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := tt.chain.Decide(t.Context(), &Request{State: StateRcpt})
			got := d.Would
			if (got.Err != nil) != (tt.name == "fails") {
				t.Errorf("error %v", got.Err)
			}
			if got.Err = nil; got != tt.want || (d.Mode == Shadow) != (tt.want != Would{}) {
				t.Errorf("%+v in %s, want %+v", got, d.Mode, tt.want)
			}
		})
	}
}

func TestSignalsReachLaterChecks(t *testing.T) {
	a := &scripted{name: "a", v: Verdict{Kind: Reject, Signals: Signals{"x": 1, "y": 1}}}
	b := &scripted{name: "b", v: Verdict{Kind: Pass, Signals: Signals{"y": 2}}}
	c := &scripted{name: "c"}
	Chain{{Check: a, Mode: Shadow}, {Check: b}, {Check: c}}.Decide(t.Context(), &Request{})
	if len(a.prior) != 0 || b.prior["x"] != 1 || c.prior["x"] != 1 || c.prior["y"] != 2 {
		t.Errorf("handed on: %v, %v, %v", a.prior, b.prior, c.prior)
	}
}

func TestHeaderOfAShadowedCheckIsNotPrepended(t *testing.T) {
	header := Verdict{Kind: Pass, Header: "X-A: 1"}
	for _, mode := range []Mode{Enforce, Shadow} {
		d := Chain{{Check: &scripted{name: "a", v: header}, Mode: mode}, entry("b", Verdict{Kind: Pass}, nil)}.Decide(t.Context(), &Request{})
		if (d.Header != "") != (mode == Enforce) {
			t.Errorf("%s: header %q", mode, d.Header)
		}
	}
}

// A check that hangs leaves time for later checks, and all of them together
// keep the deadline.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const deadline = 9 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		var took []time.Duration
		start := time.Now()
		chain := Chain{
			{Check: &scripted{name: "a", wait: true}},
			{Check: &scripted{name: "b", wait: true}},
			{Check: &scripted{name: "c", wait: true}, OnError: ErrorDefer},
		}
		for i := range chain {
			inner := chain[i].Check
			chain[i].Check = timed{inner, func() { took = append(took, time.Since(start)) }}
		}
		d := chain.Decide(ctx, &Request{})
		want := []time.Duration{3 * time.Second, 6 * time.Second, 9 * time.Second}
		if !slices.Equal(took, want) || d.Kind != Defer || d.Reason != record.DeadlineSpent {
			t.Errorf("took %v, decided %s %q", took, d.Kind, d.Reason)
		}
	})
}

type timed struct {
	inner Check
	done  func()
}

func (c timed) Name() string { return c.inner.Name() }

func (c timed) Check(ctx context.Context, r *Request, prior Signals) (Verdict, error) {
	defer c.done()
	return c.inner.Check(ctx, r, prior)
}

func TestRouter(t *testing.T) {
	all := Chain{entry("a", Verdict{}, nil), entry("b", Verdict{}, nil), entry("c", Verdict{}, nil)}
	tests := []struct {
		context string
		bound   []string
		want    string // names, or the error
	}{
		{"", nil, "a b c"},
		{"", []string{"b"}, "b"},
		{"a", []string{"b"}, "a"},
		{"c,a", nil, "a c"},
		{" c , a ", nil, "a c"},
		{"a,a", nil, "a"},
		{",", nil, ""},
		{"A;C", nil, "a c"},
		{"{ b }", nil, "b"},
		{"", []string{"B"}, "b"},
		{"", []string{"c", "a"}, "a c"},
		{"greylisting", nil, `policy_context: "greylisting" is none of the checks that run (a, b, c)`},
		{"a,greylisting", nil, `a policy_context: "greylisting" is none of the checks that run (a, b, c)`},
		{"x c y,x", nil, `c policy_context: "x", "y" is none of the checks that run (a, b, c)`},
		{"", []string{"d"}, `policy_context: "d" is none of the checks that run (a, b, c)`},
	}
	var told []string
	r := NewRouter(all, RouterOptions{Unknown: func(err error) { told = append(told, err.Error()) }})
	for range 2 { // put together, then remembered
		for _, tt := range tests {
			var got []string
			for _, e := range r.Chain(tt.context, tt.bound) {
				name := e.Check.Name()
				if _, err := e.Check.Check(t.Context(), &Request{}, nil); err != nil {
					name += ": " + err.Error()
				}
				got = append(got, name)
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("%q bound to %q: %q, want %q", tt.context, tt.bound, got, tt.want)
			}
		}
	}
	if len(told) != 4 {
		t.Errorf("told %d times: %q", len(told), told)
	}
}

// A check of RouterOptions.Always decides in hooks that do not name it, leaves no step if
// it does not apply, and takes no time from the others.
func TestAlways(t *testing.T) {
	objects := &scripted{name: "b", v: Verdict{Kind: Reject, Reason: "bad"}}
	silent := &scripted{name: "c"}
	all := Chain{entry("a", Verdict{Kind: Pass, Reason: "ok"}, nil), entry("b", Verdict{Kind: Pass, Reason: "fine"}, nil)}
	r := NewRouter(all, RouterOptions{Always: Chain{{Check: objects}, {Check: silent}}})
	for context, want := range map[string]string{"": "fine a b", "a": "bad a b", "b": "fine b", "a,b": "fine a b", "x": "bad policy_context b", ",": "bad b"} {
		chain := r.Chain(context, nil)
		d := chain.Decide(t.Context(), &Request{State: StateRcpt})
		got := string(d.Reason)
		for _, s := range d.Steps {
			got += " " + s.Check
		}
		if got != want {
			t.Errorf("%q: %s, want %s", context, got, want)
		}
	}
	if silent.asked == 0 {
		t.Error("the silent check was not asked")
	}
	synctest.Test(t, func(t *testing.T) {
		slow := &scripted{name: "a", wait: true}
		chain := NewRouter(Chain{{Check: slow}}, RouterOptions{Always: Chain{{Check: &scripted{name: "c"}}}}).Chain("a", nil)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		begun := time.Now()
		if chain.Decide(ctx, &Request{}); time.Since(begun) != 8*time.Second {
			t.Errorf("the check of the hook had %s", time.Since(begun))
		}
	})
}

// An unknown word does not keep the other checks from being asked. It opens the
// hook only when it cannot replace a check that must not be left out.
func TestUnknownWords(t *testing.T) {
	const closed = "ownership"
	run := func(mode Mode, context string, runs ...string) Decision {
		var all Chain
		for _, name := range runs {
			v := Verdict{Kind: Pass, Reason: "ok"}
			if name == closed {
				v = Verdict{Kind: Reject, Reason: "bad"}
			}
			all = append(all, entry(name, v, nil))
		}
		r := NewRouter(all, RouterOptions{Closed: []string{closed}, Mode: mode})
		return r.Chain(context, nil).Decide(t.Context(), &Request{State: StateRcpt})
	}
	tests := []struct {
		context string
		runs    []string
		kind    Kind
		reason  record.Reason
	}{
		{"ownership, dnsbl", []string{closed}, Reject, "bad"},
		{"Ownership", []string{closed}, Reject, "bad"},
		{"OWNERSHIP dnsbll", []string{closed, "dnsbl"}, Reject, "bad"},
		{"ownership", []string{"dnsbl"}, Defer, record.UnknownHook},
		{"dnsbl, ownership", []string{"dnsbl"}, Defer, record.UnknownHook},
		{"dnsbl, ownershp", []string{closed, "dnsbl"}, Defer, record.UnknownHook},
		{"dnsbll, greylist", []string{closed, "dnsbl", "greylist"}, Pass, record.UnknownHook},
		{"submission", []string{closed}, Pass, record.UnknownHook},
		{"greylist", []string{closed}, Pass, record.UnknownHook},
		{"dnsbl", []string{"dnsbl"}, Pass, "ok"},
	}
	for _, word := range strings.Fields("ownershp onwership owenrship owners ownersihp ownerships wnership 0wnership own owner-ship") {
		tests = append(tests, struct {
			context string
			runs    []string
			kind    Kind
			reason  record.Reason
		}{word, []string{closed}, Defer, record.UnknownHook})
	}
	for _, tt := range tests {
		d := run(Enforce, tt.context, tt.runs...)
		if d.Kind != tt.kind || d.Reason != tt.reason || (d.Err != nil) != (tt.reason == record.UnknownHook) {
			t.Errorf("%q of %q: %s %s, %v", tt.context, tt.runs, d.Kind, d.Reason, d.Err)
		}
	}
	if d := run(Shadow, "ownershp", closed); d.Kind != Pass || d.Mode != Shadow || d.Would.Kind != Defer || d.Would.Reason != record.UnknownHook {
		t.Errorf("in the shadow: %+v", d)
	}
}

func TestRouterRemembersWithinBounds(t *testing.T) {
	r := NewRouter(Chain{entry("a", Verdict{}, nil)}, RouterOptions{})
	for i := range 3 * maxRoutes {
		context := "a"
		for range i {
			context += ","
		}
		if chain := r.Chain(context, nil); len(chain) != 1 {
			t.Fatalf("%q: %v", context, chain)
		}
	}
	if len(r.routes) > maxRoutes {
		t.Errorf("%d chains remembered", len(r.routes))
	}
}

// In the record, a step that passes because an answer is missing is an error, which is
// counted. One that objects all the same is not.
func TestStepsWithoutAnAnswer(t *testing.T) {
	for _, tt := range []struct {
		v    Verdict
		err  error
		want string
	}{
		{Verdict{Kind: Pass, Unknown: errBackend}, nil, "error"},
		{Verdict{Unknown: errBackend}, nil, "error"},
		{Verdict{Kind: Reject, Reason: "bad", Unknown: errBackend}, nil, Reject.String()},
		{Verdict{}, errBackend, "error"},
		{Verdict{Kind: Pass}, nil, Pass.String()},
	} {
		d := Chain{entry("a", tt.v, tt.err)}.Decide(t.Context(), &Request{State: StateRcpt})
		if steps := d.recordSteps(nil); len(steps) != 1 || steps[0].Verdict != tt.want || (steps[0].Err != nil) != (tt.v.Unknown != nil || tt.err != nil) {
			t.Errorf("%+v, %v: %+v, want %s", tt.v, tt.err, steps, tt.want)
		}
	}
}
