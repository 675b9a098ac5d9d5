package logging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/record"
)

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func readLines(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Errorf("%s does not end with a line break", path)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func TestJSONKeys(t *testing.T) {
	var out bytes.Buffer
	l := open(t, Options{Err: &out})
	before := time.Now().UTC().Truncate(time.Millisecond)
	l.Logger().Info("decision", zap.String("check", "ownership"))
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, out.Bytes())
	}
	ts, err := time.Parse("2006-01-02T15:04:05.000Z07:00", got["ts"])
	if err != nil || ts.Before(before) || !strings.HasSuffix(got["ts"], "Z") || len(got["ts"]) != len("2026-01-02T03:04:05.678Z") {
		t.Errorf("ts is %q, %v", got["ts"], err)
	}
	delete(got, "ts")
	if fmt.Sprint(got) != "map[check:ownership level:info msg:decision]" {
		t.Errorf("got %v", got)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("not one line: %q", out.String())
	}
}

func TestConsole(t *testing.T) {
	var out bytes.Buffer
	open(t, Options{Err: &out, Format: "console"}).Logger().Warn("slow\nstore", zap.String("store", "redis\n"))
	columns := strings.Split(out.String(), "\t")
	if len(columns) != 4 || columns[1] != "warn" || columns[3] != "{\"store\": \"redis\\n\"}\n" {
		t.Errorf("got %q", columns)
	}
}

// A decision is one short line for people, with the time and the level in front.
func TestConsoleDecision(t *testing.T) {
	var out bytes.Buffer
	r := record.Record{Daemon: "policyd", Check: "ownership", Verdict: "reject", Reason: record.OwnerNotOwned, SASLUsername: "bob", Action: "553 5.7.1 no"}
	at := time.Date(2026, 11, 21, 2, 0, 0, 7e6, time.UTC)
	r.LogAt(open(t, Options{Err: &out, Format: "console"}).Logger(), at)
	if want := "2026-11-21T02:00:00.007Z info ownership reject not_owned login=bob reply=\"553 5.7.1 no\" 0ms\n"; out.String() != want {
		t.Errorf("got %q", out.String())
	}
	out.Reset()
	r.LogAt(open(t, Options{Err: &out, Format: "console", Level: "warn"}).Logger(), at)
	if out.Len() != 0 {
		t.Errorf("below the level: %q", out.String())
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[string]string{
		"": "info warn error", "debug": "debug info warn error", "info": "info warn error", "warn": "warn error", "error": "error",
	} {
		var out bytes.Buffer
		l := open(t, Options{Err: &out, Level: "error"})
		if err := l.SetLevel(level); err != nil {
			t.Fatal(err)
		}
		for _, at := range []zapcore.Level{zap.DebugLevel, zap.InfoLevel, zap.WarnLevel, zap.ErrorLevel} {
			l.Logger().Log(at, at.String())
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			var e struct{ Msg string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			got = append(got, e.Msg)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: got %q", level, got)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Level: "loud"}, `open log: "loud" is not a level: debug, info, warn or error`},
		{Options{Format: "xml"}, `open log: "xml" is not a format: json or console`},
		{Options{Path: dir + "/absent/log"}, "open log: open " + dir + "/absent/log: no such file or directory"},
		{Options{Path: dir}, "open log: open " + dir + ": is a directory"},
		{Options{Path: fifo}, "open log: open " + fifo + ": no such device or address"},
		{Options{Err: closed}, "open log: duplicate /dev/null: use of closed file"},
	} {
		if _, err := Open(tt.o); fmt.Sprint(err) != tt.want {
			t.Errorf("%+v:\n got %v\nwant %s", tt.o, err, tt.want)
		}
	}
	l := open(t, Options{})
	if err := l.SetLevel("loud"); err == nil {
		t.Error("no error")
	}
}

func TestFileIsAppendedTo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		l := open(t, Options{Path: path})
		l.Logger().Info("x")
		if err := errors.Join(l.Logger().Sync(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if got := readLines(t, path); len(got) != 2 {
		t.Errorf("got %q", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&^fileMode != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Lines are neither lost nor mixed while logrotate renames the file.
func TestReopenUnderWriters(t *testing.T) {
	const writers, lines, rotations = 4, 500, 20
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l := open(t, Options{Path: path})
	var wg sync.WaitGroup
	var written atomic.Int64
	for w := range writers {
		wg.Go(func() {
			for i := range lines {
				l.Logger().Info("x", zap.Int("writer", w), zap.Int("line", i), zap.String("pad", strings.Repeat("p", i)))
				written.Add(1)
			}
		})
	}
	rotated := 0
	for written.Load() < writers*lines && rotated < rotations {
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, rotated)); err != nil {
			t.Fatal(err)
		}
		rotated++
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != rotated+1 {
		t.Fatalf("%q, %v", files, err)
	}
	seen := make(map[string]bool)
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			var e struct{ Writer, Line int }
			if err := json.Unmarshal(s.Bytes(), &e); err != nil {
				t.Fatalf("%v: %q", err, s.Text())
			}
			seen[fmt.Sprint(e)] = true
		}
		f.Close()
	}
	if len(seen) != writers*lines || l.Failures() != 0 {
		t.Errorf("%d lines, %d failures", len(seen), l.Failures())
	}
}

func TestFailedReopenKeepsTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Path: filepath.Join(dir, "log")})
	moved := dir + ".moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	l.Logger().Info("still here")
	if got := readLines(t, filepath.Join(moved, "log")); len(got) != 1 || l.Failures() != 0 {
		t.Errorf("got %q, %d failures", got, l.Failures())
	}
}

func TestReopenWithoutFile(t *testing.T) {
	l := open(t, Options{})
	if err := errors.Join(l.Reopen(), l.Logger().Sync(), l.Close()); err != nil {
		t.Error(err)
	}
}

func TestFullDiskIsCounted(t *testing.T) {
	l := open(t, Options{Path: "/dev/full"})
	for range 3 {
		l.Logger().Error("x")
	}
	if l.Failures() != 3 {
		t.Errorf("%d failures", l.Failures())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestWritesAfterCloseAreCounted(t *testing.T) {
	l := open(t, Options{Path: filepath.Join(t.TempDir(), "log")})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Logger().Info("x")
	if l.Failures() != 1 {
		t.Errorf("%d failures", l.Failures())
	}
	if err := errors.Join(l.Logger().Sync(), l.Close()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// smallDisk takes a few bytes, then none until it is emptied.
type smallDisk struct {
	bytes.Buffer
	free int
}

func (d *smallDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.free)
	d.free -= n
	d.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A line that was cut off does not swallow the first line that fits again.
func TestTornLine(t *testing.T) {
	disk := &smallDisk{free: 100}
	l := open(t, Options{Err: disk})
	l.Logger().Info("one") // fits
	l.Logger().Info("two") // is cut off
	l.Logger().Info("three")
	disk.free = 1000
	l.Logger().Info("four")
	l.Logger().Info("five")
	var msgs []string
	for line := range strings.Lines(disk.String()) {
		var e struct{ Msg string }
		if json.Unmarshal([]byte(line), &e) == nil {
			msgs = append(msgs, e.Msg)
		}
	}
	if got := strings.Join(msgs, " "); got != "one four five" || l.Failures() != 2 {
		t.Errorf("got %q, %d failures in\n%s", got, l.Failures(), disk.String())
	}
	if strings.Contains(disk.String(), "\n\n") {
		t.Errorf("an empty line in\n%s", disk.String())
	}
}

const childVariable = "POSTERN_TEST_LOG_CHILD"

// A reader of stderr that goes away (a pager, a log collector) must not take
// the daemon along, though a Go program dies of SIGPIPE on descriptor 2.
func TestBrokenStderr(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		logToBrokenStderr()
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenStderr$")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = w
	out, err := cmd.Output()
	w.Close()
	if err != nil || string(out) != "2" {
		t.Errorf("got %q, %v", out, err)
	}
}

func logToBrokenStderr() {
	l, err := Open(Options{Err: os.Stderr})
	if err != nil {
		fmt.Print(err)
		os.Exit(1)
	}
	l.Logger().Info("x")
	l.Logger().Info("y")
	fmt.Print(l.Failures())
	os.Exit(0)
}

// A pipe whose reader is alive but does not read: the writer goes on, and so
// does Close.
func TestPipeThatIsNotRead(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, err := Open(Options{Err: w, Batch: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the log has its own
	line := strings.Repeat("x", 1000)
	for range 4 * maxPending / len(line) {
		l.Logger().Info(line)
	}
	if !l.Blocked() || l.Failures() == 0 {
		t.Errorf("blocked: %v, %d lines lost", l.Blocked(), l.Failures())
	}
	if err := l.Close(); !errors.Is(err, errBlocked) {
		t.Errorf("closed with %v", err)
	}
}

func TestRedirectStdlog(t *testing.T) {
	var out bytes.Buffer
	restore := open(t, Options{Err: &out}).RedirectStdlog()
	log.Print("http: panic serving\nsecond line")
	restore()
	var e map[string]string
	if err := json.Unmarshal(out.Bytes(), &e); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if e["level"] != "warn" || e["from"] != "stdlog" || e["msg"] != "http: panic serving\nsecond line" {
		t.Errorf("got %v", e)
	}
}

func TestStateLog(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	s := NewStateLog(zap.New(core), "redis", "up")
	for _, r := range []struct {
		state string
		want  bool
	}{{"up", false}, {"up", false}, {"down", true}, {"down", false}, {"up", true}, {"up", false}} {
		if got := s.Report(zap.WarnLevel, r.state, zap.String("detail", "d")); got != r.want {
			t.Errorf("%s: got %v", r.state, got)
		}
	}
	var got []string
	for _, e := range logs.All() {
		f := e.ContextMap()
		got = append(got, fmt.Sprint(e.Message, ": ", f["subject"], " ", f["before"], "→", f["state"], " ", f["repeats"], f["detail"]))
	}
	if want := "[state changed: redis up→down 2d state changed: redis down→up 1d]"; fmt.Sprint(got) != want {
		t.Errorf("got %v", got)
	}
	if s.State() != "up" {
		t.Errorf("state is %s", s.State())
	}
	if s.Report(zap.DebugLevel, "quiet"); len(logs.All()) != 2 || s.State() != "quiet" {
		t.Error("a change below the level is logged, or not noted")
	}
}

func TestStateLogConcurrently(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	s := NewStateLog(zap.New(core), "redis", "up")
	var wg sync.WaitGroup
	var changes atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if s.Report(zap.WarnLevel, "down") {
					changes.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if changes.Load() != 1 || logs.Len() != 1 {
		t.Errorf("%d changes, %d lines", changes.Load(), logs.Len())
	}
}

func decision() *record.Record {
	return &record.Record{
		Daemon: "policyd", Check: "ownership", Verdict: "reject", Reason: record.OwnerNotOwned,
		Action: "553 5.7.1 <ceo@example.com>: Sender address rejected: not owned by user bob", Mode: "enforce",
		Instance: "1b2c.6538f1a2.a3b4c.0", QueueID: "4TQz7k1234z9", ClientAddress: "2001:db8::25", ClientPort: "45678",
		ClientName: "client.example.com", Helo: "client.example.com", Sender: "ceo@example.com",
		Recipient: "someone@example.org", SASLUsername: "bob@example.com", Duration: 123 * time.Microsecond,
	}
}

type nowhere struct{ n int }

func (w *nowhere) Write(p []byte) (int, error) {
	w.n++
	return len(p), nil
}

func TestOneWritePerLine(t *testing.T) {
	var w nowhere
	l := open(t, Options{Err: &w})
	for range 10 {
		decision().Log(l.Logger())
	}
	if w.n != 10 {
		t.Errorf("%d writes for 10 lines", w.n)
	}
}

func BenchmarkDecision(b *testing.B) {
	for _, format := range []string{"json", "console"} {
		b.Run(format, func(b *testing.B) {
			l, err := Open(Options{Err: new(nowhere), Format: format})
			if err != nil {
				b.Fatal(err)
			}
			r := decision()
			b.ReportAllocs()
			for b.Loop() {
				r.Log(l.Logger())
			}
		})
	}
	b.Run("file", func(b *testing.B) {
		l, err := Open(Options{Path: filepath.Join(b.TempDir(), "log")})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		r := decision()
		b.ReportAllocs()
		for b.Loop() {
			r.Log(l.Logger())
		}
	})
}

func BenchmarkStateUnchanged(b *testing.B) {
	s := NewStateLog(zap.NewNop(), "redis", "up")
	b.ReportAllocs()
	for b.Loop() {
		s.Report(zap.WarnLevel, "up")
	}
}
