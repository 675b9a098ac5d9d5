// Package storetest holds every store of limits to the same behaviour.
//
// Invariant: a store never lets more through within a window than an exact counter
// would (model.go), and refuses only what such a counter would refuse for a window
// that is a hundredth longer.
package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
)

// Run tests stores as open makes them. Each must be empty, and count by the times of
// the ops.
func Run(t *testing.T, open func(t *testing.T) limit.Store) {
	for name, test := range map[string]func(*testing.T, limit.Store){
		"as an exact counter, any history": asTheModel,
		"reserved, then counted":           reserved,
		"what was refused costs nothing":   undone,
		"an end undoes what it counts":     endUndoesItsOwn,
		"a request that is repeated":       repeated,
		"reservations end":                 reservationsEnd,
		"end without its reservation":      endAfterAll,
		"all or nothing":                   allOrNothing,
		"lenient":                          lenient,
		"networks":                         networks,
		"refusals":                         refusals,
		"alarms once a window":             alarmsOnce,
		"clock set back":                   clockSetBack,
		"clock set forward":                clockSetForward,
		"time left":                        timeLeft,
		"blocks":                           blocks,
		"look and reset":                   lookAndReset,
		"looking leaves nothing":           looking,
		"many at once":                     manyAtOnce,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

func start() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func rule(count int64, window time.Duration) *limit.Rule {
	return &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: count, Window: window, Action: limit.Defer}
}

// endUndoesItsOwn counts a recipient as it is named, and refuses the mail at its end for
// another reason: the recipient stays counted.
func endUndoesItsOwn(t *testing.T, s limit.Store) {
	a, b := item(rule(10, time.Hour), "bob"), item(&limit.Rule{Key: limit.Login, Unit: limit.Bytes, Count: 3, Window: time.Hour, Action: limit.Defer}, "bob")
	named := func(txn string) *limit.Op {
		op := name(start(), txn, "p", a)
		op.Reserve = false
		return op
	}
	want(t, s, named("one"), false, 1)
	want(t, s, end(start(), "one", 5, b), true, 0)
	want(t, s, named("two"), false, 2)
	passed := end(start(), "two", 2, b)
	want(t, s, passed, false, 2)
	undo(t, s, passed)
	want(t, s, named("three"), false, 3)
	want(t, s, end(start(), "three", 1, b), false, 1)
}

func item(r *limit.Rule, value string) limit.Item {
	return limit.Item{ID: limit.CounterID(r, value), Rule: r, Amount: 1}
}

// name is an op that names a recipient.
func name(at time.Time, txn, part string, items ...limit.Item) *limit.Op {
	return &limit.Op{Step: limit.Name, Txn: limit.DigestOf([]byte(txn)), Part: limit.DigestOf([]byte(part)), Reserve: true, Items: items, Now: at}
}

// end is the op of a mail's end.
func end(at time.Time, txn string, recipients int64, items ...limit.Item) *limit.Op {
	all := slices.Clone(items)
	for i := range all {
		all[i].Amount = recipients
		if all[i].Once {
			all[i].Amount = 1
		}
	}
	return &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte(txn)), Items: all, Now: at}
}

func take(t *testing.T, s limit.Store, op *limit.Op) limit.Answer {
	t.Helper()
	a, err := s.Take(t.Context(), op)
	if err != nil {
		t.Fatalf("Take: %v", err)
	}
	if len(a.Uses) != len(op.Items) {
		t.Fatalf("%d uses for %d items", len(a.Uses), len(op.Items))
	}
	return a
}

// want checks whether an op is refused, and how much its first counter has then.
func want(t *testing.T, s limit.Store, op *limit.Op, refused bool, used int64) limit.Answer {
	t.Helper()
	a := take(t, s, op)
	if a.Refused != refused || a.Uses[0].Used != used {
		t.Errorf("%s %s at %s: refused %v, used %d; want %v, %d", op.Txn, op.Part, op.Now.Sub(start()), a.Refused, a.Uses[0].Used, refused, used)
	}
	return a
}

func undo(t *testing.T, s limit.Store, op *limit.Op) {
	t.Helper()
	if err := s.Undo(t.Context(), op); err != nil {
		t.Fatalf("Undo: %v", err)
	}
}

// history makes random ops.
type history struct {
	*rand.Rand
	now   time.Time
	rules [3]*limit.Rule
}

// items are the counters of a transaction.
func (h *history) items(txn int) []limit.Item {
	who := "u" + strconv.Itoa(txn%3)
	a, b, c := item(h.rules[0], who), item(h.rules[1], who), item(h.rules[2], "all")
	b.Once = true
	return []limit.Item{a, b, c}
}

func asTheModel(t *testing.T, s limit.Store) {
	for seed := range uint64(4) {
		h := &history{rand.New(rand.NewPCG(seed, 1)), start().Add(time.Duration(seed) * 1000 * time.Hour), [3]*limit.Rule{
			rule(20, time.Hour), rule(9, 10*time.Minute), rule(60, 3*time.Hour),
		}}
		m := newModel()
		for i := range 600 {
			h.now = h.now.Add(time.Duration(h.IntN(40_000)) * time.Millisecond)
			step(t, s, m, h, i)
			m.forget(h.now, 3*time.Hour)
		}
	}
}

// step does one random thing, and compares.
func step(t *testing.T, s limit.Store, m *model, h *history, i int) {
	t.Helper()
	m.expire(h.now)
	txn := h.IntN(12)
	op := name(h.now, "t"+strconv.Itoa(txn), "p"+strconv.Itoa(h.IntN(8)), h.items(txn)...)
	op.Reserve = h.IntN(3) > 0
	if h.IntN(4) == 0 {
		op = end(h.now, "t"+strconv.Itoa(txn), int64(1+h.IntN(6)), op.Items...)
	}
	if h.IntN(8) == 0 {
		undo(t, s, op)
		m.undo(op)
		return
	}
	a := take(t, s, op)
	of := m.txn(op)
	if repeat := of.counted(op); repeat != a.Repeat {
		t.Fatalf("step %d: repeat %v, want %v", i, a.Repeat, repeat)
	} else if repeat {
		return
	}
	must, may := false, false
	for k := range op.Items {
		x, y := m.over(of, op, &op.Items[k])
		must, may = must || x, may || y
	}
	if must && !a.Refused || a.Refused && !may {
		t.Fatalf("step %d: %+v refused %v, must be refused %v, may be %v", i, op, a.Refused, must, may)
	}
	if a.Refused {
		if op.Step == limit.End {
			of.done = true
			m.undo(op)
		}
		return
	}
	m.count(of, op)
	for k := range op.Items {
		it := &op.Items[k]
		low, high := m.used(it.ID, h.now, it.Rule.Window), m.used(it.ID, h.now, late(it.Rule.Window))
		if got := a.Uses[k].Used; got < low || got > high {
			t.Fatalf("step %d: %s used %d, want %d to %d", i, it.ID, got, low, high)
		}
	}
}

func reserved(t *testing.T, s limit.Store) {
	r, at := rule(10, time.Hour), start()
	for i := range 4 {
		want(t, s, name(at, "a", strconv.Itoa(i), item(r, "bob")), false, int64(i+1))
	}
	want(t, s, end(at, "a", 3, item(r, "bob")), false, 3)
	for i := range 7 {
		want(t, s, name(at, "b", strconv.Itoa(i), item(r, "bob")), false, int64(i+4))
	}
	want(t, s, name(at, "b", "7", item(r, "bob")), true, 10)
	want(t, s, name(at, "c", "0", item(r, "bob")), true, 10)
	want(t, s, name(at, "c", "0", item(r, "eve")), false, 1)
}

func undone(t *testing.T, s limit.Store) {
	r, m, at := rule(3, time.Hour), &limit.Rule{Key: limit.Login, Unit: limit.Messages, Count: 2, Window: time.Hour}, start()
	once := item(m, "bob")
	once.Once = true
	for _, reserve := range []bool{true, false} {
		for i := range 10 {
			op := name(at, fmt.Sprint(reserve, i), "x", item(r, "bob"), once)
			op.Reserve = reserve
			want(t, s, op, false, 1)
			undo(t, s, op)
			undo(t, s, op) // the second has nothing to take back
		}
	}
	op := name(at, "z", "x", item(r, "bob"), once)
	want(t, s, op, false, 1)
	want(t, s, name(at, "z", "y", item(r, "bob"), once), false, 2)
	undo(t, s, op)
	want(t, s, end(at, "z", 1, item(r, "bob"), once), false, 1)
	undo(t, s, end(at, "z", 1, item(r, "bob"), once))
	want(t, s, name(at, "z2", "x", item(r, "bob"), once), false, 1)
}

func repeated(t *testing.T, s limit.Store) {
	r, at := rule(2, time.Hour), start()
	for range 5 {
		want(t, s, name(at, "a", "x", item(r, "bob")), false, 1)
	}
	want(t, s, name(at, "a", "y", item(r, "bob")), false, 2)
	for range 3 {
		want(t, s, end(at, "a", 2, item(r, "bob")), false, 2)
	}
	if a := want(t, s, name(at, "a", "x", item(r, "bob")), false, 2); !a.Repeat {
		t.Error("not known as a repetition")
	}
}

func reservationsEnd(t *testing.T, s limit.Store) {
	r, at := rule(5, time.Hour), start()
	for i := range 5 {
		want(t, s, name(at, "a", strconv.Itoa(i), item(r, "bob")), false, int64(i+1))
	}
	want(t, s, name(at.Add(limit.HoldFor-time.Second), "b", "x", item(r, "bob")), true, 5)
	want(t, s, name(at.Add(limit.HoldFor+time.Second), "b", "x", item(r, "bob")), false, 1)
}

func endAfterAll(t *testing.T, s limit.Store) {
	r, at := rule(5, time.Hour), start()
	want(t, s, name(at, "a", "x", item(r, "bob")), false, 1)
	late := at.Add(limit.HoldFor + time.Minute)
	want(t, s, end(late, "a", 1, item(r, "bob")), false, 1)
	want(t, s, end(late, "b", 5, item(r, "bob")), true, 1) // no reservation, and no room
	want(t, s, end(late, "c", 4, item(r, "bob")), false, 5)
}

func allOrNothing(t *testing.T, s limit.Store) {
	wide, narrow, at := rule(100, 24*time.Hour), rule(2, time.Hour), start()
	both := []limit.Item{item(wide, "bob"), item(narrow, "bob")}
	for i := range 6 {
		a := take(t, s, name(at, "a"+strconv.Itoa(i), "x", both...))
		if a.Refused != (i >= 2) || a.Uses[1].Over != a.Refused || a.Uses[0].Over {
			t.Errorf("mail %d: %+v", i, a)
		}
	}
	want(t, s, name(at, "z", "x", item(wide, "bob")), false, 3)
}

func lenient(t *testing.T, s limit.Store) {
	r, at := rule(2, time.Hour), start()
	it := item(r, "bob")
	it.Lenient = true
	for i := range int64(5) {
		a := want(t, s, name(at, "a"+strconv.FormatInt(i, 10), "x", it), false, i+1)
		if a.Uses[0].Over != (i >= 2) {
			t.Errorf("mail %d: over %v", i, a.Uses[0].Over)
		}
	}
	look := name(at, "a4", "x", it)
	look.Look = true
	for _, op := range []*limit.Op{name(at, "a4", "x", it), look} {
		if a := want(t, s, op, false, 5); !a.Repeat || !a.Uses[0].Over || a.Uses[0].Alarm != 0 {
			t.Errorf("the same answer is not given again: %+v", a)
		}
	}
	it.Lenient = false
	if a := want(t, s, name(at, "a4", "x", it), false, 5); !a.Repeat || a.Uses[0].Over {
		t.Errorf("what was counted is refused: %+v", a)
	}
}

func networks(t *testing.T, s limit.Store) {
	r, at := &limit.Rule{Key: limit.Login, Unit: limit.Networks, Count: 3, Window: time.Hour}, start()
	from := func(n int) limit.Item {
		return limit.Item{ID: limit.CounterID(r, "bob"), Rule: r, Member: "192.0." + strconv.Itoa(n) + ".0/24"}
	}
	for i := range 20 {
		want(t, s, name(at.Add(time.Duration(i)*time.Minute), "a"+strconv.Itoa(i), "x", from(i%3)), false, int64(min(i+1, 3)))
	}
	if a := want(t, s, name(at.Add(20*time.Minute), "b", "x", from(7)), true, 3); a.Uses[0].Wait != 57*time.Minute {
		t.Errorf("to wait %s", a.Uses[0].Wait)
	}
	want(t, s, name(at.Add(77*time.Minute+30*time.Second), "c", "x", from(8)), false, 3)
	// The end of a mail whose recipients were not asked about.
	want(t, s, end(at.Add(77*time.Minute+40*time.Second), "d", 1, from(8)), false, 3)
	want(t, s, end(at.Add(77*time.Minute+40*time.Second), "e", 1, from(9)), true, 3)
	want(t, s, end(at.Add(77*time.Minute+40*time.Second), "f", 1, from(8)), false, 3)
}

func refusals(t *testing.T, s limit.Store) {
	r, at := &limit.Rule{Key: limit.Login, Unit: limit.Refused, Count: 3, Window: time.Hour}, start()
	look := limit.Item{ID: limit.CounterID(r, "bob"), Rule: r, Need: 1}
	want(t, s, name(at, "a", "x", look), false, 0)
	want(t, s, name(at, "a", "y", look), false, 0)
	missing := look
	missing.Missing, missing.Need, missing.Amount = true, 0, 1
	op := &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte("a")), Items: []limit.Item{missing}, Now: at}
	want(t, s, op, false, 1) // one of two was taken
	own := look
	own.Amount = 1
	for range 2 {
		if err := s.Add(t.Context(), &limit.Op{Items: []limit.Item{own}, Now: at}); err != nil {
			t.Fatal(err)
		}
	}
	want(t, s, name(at, "b", "x", look), true, 3)
	want(t, s, name(at.Add(62*time.Minute), "b", "x", look), false, 0)
}

func alarmsOnce(t *testing.T, s limit.Store) {
	r, at := rule(10, time.Hour), start()
	var alarms []string
	for i := range 40 {
		now := at.Add(time.Duration(i) * 2 * time.Minute)
		if a := take(t, s, name(now, "a"+strconv.Itoa(i), "x", item(r, "bob"))); a.Uses[0].Alarm != 0 {
			alarms = append(alarms, fmt.Sprint(i, ":", a.Uses[0].Alarm))
		}
		take(t, s, end(now, "a"+strconv.Itoa(i), 1, item(r, "bob")))
	}
	if got, want := fmt.Sprint(alarms), "[7:80 9:100 39:100]"; got != want {
		t.Errorf("alarms %s, want %s", got, want)
	}
	one := rule(1, time.Hour)
	if a := take(t, s, name(at, "b", "x", item(one, "eve"))); a.Uses[0].Alarm != 100 {
		t.Errorf("a limit of one: %+v", a)
	}
}

func clockSetBack(t *testing.T, s limit.Store) {
	r, at := rule(3, time.Hour), start()
	for i := range 3 {
		want(t, s, end(at.Add(24*time.Hour), "a"+strconv.Itoa(i), 1, item(r, "bob")), false, int64(i+1))
	}
	// The counts of "tomorrow" count as of now: no one is locked out for a day.
	want(t, s, end(at, "b", 1, item(r, "bob")), true, 3)
	want(t, s, end(at.Add(62*time.Minute), "c", 1, item(r, "bob")), false, 1)
}

func clockSetForward(t *testing.T, s limit.Store) {
	r, at := rule(3, time.Hour), start()
	want(t, s, end(at, "a", 3, item(r, "bob")), false, 3)
	want(t, s, end(at.Add(1000*time.Hour), "b", 2, item(r, "bob")), false, 2)
	want(t, s, end(at.Add(1000*time.Hour), "c", 2, item(r, "bob")), true, 2)
}

func timeLeft(t *testing.T, s limit.Store) {
	r, at := rule(4, 100*time.Minute), start().Truncate(time.Minute)
	want(t, s, end(at, "a", 2, item(r, "bob")), false, 2)
	want(t, s, end(at.Add(10*time.Minute), "b", 2, item(r, "bob")), false, 4)
	now := at.Add(20 * time.Minute)
	if a := want(t, s, name(now, "c", "x", item(r, "bob")), true, 4); a.Uses[0].Wait != 81*time.Minute {
		t.Errorf("one more: %s left", a.Uses[0].Wait)
	}
	if a := want(t, s, end(now, "d", 4, item(r, "bob")), true, 4); a.Uses[0].Wait != 91*time.Minute {
		t.Errorf("four more: %s left", a.Uses[0].Wait)
	}
	want(t, s, name(now.Add(81*time.Minute-time.Millisecond), "e", "x", item(r, "bob")), true, 4)
	want(t, s, name(now.Add(81*time.Minute), "e", "x", item(r, "bob")), false, 3)
}

func blocks(t *testing.T, s limit.Store) {
	r, at := rule(4, time.Hour), start()
	ask := func(login string, now time.Time) *limit.Block {
		t.Helper()
		op := name(now, login, "x", item(r, login))
		op.Block = login
		a := take(t, s, op)
		if (a.Blocked != nil) != a.Refused {
			t.Errorf("%s: %+v", login, a)
		}
		return a.Blocked
	}
	for login, until := range map[string]time.Time{"bob": {}, "eve": at.Add(time.Hour)} {
		if err := s.SetBlock(t.Context(), limit.Block{Login: login, Since: at, Until: until}, false); err != nil {
			t.Fatal(err)
		}
	}
	if b := ask("bob", at.Add(1000*time.Hour)); b == nil || !b.Until.IsZero() {
		t.Errorf("bob: %+v", b)
	}
	if b := ask("eve", at); b == nil || !b.Until.Equal(at.Add(time.Hour)) {
		t.Errorf("eve: %+v", b)
	}
	if b := ask("eve", at.Add(61*time.Minute)); b != nil {
		t.Errorf("eve, later: %+v", b)
	}
	if b := ask("ann", at); b != nil {
		t.Errorf("ann: %+v", b)
	}
	if all, err := s.Blocks(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.SetBlock(t.Context(), limit.Block{Login: "bob"}, true); err != nil {
		t.Fatal(err)
	}
	if b := ask("bob", at); b != nil {
		t.Errorf("bob, lifted: %+v", b)
	}
}

func lookAndReset(t *testing.T, s limit.Store) {
	r, n, at := rule(40, time.Hour), &limit.Rule{Key: limit.Login, Unit: limit.Networks, Count: 3, Window: time.Hour}, start()
	for i := range 20 {
		login := fmt.Sprintf("u%d*[x]?", i)
		take(t, s, end(at, login, int64(i+1), item(r, login)))
		take(t, s, name(at, login+"n", "x", limit.Item{ID: limit.CounterID(n, login), Rule: n, Member: "192.0.2.0/24"}))
	}
	look := func(prefix string) map[string]limit.Counter {
		t.Helper()
		found := make(map[string]limit.Counter)
		if err := s.Counters(t.Context(), prefix, at.Add(time.Minute), func(c limit.Counter) error {
			found[c.ID] = c
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if all := look(""); len(all) != 40 {
		t.Errorf("%d counters", len(all))
	}
	id := limit.CounterID(r, "u7*[x]?").String()
	one := look(id)
	if c := one[id]; len(one) != 1 || c.Used != 8 || c.Peak != 8 || c.Wait <= 0 {
		t.Errorf("%+v", one)
	}
	if c := look("login.networks")[limit.CounterID(n, "u7*[x]?").String()]; c.Used != 1 || !slices.Equal(c.Members, []string{"192.0.2.0/24"}) {
		t.Errorf("%+v", c)
	}
	if n, err := s.Reset(t.Context(), []string{id, "nothing"}); n != 1 || err != nil {
		t.Errorf("%d reset, %v", n, err)
	}
	if len(look(id)) != 0 || len(look("")) != 39 {
		t.Error("it was not reset")
	}
	want(t, s, end(at, "z", 1, item(r, "u7*[x]?")), false, 1)
}

func looking(t *testing.T, s limit.Store) {
	r, at := rule(2, time.Hour), start()
	look := func(txn, part string, refused bool, used int64) {
		t.Helper()
		op := name(at, txn, part, item(r, "bob"))
		op.Look = true
		want(t, s, op, refused, used)
	}
	look("a", "x", false, 0)
	if err := s.Counters(t.Context(), "", at, func(c limit.Counter) error { return fmt.Errorf("%+v", c) }); err != nil {
		t.Errorf("looking has made %v", err)
	}
	want(t, s, name(at, "a", "x", item(r, "bob")), false, 1)
	want(t, s, name(at, "a", "y", item(r, "bob")), false, 2)
	for range 3 {
		look("a", "z", true, 2)
		look("a", "x", false, 2)
		look("b", "x", true, 2)
	}
	want(t, s, end(at, "a", 1, item(r, "bob")), false, 1)
	look("b", "x", false, 1)
}

// manyAtOnce has many mails at the same time, which must fill the limit and not exceed it.
func manyAtOnce(t *testing.T, s limit.Store) { Crowd(t, []limit.Store{s}, true) }

// Crowd has many mails of one login at the same time, spread over stores that share what
// they count.
func Crowd(t *testing.T, stores []limit.Store, reserve bool) {
	t.Helper()
	const mails, most = 400, 300
	r, at := rule(most, time.Hour), start()
	var accepted atomic.Int64
	var running sync.WaitGroup
	for worker := range 8 {
		running.Go(func() {
			s := stores[worker%len(stores)]
			for i := range mails / 8 {
				op := name(at, fmt.Sprintf("c%d-%d", worker, i), "x", item(r, "crowd"))
				op.Reserve = reserve
				a, err := s.Take(t.Context(), op)
				if err != nil {
					t.Error(err)
				} else if !a.Refused {
					accepted.Add(1)
				}
			}
		})
	}
	running.Wait()
	if n := accepted.Load(); n != most {
		t.Errorf("%d of %d mails were let through, the limit is %d", n, mails, most)
	}
}
