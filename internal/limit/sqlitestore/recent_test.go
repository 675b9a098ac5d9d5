package sqlitestore_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/limit/sqlitestore"
)

var (
	recipients = &limit.Rule{Key: limit.Login, Unit: limit.Recipients, Count: 1000, Window: time.Hour, Action: limit.Defer}
	messages   = &limit.Rule{Key: limit.Login, Unit: limit.Messages, Count: 1000, Window: time.Hour, Action: limit.Defer}
)

func bobs(step limit.Step, txn, part string, amount int64) *limit.Op {
	return &limit.Op{Step: step, Txn: limit.DigestOf([]byte(txn)), Part: limit.DigestOf([]byte(part)), Now: begin(), Items: []limit.Item{
		{ID: limit.CounterID(recipients, "bob"), Rule: recipients, Amount: amount},
		{ID: limit.CounterID(messages, "bob"), Rule: messages, Amount: 1, Once: true},
	}}
}

func reserved(op *limit.Op) *limit.Op { op.Reserve = true; return op }

// killed returns a store as the next process finds it, when the one of s was killed after
// everything was written.
func killed(t *testing.T, s *sqlitestore.Store, dir string) *sqlitestore.Store {
	t.Helper()
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next := open(t, copyOf(t, dir, 0))
	t.Cleanup(func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
	return next
}

func take(t *testing.T, s limit.Store, op *limit.Op) limit.Answer {
	t.Helper()
	a, err := s.Take(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func undo(t *testing.T, s limit.Store, op *limit.Op) {
	t.Helper()
	if err := s.Undo(t.Context(), op); err != nil {
		t.Fatal(err)
	}
}

// TestRepeatedAfterKill shows that Postfix can repeat a request to the next process, and
// continue a mail there, and each recipient and mail counts once.
func TestRepeatedAfterKill(t *testing.T) {
	const name, end = limit.Name, limit.End
	for _, test := range []struct {
		name           string
		before, after  func(*testing.T, limit.Store)
		used, messages int64
	}{
		{"a recipient", func(t *testing.T, s limit.Store) {
			take(t, s, bobs(name, "a", "x", 1))
		}, func(t *testing.T, s limit.Store) {
			if a := take(t, s, bobs(name, "a", "x", 1)); !a.Repeat {
				t.Errorf("%+v", a)
			}
			take(t, s, bobs(name, "a", "y", 1))
		}, 2, 1},
		{"many recipients", func(t *testing.T, s limit.Store) {
			for i := range 40 {
				take(t, s, bobs(name, "a", fmt.Sprint(i), 1))
			}
		}, func(t *testing.T, s limit.Store) {
			for i := range 50 {
				take(t, s, bobs(name, "a", fmt.Sprint(i), 1))
			}
		}, 50, 1},
		{"the end", func(t *testing.T, s limit.Store) {
			take(t, s, reserved(bobs(name, "a", "x", 1)))
			take(t, s, bobs(end, "a", "", 3))
		}, func(t *testing.T, s limit.Store) {
			if a := take(t, s, bobs(end, "a", "", 3)); !a.Repeat || a.Uses[0].Used != 3 {
				t.Errorf("%+v", a)
			}
			take(t, s, bobs(end, "b", "", 1))
		}, 4, 2},
		{"counted when named, then the end", func(t *testing.T, s limit.Store) {
			take(t, s, bobs(name, "a", "x", 1))
		}, func(t *testing.T, s limit.Store) {
			take(t, s, reserved(bobs(name, "a", "y", 1)))
			take(t, s, bobs(end, "a", "", 2))
		}, 2, 1},
		{"only reserved", func(t *testing.T, s limit.Store) {
			take(t, s, reserved(bobs(name, "a", "x", 1)))
		}, func(t *testing.T, s limit.Store) {
			take(t, s, bobs(end, "a", "", 2))
		}, 2, 1},
		{"refused after the repetition", func(t *testing.T, s limit.Store) {
			take(t, s, bobs(name, "a", "x", 1))
			take(t, s, bobs(name, "a", "y", 1))
		}, func(t *testing.T, s limit.Store) {
			undo(t, s, bobs(name, "a", "y", 1))
		}, 1, 1},
		{"taken back before", func(t *testing.T, s limit.Store) {
			take(t, s, bobs(name, "a", "x", 1))
			take(t, s, bobs(end, "b", "", 3))
			if err := s.(*sqlitestore.Store).Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			undo(t, s, bobs(name, "a", "x", 1))
			undo(t, s, bobs(end, "b", "", 3))
		}, func(t *testing.T, s limit.Store) {
			if a := take(t, s, bobs(name, "a", "x", 1)); a.Repeat {
				t.Errorf("%+v", a)
			}
			if a := take(t, s, bobs(end, "b", "", 3)); a.Repeat {
				t.Errorf("%+v", a)
			}
		}, 4, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, filepath.Join(dir, "limits.db"))
			defer func() { _ = s.Close() }()
			test.before(t, s)
			next := killed(t, s, dir)
			test.after(t, next)
			a := take(t, next, &limit.Op{Step: limit.End, Txn: limit.DigestOf([]byte("?")), Now: begin(), Look: true, Items: bobs(limit.End, "", "", 0).Items})
			if a.Uses[0].Used != test.used || a.Uses[1].Used != test.messages {
				t.Errorf("%d recipients and %d messages counted, want %d and %d", a.Uses[0].Used, a.Uses[1].Used, test.used, test.messages)
			}
		})
	}
}

// TestRepeatedMuchLater shows that a transaction is forgotten after its time also by the
// next process.
func TestRepeatedMuchLater(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "limits.db"))
	defer func() { _ = s.Close() }()
	take(t, s, bobs(limit.End, "a", "", 3))
	next := killed(t, s, dir)
	op := bobs(limit.End, "a", "", 3)
	op.Now = begin().Add(limit.HoldFor)
	if a := take(t, next, op); a.Repeat || a.Uses[0].Used != 6 {
		t.Errorf("%+v", a)
	}
}

// TestRecentBound shows that the file keeps the latest transactions, and not all.
func TestRecentBound(t *testing.T) {
	dir := t.TempDir()
	const mails = 20
	s, err := sqlitestore.Open(sqlitestore.Options{
		Path: filepath.Join(dir, "limits.db"), Memory: memstore.Options{Start: begin()},
		Now: begin, Recent: 16 * 20, // a mail has about 20 octets
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	for i := range mails {
		take(t, s, bobs(limit.End, fmt.Sprint(i), "", 1))
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	next := killed(t, s, dir)
	for i, repeat := range map[int]bool{0: false, mails - 10: true, mails - 1: true} {
		if a := take(t, next, bobs(limit.End, fmt.Sprint(i), "", 1)); a.Repeat != repeat {
			t.Errorf("mail %d: %+v", i, a)
		}
	}
}

func FuzzTransactions(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaa\x01\x02\x01bbbbbbbbbbbb\x01\x00\x00\x01r\x01v\x02\x02cccccccccccc\x02\x02dddddddddddd\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { _ = sqlitestore.CheckTransactions(b) })
}
