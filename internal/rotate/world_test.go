package rotate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/milter/sign"
)

const (
	example  = "example.org"
	testTTL  = 30 * time.Minute
	lifetime = 5 * 24 * time.Hour
	expire   = 7 * 24 * time.Hour
)

var errCrash = errors.New("the process ends here")

// world is a domain, its name servers, and a clock.
type world struct {
	t       testing.TB
	dir     string
	now     time.Time
	servers []map[string]string // records of each server by name
	primary map[string]string   // what was published; servers follow
	byHand  bool
	noDNS   bool // servers do not answer
	refuses bool // the publisher fails
	events  []Event
	pending []Change       // that wait for a person
	asked   map[string]int // how often servers were asked for a name; nil if no one wants to know

	records  map[string]string // of keys that have signed, by selector
	steps    int               // effects so far
	crashAt  int               // the effect before which the process ends; 0: never
	onEffect func(what string)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{
		t: t, dir: memoryDir(t), now: time.Now().Truncate(time.Second),
		servers: []map[string]string{{}, {}}, primary: map[string]string{}, records: map[string]string{},
	}
	// Ed25519 alone: RSA keys take long to make.
	keys, err := sign.Generate(sign.NewKeys{Dir: w.dir, Domain: example, Selector: "old", Type: sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	record, err := keys[0].Record()
	if err != nil {
		t.Fatal(err)
	}
	w.primary["old._domainkey."+example] = record
	w.transfer()
	return w
}

// memoryDir is a folder in memory, where a key is on disk at once: these tests make
// many.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "rotate")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// transfer brings every server up to date.
func (w *world) transfer() {
	for i := range w.servers {
		w.transferTo(i)
	}
}

func (w *world) transferTo(i int) {
	w.servers[i] = make(map[string]string)
	for name, record := range w.primary {
		w.servers[i][name] = record
	}
}

func (w *world) Change(_ context.Context, c Change) error {
	if w.refuses {
		return errors.New("the server refuses")
	}
	w.apply(c)
	return nil
}

func (w *world) apply(c Change) {
	if c.Value == "" {
		delete(w.primary, c.Name)
	} else {
		w.primary[c.Name] = c.Value
	}
}

func (w *world) Look(_ context.Context, name string) (View, error) {
	if w.asked != nil {
		w.asked[name]++
	}
	if w.noDNS {
		return View{}, errors.New("no answer in time")
	}
	v := View{Cached: testTTL}
	for i, server := range w.servers {
		one := ServerView{Server: fmt.Sprint("ns", i)}
		if record, ok := server[name]; ok {
			one.TXT = []string{record}
		}
		v.Servers = append(v.Servers, one)
	}
	return v, nil
}

func (w *world) rotator() *Rotator {
	s := Settings{
		Dir: w.dir, DNS: w, Publisher: w, Expire: expire,
		QueueLifetime: func(context.Context) time.Duration { return lifetime },
		Now:           func() time.Time { return w.now },
		Report: func(e Event) {
			w.events = append(w.events, e)
			w.pending = append(w.pending, e.Publish...)
		},
		before: func(what string) error {
			w.steps++
			if w.onEffect != nil {
				w.onEffect(what)
			}
			if w.steps == w.crashAt {
				return errCrash
			}
			return nil
		},
	}
	s.noSync = true
	if w.byHand {
		s.Publisher = nil
	}
	return New(s)
}

// signing returns the records of the keys that sign, by selector. What a selector's
// file holds is read once, as the daemon would.
func (w *world) signing() map[string]string {
	w.t.Helper()
	files, err := os.ReadDir(filepath.Join(w.dir, example))
	if err != nil {
		w.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, f := range files {
		selector, isKey := strings.CutSuffix(f.Name(), ".private")
		if !isKey {
			continue
		}
		if w.records[selector] == "" {
			w.read()
		}
		all[selector] = w.records[selector]
	}
	return all
}

func (w *world) read() {
	w.t.Helper()
	keys, err := sign.LoadKeys(sign.KeySource{Dir: w.dir, Group: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, key := range keys.All() {
		if w.records[key.Selector], err = key.Record(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// everywhere reports whether each server shows a key as its record.
func (w *world) everywhere(selector, record string) bool {
	public, err := dkim.PublicKeyOf(record)
	if err != nil {
		w.t.Fatal(err)
	}
	return !slices.ContainsFunc(w.servers, func(s map[string]string) bool {
		return dkim.ComparePublished([]string{s[selector+"._domainkey."+example]}, public) != dkim.PublishedSame
	})
}

// advance makes the steps that can be made and returns the phase.
func (w *world) advance() Phase {
	w.t.Helper()
	if _, err := w.rotator().Advance(w.t.Context(), example); err != nil {
		w.t.Fatal(err)
	}
	return w.phase()
}

func (w *world) phase() Phase {
	w.t.Helper()
	s, err := w.rotator().State(example)
	if err != nil {
		w.t.Fatal(err)
	}
	if s == nil {
		return Done
	}
	return s.Phase
}

// missing returns what some server did not show when it was last looked at.
func (w *world) missing() string {
	w.t.Helper()
	s, err := w.rotator().State(example)
	if err != nil {
		w.t.Fatal(err)
	}
	return s.Missing
}

func (w *world) start() {
	w.t.Helper()
	if err := w.rotator().Start(example); err != nil {
		w.t.Fatal(err)
	}
}

// want compares the phase and the selectors that sign.
func (w *world) want(phase Phase, selectors ...string) {
	w.t.Helper()
	var got []string
	for selector := range w.signing() {
		got = append(got, selector)
	}
	slices.Sort(got)
	if p := w.phase(); p != phase || !slices.Equal(got, selectors) {
		w.t.Fatalf("phase %s, %v sign; want %s, %v", p, got, phase, selectors)
	}
}

func (w *world) stepNames() string {
	var all []string
	for _, e := range w.events {
		all = append(all, string(e.Step))
	}
	return strings.Join(all, " ")
}

func (w *world) newSelector() string { return "postern-" + w.now.UTC().Format("20060102") + "-ed25519" }

// always holds at every moment: the invariants of the package.
type always struct {
	w    *world
	used map[string]time.Time // when a key signed last
	text map[string]string    // its record
}

func (a *always) check(when string) {
	a.w.t.Helper()
	works := false
	for selector, record := range a.w.signing() {
		a.used[selector], a.text[selector] = a.w.now, record
		works = works || a.w.everywhere(selector, record)
	}
	if !works {
		a.w.t.Fatalf("%s: no key that signs is published", when)
	}
	for selector, at := range a.used {
		// A key that has only signed beside another one has had its record.
		if a.w.now.Sub(at) < expire+lifetime && !a.w.everywhere(selector, a.text[selector]) {
			a.w.t.Fatalf("%s: the record of %s is gone %s after it signed", when, selector, a.w.now.Sub(at))
		}
	}
}

// Whatever fails in whatever order, a key works at every moment, and records stay for
// mail under way.
func TestNeverWithoutAWorkingKey(t *testing.T) {
	for seed := range uint64(30) {
		w := newWorld(t)
		random := rand.New(rand.NewPCG(seed, 1))
		w.byHand = random.IntN(3) == 0
		a := &always{w, make(map[string]time.Time), make(map[string]string)}
		w.onEffect = func(what string) { a.check(fmt.Sprintf("seed %d, before %s", seed, what)) }
		w.start()
		moves := 0
		for ; moves < 2000 && w.phase() != Done; moves++ {
			w.randomMove(random)
			a.check(fmt.Sprintf("seed %d, move %d", seed, moves))
		}
		if w.phase() != Done {
			t.Errorf("seed %d: still in phase %s", seed, w.phase())
		}
	}
}

// randomMove is one thing that may happen.
func (w *world) randomMove(random *rand.Rand) {
	w.t.Helper()
	switch random.IntN(12) {
	case 0:
		w.noDNS = !w.noDNS
	case 1:
		w.refuses = !w.refuses
	case 2:
		w.crashAt = w.steps + 1 + random.IntN(6)
	case 3:
		for _, c := range w.pending {
			w.apply(c)
		}
		w.pending = nil
	case 4, 5:
		w.transferTo(random.IntN(len(w.servers)))
	case 6:
		w.now = w.now.Add(time.Duration(random.IntN(20)) * 24 * time.Hour)
	case 7:
		w.now = w.now.Add(time.Duration(random.IntN(90)) * time.Minute)
	case 8:
		if random.IntN(10) == 0 {
			_ = w.rotator().Undo(example) // may be refused, or crash
		}
	default:
		w.noDNS = w.noDNS && random.IntN(3) > 0
		_, _ = w.rotator().Advance(w.t.Context(), example) // may fail, or crash
	}
}

// A process that ends before any one effect leaves what the next one ends well.
func TestCrashBeforeEveryEffect(t *testing.T) {
	effects := 0
	for at := 1; at == 1 || at <= effects; at++ {
		w := newWorld(t)
		a := &always{w, make(map[string]time.Time), make(map[string]string)}
		w.crashAt = at
		w.onEffect = func(what string) { a.check(fmt.Sprintf("crash at %d, before %s", at, what)) }
		for range 400 {
			if err := w.rotator().Start(example); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			if w.phase() != Done {
				break
			}
		}
		for w.phase() != Done {
			if _, err := w.rotator().Advance(t.Context(), example); err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			w.transfer()
			w.now = w.now.Add(12 * time.Hour)
		}
		if at == 1 {
			effects = w.steps
		}
		if got := len(w.signing()); got != 1 || w.signing()["old"] != "" {
			t.Fatalf("crash at %d: %d keys sign", at, got)
		}
		if len(w.primary) != 1 {
			t.Fatalf("crash at %d: records %v", at, w.primary)
		}
		left, err := filepath.Glob(filepath.Join(w.dir, example, hidden, "*.private*"))
		if err != nil || len(left) > 0 {
			t.Fatalf("crash at %d: %v is left, %v", at, left, err)
		}
	}
	if effects < 15 {
		t.Errorf("only %d effects", effects)
	}
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.start()
	w.want(Make, "old")
	w.advance()
	w.want(Publish, "old") // handed over, and at no server yet
	w.transferTo(0)
	w.advance()
	w.want(Publish, "old")
	if strings.Contains(w.stepNames(), "seen") {
		t.Fatal("one of two servers is enough")
	}
	w.transferTo(1)
	w.advance()
	w.now = w.now.Add(testTTL - time.Second)
	w.advance()
	w.want(Publish, "old")
	w.now = w.now.Add(time.Second)
	w.advance()
	w.want(Retire, "old", fresh)
	w.now = w.now.Add(Overlap)
	w.advance()
	w.want(Keep, fresh)
	w.now = w.now.Add(MinKeep - time.Second)
	w.advance()
	w.want(Keep, fresh)
	w.now = w.now.Add(time.Second)
	w.advance()
	w.want(Revoke, fresh)
	if got := w.primary["old._domainkey."+example]; got != "v=DKIM1; h=sha256; k=ed25519; p=" {
		t.Fatalf("revoked record %q", got)
	}
	w.transfer()
	w.advance()
	w.want(Revoked, fresh)
	if _, err := os.Stat(filepath.Join(w.dir, example, hidden, "old.private")); err == nil {
		t.Fatal("the revoked key is still there")
	}
	w.now = w.now.Add(RevokedFor)
	w.advance()
	w.transfer()
	w.advance()
	w.want(Done, fresh)
	if len(w.primary) != 1 {
		t.Fatalf("records %v", w.primary)
	}
	if got := w.stepNames(); got != "started handed seen signs retired handed revoked handed finished" {
		t.Errorf("steps %q", got)
	}
	s, err := w.rotator().State(example)
	if err != nil || len(s.History) != 9 {
		t.Errorf("history %+v, %v", s, err)
	}
}

// A clock that is set, forward or back, ends no wait early and makes none longer.
func TestClockSet(t *testing.T) {
	for _, by := range []time.Duration{24 * time.Hour, -24 * time.Hour, 30 * 24 * time.Hour} {
		w := newWorld(t)
		set := func() {
			t.Helper()
			w.now = w.now.Add(by)
			if err := w.rotator().ClockSet(by); err != nil {
				t.Fatal(err)
			}
		}
		// wait waits for the rest of a phase, in which the clock is set.
		wait := func(phase Phase, rest time.Duration) {
			t.Helper()
			w.now = w.now.Add(rest / 2)
			set()
			if got := w.advance(); got != phase {
				t.Fatalf("the clock is set by %s: phase %s, want %s", by, got, phase)
			}
			w.now = w.now.Add(rest - rest/2)
			if got := w.advance(); got == phase {
				t.Fatalf("the clock was set by %s: phase %s after all of its time", by, got)
			}
		}
		w.start()
		w.advance()
		w.transfer()
		w.advance()
		wait(Publish, testTTL)
		wait(Retire, Overlap)
		wait(Keep, MinKeep)
		w.transfer()
		w.advance()
		wait(Revoked, RevokedFor)
		w.transfer()
		w.advance()
		if w.phase() != Done {
			t.Fatalf("phase %s", w.phase())
		}
		set()
	}
}

// A host that boots with a wrong clock, and one that was off for long, ends no wait early.
// When the clock is right again, set while the daemon runs or before the next boot, all waits
// are as long as they were.
func TestResume(t *testing.T) {
	const year = 365 * 24 * time.Hour
	resume := func(w *world, want time.Duration) {
		t.Helper()
		if rested, err := w.rotator().Resume(); err != nil || rested != want {
			t.Fatalf("rested %s, want %s: %v", rested, want, err)
		}
	}
	for _, by := range []time.Duration{year, -year, 3 * time.Hour} {
		for _, running := range []bool{true, false} {
			w := newWorld(t)
			w.toKeep()
			w.now = w.now.Add(MinKeep / 2)
			w.advance()
			resume(w, 0)
			w.now = w.now.Add(time.Hour) // a restart of the machine
			resume(w, 0)
			w.now = w.now.Add(by)
			resume(w, by+time.Hour)
			if got := w.advance(); got != Keep {
				t.Fatalf("the clock is %s off: phase %s", by, got)
			}
			w.now = w.now.Add(-by)
			if running {
				if err := w.rotator().ClockSet(-by); err != nil {
					t.Fatal(err)
				}
			} else {
				resume(w, -by)
			}
			w.now = w.now.Add(MinKeep/2 - time.Minute)
			if got := w.advance(); got != Keep {
				t.Fatalf("the clock was %s off: phase %s", by, got)
			}
			w.now = w.now.Add(time.Minute)
			if got := w.advance(); got == Keep {
				t.Fatalf("the clock was %s off: phase %s after all of its time", by, got)
			}
		}
	}
}

// For the command, which a timer or a person starts, time without a look counts, but not that
// of a clock that is far ahead, and not that of one that was ahead.
func TestResumeByHand(t *testing.T) {
	const day = 24 * time.Hour
	for _, test := range []struct {
		by, rested time.Duration
		over       bool
	}{
		{day, 0, false},
		{MinKeep, 0, true},
		{59 * day, 0, true},
		{365 * day, 365 * day, false},
		{-365 * day, -365 * day, false},
		{-time.Hour, 0, false},
	} {
		w := newWorld(t)
		w.toKeep()
		w.now = w.now.Add(test.by)
		rested, err := w.rotator().ResumeByHand(t.Context(), example)
		if err != nil || rested != test.rested {
			t.Errorf("after %s: rested %s, want %s: %v", test.by, rested, test.rested, err)
		}
		if over := w.advance() != Keep; over != test.over {
			t.Errorf("after %s: the wait is over %t, want %t", test.by, over, test.over)
		}
		if rested == 0 {
			continue
		}
		w.now = w.now.Add(MinKeep - time.Minute)
		if got := w.advance(); got != Keep {
			t.Errorf("after %s: phase %s before all of its time", test.by, got)
		}
		w.now = w.now.Add(time.Minute)
		if got := w.advance(); got == Keep {
			t.Errorf("after %s: phase %s after all of its time", test.by, got)
		}
	}
	// One that begins after a long time without a rotation has no time without a look.
	w := newWorld(t)
	if rested, err := w.rotator().ResumeByHand(t.Context(), example); rested != 0 || err != nil {
		t.Errorf("without a rotation: %s, %v", rested, err)
	}
}

// A rotation of a release that noted no looks goes on.
func TestResumeWithoutALook(t *testing.T) {
	w := newWorld(t)
	w.toKeep()
	if err := os.Remove(filepath.Join(w.dir, example, hidden, lookedFile)); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(MinKeep)
	if rested, err := w.rotator().Resume(); rested != 0 || err != nil {
		t.Fatal(rested, err)
	}
	if got := w.advance(); got == Keep {
		t.Errorf("phase %s after all of its time", got)
	}
}

func TestOldRecordIsKeptForMailUnderWay(t *testing.T) {
	for _, tt := range []struct{ expire, lifetime, want time.Duration }{
		{0, 5 * 24 * time.Hour, MinKeep},
		{7 * 24 * time.Hour, 5 * 24 * time.Hour, MinKeep},
		{30 * 24 * time.Hour, 10 * 24 * time.Hour, 40 * 24 * time.Hour},
	} {
		s := Settings{Expire: tt.expire, QueueLifetime: func(context.Context) time.Duration { return tt.lifetime }}
		if got := s.keep(t.Context()); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

// toKeep brings a rotation to where the old keys have stopped signing.
func (w *world) toKeep() {
	w.t.Helper()
	w.start()
	for range 10 {
		if w.advance() == Keep {
			return
		}
		w.transfer()
		w.now = w.now.Add(Overlap)
	}
	w.t.Fatalf("phase %s", w.phase())
}

func (w *world) undo() {
	w.t.Helper()
	if err := w.rotator().Undo(example); err != nil {
		w.t.Fatal(err)
	}
}

func TestUndoBeforeSigning(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.advance()
	w.transfer()
	w.undo()
	w.advance()
	w.want(Done, "old")
	if len(w.primary) != 1 {
		t.Errorf("records %v", w.primary)
	}
	if err := w.rotator().Undo(example); err == nil || !strings.Contains(err.Error(), "nothing to undo") {
		t.Errorf("error %v", err)
	}
	due, err := w.rotator().Due(24 * time.Hour)
	if err != nil || len(due) > 0 {
		t.Errorf("due at once: %v, %v", due, err)
	}
}

// New keys that have signed go the way of old ones; undoing that is possible too.
func TestUndoAfterSigning(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.toKeep()
	w.want(Keep, fresh)
	w.undo()
	w.advance()
	w.want(Retire, "old", fresh)
	w.now = w.now.Add(Overlap)
	w.advance()
	w.want(Keep, "old")
	w.now = w.now.Add(MinKeep)
	w.advance()
	w.want(Revoke, "old")
	if err := w.rotator().Undo(example); err == nil || !strings.Contains(err.Error(), "being revoked") {
		t.Errorf("error %v", err)
	}
	if got := w.primary[fresh+"._domainkey."+example]; !strings.HasSuffix(got, "p=") {
		t.Errorf("record %q", got)
	}
}

// A record of keys that sign that is gone from one server brings the old keys back.
func TestLostRecord(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.toKeep()
	delete(w.servers[1], fresh+"._domainkey."+example)
	w.now = w.now.Add(lookKept)
	w.advance()
	w.want(Publish, "old", fresh)
	if e := w.events[len(w.events)-2]; e.Step != Lost || !strings.Contains(e.Detail, "not published at ns1") {
		t.Errorf("event %+v", e)
	}
	w.transfer()
	w.advance()
	w.now = w.now.Add(testTTL)
	w.advance()
	w.want(Retire, "old", fresh)
}

// Two hosts that rotate a domain on their own publish at the same name in the same moment:
// the one whose record is gone takes another name, and leaves the record of the other.
func TestTwoHostsMeet(t *testing.T) {
	for _, everywhere := range []bool{true, false} {
		w := newWorld(t)
		other := newWorld(t)
		record := other.primary["old._domainkey."+example]
		first := w.newSelector()
		second := strings.Replace(first, "-ed25519", "b-ed25519", 1)
		w.start()
		w.advance()
		w.transfer()
		name := first + "._domainkey." + example
		w.primary[name], w.servers[1][name] = record, record
		if everywhere {
			w.transfer()
		}
		w.now = w.now.Add(again) // when it would publish again what is not shown
		w.advance()
		w.want(Publish, "old")
		if w.primary[name] != record || w.primary[second+"._domainkey."+example] == "" {
			t.Errorf("everywhere %v: %q is published", everywhere, w.primary)
		}
		w.transfer()
		w.advance()
		w.now = w.now.Add(testTTL)
		w.advance()
		w.want(Retire, "old", second)
		if names, _ := filepath.Glob(filepath.Join(w.dir, example, hidden, first+"*")); names != nil {
			t.Errorf("files of the keys that gave way: %q", names)
		}
		// A key that signs does not give way.
		w.servers[1][second+"._domainkey."+example] = record
		w.now = w.now.Add(Overlap)
		w.advance()
		w.want(Publish, "old", second)
	}
}

// An undone rotation leaves the record that another host has published at its name.
func TestWithdrawBesideAnotherHost(t *testing.T) {
	w := newWorld(t)
	record := newWorld(t).primary["old._domainkey."+example]
	name := w.newSelector() + "._domainkey." + example
	w.start()
	w.advance()
	w.primary[name] = record
	w.transfer()
	if err := w.rotator().Undo(example); err != nil {
		t.Fatal(err)
	}
	w.advance()
	w.want(Done, "old")
	if w.primary[name] != record {
		t.Errorf("%q is published", w.primary)
	}
}

// A step asks once for what a wildcard shows, however many keys it looks at.
func TestWildcardIsAskedOnce(t *testing.T) {
	w := newWorld(t)
	if _, err := sign.Generate(sign.NewKeys{Dir: w.dir, Domain: example, Selector: "oldrsa", Type: sign.RSA, Bits: 1024}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.advance()
	if err := w.rotator().Undo(example); err != nil {
		t.Fatal(err)
	}
	w.asked = make(map[string]int)
	w.advance()
	w.want(Done, "old", "oldrsa")
	if n := w.asked[noSelector+"._domainkey."+example]; n != 1 || len(w.asked) != 3 {
		t.Errorf("asked %v to withdraw two keys", w.asked)
	}
	w = newWorld(t)
	w.toKeep()
	w.now = w.now.Add(MinKeep)
	w.asked = make(map[string]int)
	w.advance()
	if n := w.asked[noSelector+"._domainkey."+example]; n != 2 { // of the phases keep and revoke
		t.Errorf("asked %d times to revoke a key", n)
	}
}

// A new record that is lost while the old one waits to be revoked keeps the old one.
func TestLostRecordBeforeRevocation(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.toKeep()
	w.now = w.now.Add(MinKeep)
	w.refuses = true
	if _, err := w.rotator().Advance(t.Context(), example); err == nil {
		t.Fatal("the publisher refuses, and there is no error")
	}
	w.want(Revoke, fresh)
	w.refuses = false
	delete(w.primary, fresh+"._domainkey."+example)
	w.transfer()
	w.advance()
	w.want(Publish, "old", fresh)
	w.transfer()
	if !w.everywhere("old", w.signing()["old"]) || !w.everywhere(fresh, w.signing()[fresh]) {
		t.Errorf("records %v", w.primary)
	}
}

// A record is revoked although a person has left t=y in it.
func TestRevokedTest(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.toKeep()
	w.now = w.now.Add(MinKeep)
	w.advance()
	w.primary["old._domainkey."+example] = "v=DKIM1; t=y; k=ed25519; p="
	w.transfer()
	w.advance()
	w.want(Revoked, fresh)
}

// When part of the old records is revoked already, the old keys cannot sign again.
func TestLostRecordAmidRevocation(t *testing.T) {
	w := newWorld(t)
	fresh := w.newSelector()
	w.toKeep()
	w.now = w.now.Add(MinKeep)
	w.advance()
	w.transferTo(0)
	delete(w.servers[1], fresh+"._domainkey."+example)
	if _, err := w.rotator().Advance(t.Context(), example); err == nil || !strings.Contains(err.Error(), "publish the new records again") {
		t.Errorf("error %v", err)
	}
	w.want(Revoke, fresh)
	w.transfer()
	w.advance()
	w.want(Revoked, fresh)
}

// By hand, the records to publish are shown once a day until they are there.
func TestByHand(t *testing.T) {
	w := newWorld(t)
	w.byHand = true
	w.start()
	w.advance()
	w.advance()
	if len(w.pending) != 1 || w.pending[0].Action != DoPublish {
		t.Fatalf("pending %+v", w.pending)
	}
	zone := w.pending[0].Zone()
	if want := w.newSelector() + "._domainkey.example.org. 3600 IN TXT \"v=DKIM1; h=sha256; k=ed25519; p="; !strings.HasPrefix(zone, want) {
		t.Errorf("zone line %q", zone)
	}
	w.now = w.now.Add(againByHand)
	w.advance()
	if len(w.pending) != 2 {
		t.Errorf("reminded: %+v", w.pending)
	}
	w.apply(w.pending[0])
	w.transfer()
	w.advance()
	w.now = w.now.Add(testTTL)
	w.advance()
	w.want(Retire, "old", w.pendingSelector())
}

func (w *world) pendingSelector() string {
	selector, _, _ := strings.Cut(w.pending[0].Name, ".")
	return selector
}

// A problem is reported once, and shown until it is over.
func TestProblemsAreSaidOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.refuses = true
	for range 3 {
		if _, err := w.rotator().Advance(t.Context(), example); err == nil {
			t.Fatal("no error")
		}
	}
	if got := w.stepNames(); got != "started failed" {
		t.Errorf("steps %q", got)
	}
	s, err := w.rotator().State(example)
	if err != nil || !strings.Contains(s.Problem, "the server refuses") {
		t.Errorf("problem %+v, %v", s, err)
	}
	w.refuses = false
	w.advance()
	if s, err = w.rotator().State(example); err != nil || s.Problem != "" {
		t.Errorf("problem %+v, %v", s, err)
	}
}

// A publisher that reports success and changes nothing becomes a problem, which is over
// when the servers show the record.
func TestPublisherWithoutEffect(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.advance()
	w.now = w.now.Add(stuckAfter - time.Second)
	w.advance()
	w.now = w.now.Add(time.Second)
	for range 2 {
		if _, err := w.rotator().Advance(t.Context(), example); err == nil || !strings.Contains(err.Error(), "publish "+w.newSelector()[:8]) {
			t.Fatalf("error %v", err)
		}
	}
	if got := strings.Count(w.stepNames(), "failed"); got != 1 {
		t.Errorf("steps %q", w.stepNames())
	}
	w.want(Publish, "old")
	w.transfer()
	w.advance()
	if s, err := w.rotator().State(example); err != nil || s.Problem != "" {
		t.Errorf("problem %+v, %v", s, err)
	}
	w.byHand = true
	w.transferTo(0)
	delete(w.servers[1], w.newSelector()+"._domainkey."+example)
	w.now = w.now.Add(stuckAfter)
	for range 2 { // a person may take longer
		w.advance()
	}
}

// The problem names a server that does not get the zone.
func TestStuckNamesTheServer(t *testing.T) {
	w := newWorld(t)
	w.start()
	stuck := func(want string) {
		t.Helper()
		w.advance()
		w.transferTo(0)
		w.advance()
		if got := w.missing(); !strings.Contains(got, want) { // at once, before it is a problem
			t.Errorf("missing: %q, want %q", got, want)
		}
		w.now = w.now.Add(stuckAfter)
		if _, err := w.rotator().Advance(t.Context(), example); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		w.transfer()
		w.advance()
		if got := w.missing(); got != "" {
			t.Errorf("after the transfer %q is missing", got)
		}
	}
	stuck("._domainkey.example.org is not published at ns1")
	for w.phase() != Keep {
		w.advance()
		w.now = w.now.Add(Overlap)
	}
	w.now = w.now.Add(MinKeep)
	stuck("old._domainkey.example.org is not revoked at ns1")
	w.advance()
	w.now = w.now.Add(RevokedFor)
	stuck("old._domainkey.example.org is not removed at ns1")
}

func TestDue(t *testing.T) {
	w := newWorld(t)
	every := 90 * 24 * time.Hour
	due := func() []string {
		t.Helper()
		all, err := w.rotator().Due(every)
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if got := due(); len(got) > 0 {
		t.Errorf("due %v", got)
	}
	w.now = w.now.Add(every + time.Minute)
	if got := due(); !slices.Equal(got, []string{example}) {
		t.Errorf("due %v", got)
	}
	w.toKeep()
	w.now = w.now.Add(2 * every)
	if got := due(); len(got) > 0 {
		t.Errorf("due while under way: %v", got)
	}
}
