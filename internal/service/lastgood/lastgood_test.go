package lastgood

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// words is a text of entries: its lines.
type words []string

// site is a daemon with one text, at a time of the test's own.
type site struct {
	t       *testing.T
	path    string
	now     time.Time
	current service.Current[words]
	runtime service.Runtime
	logs    *observer.ObservedLogs
	opened  int
	closed  int
}

func newSite(t *testing.T) *site {
	core, logs := observer.New(zap.InfoLevel)
	s := &site{t: t, path: filepath.Join(t.TempDir(), "list"), logs: logs}
	s.now = time.Now()
	s.runtime = service.Runtime{Log: zap.New(core), Metrics: metrics.New(metrics.Options{})}
	t.Cleanup(s.current.Close)
	return s
}

// change changes files, about a second before now: what is changed just now counts as being
// written. It does so again if the machine was busy for this second.
func (s *site) change(do func() error) {
	s.t.Helper()
	for done := false; !done; done = time.Until(s.now) > time.Second/2 {
		if begin := time.Now().Add(time.Second); begin.After(s.now) {
			s.now = begin
		}
		if err := do(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// write writes the text in place at a time before now.
func (s *site) write(ago time.Duration, entries ...string) {
	s.t.Helper()
	s.change(func() error {
		at := s.now.Add(-ago)
		return errors.Join(os.WriteFile(s.path, []byte(strings.Join(entries, "\n")), 0o600), os.Chtimes(s.path, at, at))
	})
}

// rename moves a text into place that was written less than settle ago.
func (s *site) rename(entries ...string) {
	s.t.Helper()
	fresh := s.path + ".new"
	s.change(func() error {
		at := time.Now().Add(-settle / 4)
		return errors.Join(os.WriteFile(fresh, []byte(strings.Join(entries, "\n")), 0o600), os.Chtimes(fresh, at, at), os.Rename(fresh, s.path))
	})
}

// reload puts a new state in force and returns the text it has, and after which time
// it is to be looked at again.
func (s *site) reload() (words, time.Duration) {
	s.t.Helper()
	life := s.current.NewLife(nil)
	list, err := Keep(life, s.runtime, "key", Reader[words]{
		Name: "list",
		Open: func() (words, error) {
			s.opened++
			text, err := os.ReadFile(s.path)
			return strings.Fields(string(text)), err
		},
		Files: func(words) []string { return []string{s.path} },
		Len:   func(w words) int { return len(w) },
		Close: func(words) error { s.closed++; return nil },
		Now:   func() time.Time { return s.now },
	})
	if err != nil {
		life.Discard()
		s.t.Fatal(err)
	}
	s.current.Apply(list, life)
	return list, life.Again()
}

func (s *site) want(entries int, again bool) {
	s.t.Helper()
	if list, wait := s.reload(); len(list) != entries || (wait > 0) != again {
		s.t.Errorf("%d entries, again after %v; want %d, %v", len(list), wait, entries, again)
	}
}

// gauge is what the metrics say, and whether the log has an error about it.
func (s *site) wantHeld(held float64, errors int) {
	s.t.Helper()
	if err := testutil.GatherAndCompare(s.runtime.Metrics.Gatherer(), strings.NewReader(
		"# HELP postern_files_held_back Tables and allow lists whose new text is not used because it would lose more than half of the entries.\n"+
			"# TYPE postern_files_held_back gauge\npostern_files_held_back "+map[float64]string{0: "0", 1: "1"}[held]+"\n"), "postern_files_held_back"); err != nil {
		s.t.Error(err)
	}
	if n := s.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != errors {
		s.t.Errorf("%d errors in the log, want %d", n, errors)
	}
}

// A text that has changed is read once.
func TestReadOnce(t *testing.T) {
	s := newSite(t)
	s.write(time.Hour, "a", "b", "c", "d")
	s.want(4, false)
	s.write(time.Minute, "a", "b", "c")
	s.want(3, false)
	s.rename("a", "b")
	s.want(2, false)
	if s.opened != 3 || s.closed != 2 {
		t.Errorf("read %d times, closed %d times", s.opened, s.closed)
	}
}

// The command of the administrator names what is held back, and has it used.
func TestCommand(t *testing.T) {
	s := newSite(t)
	causes := make(chan string, 2)
	s.runtime.Reload = func(cause string) { causes <- cause }
	command := Command(&s.current, s.runtime)
	ask := func(args string) api.ReloadResult {
		t.Helper()
		result, err := command(t.Context(), json.RawMessage(args), nil)
		if err != nil || len(causes) != 1 {
			t.Fatalf("%v, %d reloads", err, len(causes))
		}
		<-causes
		return result.(api.ReloadResult)
	}
	s.write(time.Hour, "a", "b", "c", "d", "e")
	s.want(5, false)
	if r := ask(`{}`); r.Held != nil || r.Taken != nil {
		t.Errorf("%+v", r)
	}
	s.rename("a")
	s.want(5, false)
	if r := ask(`{}`); !slices.Equal(r.Held, []string{"list"}) || r.Taken != nil {
		t.Errorf("%+v", r)
	}
	s.want(5, false)
	if r := ask(`{"force":true}`); !slices.Equal(r.Taken, []string{"list"}) {
		t.Errorf("%+v", r)
	}
	s.want(1, false)
	if r := ask(`{"force":true}`); r.Held != nil || r.Taken != nil {
		t.Errorf("%+v", r)
	}
}

func TestWrittenInPlace(t *testing.T) {
	s := newSite(t)
	s.write(time.Hour, "a", "b", "c", "d")
	s.want(4, false)
	s.write(0, "a")
	s.want(4, true)
	s.write(0, "a", "b", "c")
	s.want(4, true)
	s.now = s.now.Add(3 * settle)
	s.want(3, false)
	s.wantHeld(0, 0)
}

func TestWholeAtOnce(t *testing.T) {
	s := newSite(t)
	s.write(time.Hour, "a", "b")
	s.want(2, false)
	s.rename("a", "b", "c")
	s.want(3, false)
	s.write(0, "a", "b", "c", "d")
	s.want(3, true)
	at := s.now.Add(time.Second)
	if err := errors.Join(os.WriteFile(s.path+".db", nil, 0o600), os.Chtimes(s.path+".db", at, at)); err != nil {
		t.Fatal(err)
	}
	s.want(4, false)
}

// A writer that pauses longer than a text must rest is waited for longer.
func TestSlowWriter(t *testing.T) {
	s := newSite(t)
	all := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	s.write(time.Hour, all...)
	s.want(8, false)
	for i := 1; i < len(all); i++ {
		s.write(0, all[:i]...)
		s.want(8, true)
		s.now = s.now.Add(settle + time.Second)
		if i > 1 {
			s.want(8, true)
		}
	}
	s.write(0, all...)
	s.want(8, true)
	s.now = s.now.Add(time.Minute)
	s.want(8, false)
	s.wantHeld(0, 0)
}

func TestLosesTooMuch(t *testing.T) {
	s := newSite(t)
	s.write(time.Hour, "a", "b", "c", "d", "e")
	s.want(5, false)
	for _, entries := range [][]string{{"a", "b"}, {}} {
		s.write(time.Minute, entries...)
		s.want(5, false)
		opened := s.opened
		s.want(5, false)
		if s.opened != opened {
			t.Error("what is held back is read again and again")
		}
	}
	s.wantHeld(1, 2)
	s.write(time.Minute, "a", "b", "c")
	s.want(3, false)
	s.wantHeld(0, 2)
}

func TestTaken(t *testing.T) {
	s := newSite(t)
	s.write(time.Hour, "a", "b", "c", "d", "e")
	s.want(5, false)
	s.rename()
	s.want(5, false)
	s.wantHeld(1, 1)
	life := s.current.NewLife(nil)
	guard, err := Of(life, s.runtime)
	if err != nil {
		t.Fatal(err)
	}
	if taken := guard.Take(); len(taken) != 1 || taken[0] != "list" {
		t.Errorf("taken %q", taken)
	}
	life.Discard()
	s.want(0, false)
	s.wantHeld(0, 1)
	s.rename("a")
	s.want(1, false)
}
