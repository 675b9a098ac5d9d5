package policyd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy"
)

func quiet() service.Runtime {
	return service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{}))
}

// loaded is a state with its life, as a daemon builds it before it applies it.
type loaded struct {
	*state
	life *service.Life
}

// loadInto goes as far as a daemon goes before it binds anything; the state may
// be put in force in c.
func loadInto(c *current, r service.Runtime, args, env []string) (*loaded, error) {
	s, err := configure(args, env)
	if err != nil {
		return nil, err
	}
	if _, err := s.Sockets(); err != nil {
		return nil, err
	}
	l := c.NewLife(nil)
	state, err := s.Build(l, r)
	if err != nil {
		l.Discard()
		return nil, err
	}
	return &loaded{state, l}, nil
}

func newCurrent() *current { return &current{new(service.Current[*state])} }

// loadAll loads into a daemon of its own.
func loadAll(args, env []string) (*loaded, error) { return loadInto(newCurrent(), quiet(), args, env) }

// apply puts the state in force.
func (l *loaded) apply(c *current) { c.Apply(l.state, l.life) }

// part returns the part of type P that runs in a state.
func partOf[P part](t *testing.T, s *state) P {
	t.Helper()
	for _, p := range s.parts {
		if found, ok := p.(P); ok {
			return found
		}
	}
	t.Fatalf("no %T runs", *new(P))
	panic("unreachable")
}

// inForceWith is a daemon with one state.
func inForceWith(t *testing.T, args ...string) (*current, *state) {
	t.Helper()
	c := newCurrent()
	l, err := loadInto(c, quiet(), append([]string{"--config="}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.apply(c)
	t.Cleanup(c.Close)
	return c, l.state
}

func buildOrFail(t *testing.T, args ...string) *loaded {
	t.Helper()
	s, err := loadAll(append([]string{"--config=", "--checks=ownership"}, args...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A hook keeps its state open until it is released.
func TestStateLivesAsLongAsItsRequests(t *testing.T) {
	c := newCurrent()
	closed := map[string]bool{}
	apply := func(name string) {
		s := buildOrFail(t, "--owners", "static:x")
		s.life.OnEnd(func() error { closed[name] = true; return errors.New("nobody cares") })
		s.apply(c)
	}
	apply("first")
	hook, err := c.Hook("", nil)
	if err != nil || len(hook.Chain) != 1 {
		t.Fatalf("%v, %v", hook, err)
	}
	apply("second")
	if closed["first"] {
		t.Error("closed under a request")
	}
	hook.Release()
	if !closed["first"] || closed["second"] {
		t.Errorf("closed: %v", closed)
	}
	c.Close()
	if !closed["second"] {
		t.Error("an idle state is not closed when it is replaced")
	}
}

func TestReplaceUnderRequests(t *testing.T) {
	c := newCurrent()
	next := func() { buildOrFail(t, "--owners", "static:x").apply(c) }
	next()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				hook, err := c.Hook("ownership", nil)
				if err != nil {
					t.Error(err)
					return
				}
				hook.Release()
			}
		})
	}
	for range 50 {
		next()
	}
	close(stop)
	wg.Wait()
}

func TestBuildFailsWhole(t *testing.T) {
	s, err := loadAll([]string{"--config=", "--checks=ownership", "--owners", "static:x", "--owner-aliases", "hash:/nonexistent/aliases"}, nil)
	if err == nil || s != nil || !strings.HasPrefix(err.Error(), "--owner-aliases: ") {
		t.Errorf("%v, %v", s, err)
	}
}

func TestStateFiles(t *testing.T) {
	dir := t.TempDir()
	owners := filepath.Join(dir, "owners")
	file := filepath.Join(dir, "policyd.toml")
	for path, text := range map[string]string{owners: "a@b.example ann\n", file: "owners = [\"hash:" + owners + "\"]\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := loadAll([]string{"--config", file, "--checks=ownership"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.life.Files(); !slices.Contains(got, owners) || !slices.Contains(got, file) {
		t.Errorf("files %q", got)
	}
}

func TestSettingsReachTheChecks(t *testing.T) {
	s := buildOrFail(t, "--owners", "inline:{pr@x.example=ann}", "--owners-unlisted=pass", "--owners-unauthenticated=reject",
		"--null-sender=reject", "--owner-exempt=Root", "--login-domain=x.example", "--shadow=all", "--owners-on-error=pass")
	chain := s.router.Chain("", nil)
	if len(chain) != 1 || chain[0].Mode != policy.Shadow || chain[0].OnError != policy.ErrorPass {
		t.Fatalf("%+v", chain)
	}
	for _, tt := range []struct {
		sender, login string
		want          policy.Kind
	}{
		{"pr@x.example", "ann", policy.Pass}, {"pr@x.example", "ann@x.example", policy.Pass}, {"ann@x.example", "ann", policy.Pass},
		{"pr@x.example", "bob", policy.Reject}, {"pr@x.example", "root", policy.Pass}, {"who@x.example", "bob", policy.Pass},
		{"pr@x.example", "", policy.Reject}, {"", "bob", policy.Reject},
	} {
		if v, _, err := partOf[*ownershipPart](t, s.state).check.Judge(t.Context(), mailaddr.Parse(tt.sender), tt.login); err != nil || v.Kind != tt.want {
			t.Errorf("%s by %q: %s %s, %v", tt.sender, tt.login, v.Kind, v.Reason, err)
		}
	}
}

// A shadowed refusal is recorded and counted as what would have decided; every
// decision that the settings can lead to is counted from 0 on.
func TestShadowIsCounted(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c, m := newCurrent(), metrics.New(metrics.Options{})
	s, err := loadInto(c, service.NewRuntime(zap.New(core), m), []string{"--config=", "--checks=ownership", "--owners=inline:{pr@x.example=ann}", "--shadow=all"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	defer c.Close()
	for _, l := range []record.Labels{{Check: "ownership", Verdict: "reject", Reason: record.OwnerNotOwned, Mode: "shadow"}, {Check: "ownership", Verdict: "pass", Reason: record.OwnerOwned, Mode: "enforce"}} {
		if n, ok := counted(t, m, l); !ok || n != 0 {
			t.Errorf("before the first request %v is counted %v, there: %t", l, n, ok)
		}
	}
	conn := &endlessConn{left: 1, requests: [][]byte{[]byte("request=smtpd_access_policy\nprotocol_state=RCPT\nsender=pr@x.example\nsasl_username=bob\n\n")}}
	server := &policy.Server{Hooks: c, Report: policy.Reporter{Records: service.NewRuntime(zap.New(core), m).Records, Load: m}}
	server.ServeConn(conn, nil)
	if n, _ := counted(t, m, record.Labels{Check: "ownership", Verdict: "reject", Reason: record.OwnerNotOwned, Mode: "shadow"}); n != 1 {
		t.Errorf("counted %v", n)
	}
	records := logs.FilterMessage(record.Message).All()
	if len(records) != 1 {
		t.Fatalf("%d records", len(records))
	}
	for key, want := range map[string]string{"check": "ownership", "verdict": "reject", "reason": "not_owned", "mode": "shadow", "action": "DUNNO"} {
		if got := records[0].ContextMap()[key]; got != want {
			t.Errorf("%s is %v, want %s", key, got, want)
		}
	}
}

// A check that could not decide is counted and logged as a warning, also when the next
// check decides.
func TestPassedOverErrorsAreCounted(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c, m := newCurrent(), metrics.New(metrics.Options{})
	r := service.NewRuntime(zap.New(core), m)
	s, err := loadInto(c, r, []string{
		"--config=", "--checks=ownership,limit", "--owners=socketmap:inet:127.0.0.1:1:owners", "--owners-on-error=pass", "--limit=login=9/1h", "--limit-store=memory:",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	defer c.Close()
	series := func(check string, reason record.Reason) string {
		return fmt.Sprintf("postern_check_errors_total{check=%q,reason=%q}", check, reason)
	}
	expect := func(want map[string]float64) {
		t.Helper()
		families, err := m.Gatherer().Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]float64)
		for _, family := range families {
			if family.GetName() != "postern_check_errors_total" {
				continue
			}
			for _, metric := range family.Metric {
				got[series(metric.Label[0].GetValue(), record.Reason(metric.Label[1].GetValue()))] = metric.Counter.GetValue()
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	want := map[string]float64{
		series("policy_context", record.UnknownHook): 0, series("ownership", record.OwnerLookupFailed): 0, series("ownership", record.CheckFailed): 0, series("ownership", record.DeadlineSpent): 0,
		series("limit", record.LimitUnavailable): 0, series("limit", record.CheckFailed): 0, series("limit", record.DeadlineSpent): 0,
	}
	expect(want)
	conn := &endlessConn{left: 1, requests: [][]byte{[]byte("request=smtpd_access_policy\nprotocol_state=RCPT\nsender=pr@x.example\nsasl_username=bob\n\n")}}
	(&policy.Server{Hooks: c, Report: policy.Reporter{Records: r.Records, Load: m}}).ServeConn(conn, nil)
	want[series("ownership", record.OwnerLookupFailed)] = 1
	expect(want)
	if n, _ := counted(t, m, record.Labels{Check: "limit", Verdict: "pass", Reason: record.LimitWithin, Mode: "enforce"}); n != 1 {
		t.Errorf("the decision of the next check is counted %v times", n)
	}
	records := logs.FilterMessage(record.Message).All()
	if len(records) != 1 || records[0].Level != zap.WarnLevel || records[0].ContextMap()["reason"] != "limit_within" {
		t.Errorf("records %v", records)
	}
}

// A hook that names what does not run is told of in log and readiness, until a
// reload.
func TestUnknownContextIsLoud(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	c := newCurrent()
	r := service.NewRuntime(zap.New(core), metrics.New(metrics.Options{}))
	r.Readiness.Serving()
	load := func() {
		t.Helper()
		s, err := loadInto(c, r, []string{"--config=", "--checks=ownership", "--owners=static:x"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.apply(c)
	}
	load()
	defer c.Close()
	for range 3 {
		hook, err := c.Hook("Ownership, dnsbl", nil)
		if err != nil || len(hook.Chain) != 2 || hook.Chain[0].Check.Name() != "ownership" {
			t.Fatalf("%+v, %v", hook, err)
		}
		hook.Release()
	}
	if n := logs.FilterMessageSnippet("names what does not run").Len(); n != 1 {
		t.Errorf("told %d times", n)
	}
	if ready, report := r.Readiness.Ready(); ready || !strings.Contains(report, `policy_context: failing: policy_context: "dnsbl" is none of the checks that run (ownership)`) {
		t.Errorf("ready %t: %s", ready, report)
	}
	load()
	if ready, report := r.Readiness.Ready(); !ready {
		t.Errorf("after a reload: %s", report)
	}
}

func TestWordsOfSocketsIgnoreCase(t *testing.T) {
	s, err := configure([]string{"--config=", "--checks=ownership", "--owners=static:x", "--listen=inet:127.0.0.1:0=Ownership"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := s.Sockets()
	if err != nil || len(sockets) != 1 || !slices.Equal(sockets[0].Suffix, []string{"ownership"}) {
		t.Errorf("%+v, %v", sockets, err)
	}
}

// counted is the count of decisions with labels, and whether it is there.
func counted(t *testing.T, m *metrics.Metrics, l record.Labels) (n float64, ok bool) {
	t.Helper()
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"check": l.Check, "verdict": l.Verdict, "reason": string(l.Reason), "mode": l.Mode}
	for _, f := range families {
		for _, one := range f.Metric {
			got := make(map[string]string)
			for _, label := range one.Label {
				got[label.GetName()] = label.GetValue()
			}
			if f.GetName() == "postern_decisions_total" && maps.Equal(got, want) {
				return one.Counter.GetValue(), true
			}
		}
	}
	return 0, false
}

func TestOwnersCheckCommand(t *testing.T) {
	c, _ := inForceWith(t, "--checks=ownership", "--owners", "inline:{pr@x.example=ann}")
	ask := func(args string) (api.OwnersCheckResult, error) {
		result, err := commands(c)["owners.check"](context.Background(), json.RawMessage(args), nil)
		if err != nil {
			return api.OwnersCheckResult{}, err
		}
		return result.(api.OwnersCheckResult), nil
	}
	got, err := ask(`{"sender":"pr@x.example","login":"bob"}`)
	want := api.OwnersCheckResult{Verdict: "reject", Reason: "not_owned", Reply: "not owned by user bob", Map: "inline:{pr@x.example=ann}", Key: "pr@x.example", Entry: "ann", Owners: []string{"ann"}}
	if err != nil || got.Allowed || got.Key != want.Key || got.Entry != want.Entry || got.Reply != want.Reply || !slices.Equal(got.Owners, want.Owners) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ask(`{"sender":"pr@x.example","login":"ann"}`); err != nil || !got.Allowed || got.Reason != "owned" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ask(`{"sender":"pr@x.example"}`); err == nil {
		t.Error("a question without login was answered")
	}
}
