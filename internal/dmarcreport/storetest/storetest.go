// Package storetest is the test suite for all stores of DMARC reports.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dmarcreport"
)

// Day is the day of the tests.
const Day dmarcreport.Day = 20_000

func batch(id, domain, p string, rows ...dmarcreport.Counted) *dmarcreport.Batch {
	return &dmarcreport.Batch{ID: id, Day: Day, Domain: domain, Policy: dmarcreport.Policy{P: p}, Rows: rows}
}

func add(t *testing.T, s dmarcreport.Store, b *dmarcreport.Batch) {
	t.Helper()
	if lost, err := s.Add(t.Context(), b); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func rows(t *testing.T, s dmarcreport.Store, domain string) map[string]int64 {
	t.Helper()
	found := make(map[string]int64)
	err := s.Rows(t.Context(), Day, domain, func(c dmarcreport.Counted) error {
		if found[c.Row] != 0 {
			t.Errorf("%s: row %s comes twice", domain, c.Row)
		}
		found[c.Row] = c.Count
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Run runs the suite. open returns an empty store.
func Run(t *testing.T, open func(*testing.T) dmarcreport.Store) {
	t.Run("counts", func(t *testing.T) { counts(t, open(t)) })
	t.Run("pages", func(t *testing.T) { pages(t, open(t)) })
	t.Run("sealed", func(t *testing.T) { sealed(t, open(t)) })
	t.Run("purge", func(t *testing.T) { purge(t, open(t)) })
	t.Run("notes", func(t *testing.T) { notes(t, open(t)) })
}

func counts(t *testing.T, s dmarcreport.Store) {
	add(t, s, batch("1", "example.com", "none", dmarcreport.Counted{Row: "a", Count: 2, Plain: true}, dmarcreport.Counted{Row: "b", Count: 1}))
	add(t, s, batch("2", "example.com", "reject", dmarcreport.Counted{Row: "a", Count: 3, Plain: true}))
	add(t, s, batch("3", "example.org", "none", dmarcreport.Counted{Row: "a", Count: 7, Plain: true}))
	if got := rows(t, s, "example.com"); len(got) != 2 || got["a"] != 5 || got["b"] != 1 {
		t.Error(got)
	}
	days, err := s.Days(t.Context())
	if err != nil || !slices.Equal(days, []dmarcreport.Day{Day}) {
		t.Error(days, err)
	}
	list, err := s.Domains(t.Context(), Day)
	want := []dmarcreport.Domain{
		{Name: "example.com", Policy: dmarcreport.Policy{P: "reject"}, Messages: 6, Plain: 5, Rows: 2},
		{Name: "example.org", Policy: dmarcreport.Policy{P: "none"}, Messages: 7, Plain: 7, Rows: 1},
	}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("%+v, %v", list, err)
	}
	if got := rows(t, s, "example.net"); len(got) != 0 {
		t.Error(got)
	}
}

// sealed tests that a report that was begun takes no more rows, and what a report knows
// of the late rows that it holds instead.
func sealed(t *testing.T, s dmarcreport.Store) {
	row := dmarcreport.Counted{Row: "a", Count: 2, Plain: true}
	now := Day.End().Add(time.Hour)
	add(t, s, batch("1", "example.com", "none", row))
	swap(t, s, true, dmarcreport.StateName(Day, "example.com"), "", "text", now, now.Add(time.Hour))
	late := batch("2", "example.com", "none", row)
	if lost, err := s.Add(t.Context(), late); lost != 0 || !errors.Is(err, dmarcreport.ErrSealed) {
		t.Error(lost, err)
	}
	add(t, s, batch("3", "example.org", "none", row))
	next := batch("4", "example.com", "reject", row)
	next.Day++
	add(t, s, next)
	for id, since := range map[string]dmarcreport.Day{"2": Day, "5": Day - 1, "6": Day} {
		b := batch(id, "example.com", "none", row)
		b.Day, b.Since = Day+1, since
		add(t, s, b)
	}
	first := batch("7", "example.net", "quarantine", row)
	first.Day, first.Since = Day+1, Day
	add(t, s, first)
	for day, want := range map[dmarcreport.Day][]dmarcreport.Domain{
		Day: {
			{Name: "example.com", Policy: dmarcreport.Policy{P: "none"}, Messages: 2, Plain: 2, Rows: 1},
			{Name: "example.org", Policy: dmarcreport.Policy{P: "none"}, Messages: 2, Plain: 2, Rows: 1},
		},
		Day + 1: {
			{Name: "example.com", Policy: dmarcreport.Policy{P: "reject"}, Messages: 8, Plain: 8, Rows: 1, Since: Day - 1},
			{Name: "example.net", Policy: dmarcreport.Policy{P: "quarantine"}, Messages: 2, Plain: 2, Rows: 1, Since: Day},
		},
	} {
		if list, err := s.Domains(t.Context(), day); err != nil || !slices.Equal(list, want) {
			t.Errorf("%s: %+v, %v", day, list, err)
		}
		for _, d := range want {
			if one, err := s.Domain(t.Context(), day, d.Name); err != nil || one != d {
				t.Errorf("%s: %+v, %v", day, one, err)
			}
		}
	}
	if d, err := s.Domain(t.Context(), Day, "example.net"); err != nil || d != (dmarcreport.Domain{Name: "example.net"}) {
		t.Errorf("%+v, %v", d, err)
	}
}

// pages tests that no row is missed or repeated if there are many, and that their order
// does not change.
func pages(t *testing.T, s dmarcreport.Store) {
	const all = 1200
	for from := 0; from < all; from += dmarcreport.BatchRows {
		b := batch(fmt.Sprint(from), "example.com", "none")
		for i := range dmarcreport.BatchRows {
			b.Rows = append(b.Rows, dmarcreport.Counted{Row: fmt.Sprintf("row %d", from+i), Count: 1, Plain: true})
		}
		add(t, s, b)
	}
	if got := rows(t, s, "example.com"); len(got) != all {
		t.Error(len(got))
	}
	order := func() (all string) {
		_ = s.Rows(t.Context(), Day, "example.com", func(c dmarcreport.Counted) error { all += c.Row + "\n"; return nil })
		return all
	}
	if first, second := order(), order(); first != second {
		t.Error("the order changes")
	}
	stop := fmt.Errorf("enough")
	if err := s.Rows(t.Context(), Day, "example.com", func(dmarcreport.Counted) error { return stop }); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

func purge(t *testing.T, s dmarcreport.Store) {
	now := time.Unix(1_750_000_000, 0) // in the past: a store may have a clock of its own, see redisstore
	add(t, s, batch("1", "example.com", "none", dmarcreport.Counted{Row: "a", Count: 2}))
	swap(t, s, true, "old", "", "text", now.Add(-time.Hour), now.Add(-time.Minute))
	swap(t, s, true, "new", "", "text", now, now.Add(time.Minute))
	if err := s.Purge(t.Context(), Day, now); err != nil {
		t.Fatal(err)
	}
	if days := settle(t, s, 1); len(days) != 1 {
		t.Error("a day was purged that is kept", days)
	}
	if err := s.Purge(t.Context(), Day+1, now); err != nil {
		t.Fatal(err)
	}
	if days := settle(t, s, 0); len(days) != 0 {
		t.Error("kept", days)
	}
	names := ""
	if err := s.EachNote(t.Context(), "", now.Add(-time.Hour), func(name, _ string) error { names += name; return nil }); err != nil || names != "new" {
		t.Error(names, err)
	}
}

// settle waits until a store that purges in the background has the expected days. The
// deadline of the test ends the wait.
func settle(t *testing.T, s dmarcreport.Store, want int) []dmarcreport.Day {
	t.Helper()
	for {
		days, err := s.Days(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(days) == want {
			return days
		}
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func swap(t *testing.T, s dmarcreport.Store, want bool, name, old, text string, now, until time.Time) {
	t.Helper()
	if done, err := s.SwapNote(t.Context(), name, old, text, now, until); done != want || err != nil {
		t.Errorf("%s: %q to %q: %v, %v", name, old, text, done, err)
	}
}

func notes(t *testing.T, s dmarcreport.Store) {
	ctx, now := context.Background(), time.Unix(1_800_000_000, 0)
	later := now.Add(time.Hour)
	for _, name := range []string{"report/1/example.com", dmarcreport.LeasePrefix + "x"} {
		swap(t, s, true, name, "", "one\ntwo", now, later)
		swap(t, s, false, name, "", "three", now, later)
		swap(t, s, true, name, "one\ntwo", "three", now, later)
		if text, err := s.Note(ctx, name, now); text != "three" || err != nil {
			t.Error(text, err)
		}
		if text, err := s.Note(ctx, name, later.Add(time.Second)); text != "" || err != nil {
			t.Error("a note outlives its end:", text, err)
		}
		swap(t, s, true, name, "", "four", later.Add(time.Second), later.Add(time.Hour))
		swap(t, s, true, name, "four", "", later, later)
		if text, err := s.Note(ctx, name, now); text != "" || err != nil {
			t.Error(text, err)
		}
	}
	swap(t, s, true, "report/2", "", "text", now, later)
	swap(t, s, true, "dead/a", "", "text", now, later)
	found := ""
	if err := s.EachNote(ctx, "report/", now, func(name, text string) error { found += name + "=" + text; return nil }); err != nil || found != "report/2=text" {
		t.Error(found, err)
	}
}
