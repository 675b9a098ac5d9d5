package logging

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/record"
)

// countingWriter counts writes; hold keeps one back.
type countingWriter struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
	hold   chan struct{}
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.hold != nil {
		<-w.hold
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.text.Write(p)
}

func (w *countingWriter) state() (text string, writes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String(), w.writes
}

func openBatched(t *testing.T, w *countingWriter) *Log {
	t.Helper()
	l, err := Open(Options{Err: w, Batch: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBatchIsOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWriter{}
		l := openBatched(t, w)
		for range 100 {
			l.Logger().Info("x")
		}
		synctest.Wait()
		if text, _ := w.state(); text != "" {
			t.Errorf("written at once: %q", text)
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if text, writes := w.state(); writes != 1 || strings.Count(text, "\n") != 100 {
			t.Errorf("%d lines in %d writes", strings.Count(text, "\n"), writes)
		}
		time.Sleep(time.Hour)
		l.Logger().Info("y")
		time.Sleep(11 * time.Millisecond)
		synctest.Wait()
		if _, writes := w.state(); writes != 2 {
			t.Errorf("%d writes after the second batch", writes)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestBatchSyncAndCloseWriteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWriter{}
		l := openBatched(t, w)
		l.Logger().Info("x")
		if err := l.Logger().Sync(); err != nil {
			t.Error(err)
		}
		if text, _ := w.state(); strings.Count(text, "\n") != 1 {
			t.Errorf("after Sync: %q", text)
		}
		l.Logger().Info("y")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if text, _ := w.state(); strings.Count(text, "\n") != 2 {
			t.Errorf("after Close: %q", text)
		}
		l.Logger().Info("z")
		if text, _ := w.state(); strings.Count(text, "\n") != 3 {
			t.Errorf("after a line behind Close: %q", text)
		}
	})
}

// A reader that has stopped holds writers up once, and only for a moment. What
// finds no room then is dropped and counted, and a line says so afterwards.
func TestBatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWriter{hold: make(chan struct{})}
		l := openBatched(t, w)
		line := strings.Repeat("x", 1000)
		const writers, each = 8, 400
		begun := time.Now()
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for range each {
					l.Logger().Info(line)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > 2*stuckAfter {
			t.Errorf("writers were held up for %v", took)
		}
		b := l.batch
		b.mu.Lock()
		pending := len(b.pending)
		b.mu.Unlock()
		if pending > maxPending+2*len(line) {
			t.Errorf("%d octets wait", pending)
		}
		if !l.Blocked() {
			t.Error("the log does not count as blocked")
		}
		if err := l.Logger().Sync(); err == nil {
			t.Error("Sync of a blocked log succeeds")
		}
		close(w.hold)
		time.Sleep(time.Second)
		synctest.Wait()
		if l.Blocked() {
			t.Error("the log still counts as blocked")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		text, _ := w.state()
		lost := l.Failures()
		if written := uint64(strings.Count(text, line)); written+lost != writers*each || lost == 0 {
			t.Errorf("%d lines written and %d lost of %d", written, lost, writers*each)
		}
		if notice := fmt.Sprintf(`lines were dropped; check whatever reads the log","dropped":%d}`, lost); strings.Count(text, notice) != 1 {
			t.Errorf("no line says %s", notice)
		}
	})
}

// A slow writer is waited for: nothing is lost.
func TestBatchWaitsForASlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{every: stuckAfter / 2}
		l, err := Open(Options{Err: w, Batch: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Repeat("x", 1000)
		const lines = 5 * maxPending / 1000
		for range lines {
			l.Logger().Info(line)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if w.lines != lines || l.Failures() != 0 {
			t.Errorf("%d lines of %d, %d lost", w.lines, lines, l.Failures())
		}
	})
}

// slowWriter takes a while for each write.
type slowWriter struct {
	every time.Duration
	lines int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(w.every)
	w.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

// Closing and reopening a log that is blocked ends, and what it leaves is counted.
func TestCloseWhileBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWriter{hold: make(chan struct{})}
		l := openBatched(t, w)
		l.Logger().Info("in the write that is stuck")
		time.Sleep(stuckAfter)
		l.Logger().Info("behind it")
		l.Logger().Info("behind it too")
		begun := time.Now()
		if err := l.Reopen(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); !errors.Is(err, errBlocked) {
			t.Errorf("closed with %v", err)
		}
		l.Logger().Info("after it")
		if took := time.Since(begun); took > 2*flushGrace {
			t.Errorf("ended after %v", took)
		}
		if lost := l.Failures(); lost != 3 {
			t.Errorf("%d lines lost", lost)
		}
		close(w.hold)
		synctest.Wait()
	})
}

// Lines of one writer stay in their order.
func TestBatchKeepsOrder(t *testing.T) {
	w := &countingWriter{}
	l := openBatched(t, w)
	const writers, each = 4, 2000
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for i := range each {
				l.Logger().Info(fmt.Sprintf("%d:%d", n, i))
				if i%500 == 0 {
					_ = l.Logger().Sync()
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text, _ := w.state()
	for n := range writers {
		next := 0
		for line := range strings.Lines(text) {
			var from, i int
			_, rest, _ := strings.Cut(line, `"msg":"`)
			if _, err := fmt.Sscanf(rest, "%d:%d", &from, &i); err != nil {
				t.Fatalf("torn line %q", line)
			}
			if from == n {
				if i != next {
					t.Fatalf("writer %d: line %d after %d", n, i, next-1)
				}
				next++
			}
		}
		if next != each {
			t.Errorf("writer %d: %d lines", n, next)
		}
	}
}

// fixed is a clock that does not move.
type fixed time.Time

func (f fixed) Now() time.Time                       { return time.Time(f) }
func (fixed) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

func TestTimeEncoder(t *testing.T) {
	var stamps stamps
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Date(2026, 11, 21, 23, 59, 59, 999_999_999, time.FixedZone("x", 3600)),
		time.Date(2026, 11, 21, 7, 8, 9, 5_000_000, time.UTC), time.Date(2026, 11, 21, 7, 8, 9, 50_000_000, time.UTC),
	} {
		var w bytes.Buffer
		l := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{TimeKey: "ts", EncodeTime: stamps.encode}), zapcore.AddSync(&w), zapcore.InfoLevel), zap.WithClock(fixed(at)))
		for range 2 { // made, then remembered
			w.Reset()
			l.Info("")
			if want := at.UTC().Format(`{"ts":"2006-01-02T15:04:05.000Z07:00"}`); strings.TrimSpace(w.String()) != want {
				t.Errorf("%s, want %s", w.String(), want)
			}
		}
	}
}

// The short way for records writes the very line that zap would.
func TestRecordLine(t *testing.T) {
	r := &record.Record{Daemon: "policyd", Sender: "a\"b\x00@x", Steps: []record.Step{{Check: "c", Verdict: "pass"}}, Err: errors.New("x")}
	var short, long bytes.Buffer
	at := time.Unix(1000, 0)
	open := func(w *bytes.Buffer) *zap.Logger {
		l, err := Open(Options{Err: w})
		if err != nil {
			t.Fatal(err)
		}
		return l.Logger().WithOptions(zap.WithClock(fixed(at)))
	}
	r.LogAt(open(&short), at)
	open(&long).Log(zapcore.WarnLevel, record.Message, zap.Inline(justMarshaler{r}))
	if short.String() != long.String() || short.Len() == 0 {
		t.Errorf("\n got %s\nwant %s", short.String(), long.String())
	}
}

// justMarshaler hides AppendJSON.
type justMarshaler struct{ r *record.Record }

func (j justMarshaler) MarshalLogObject(e zapcore.ObjectEncoder) error {
	return j.r.MarshalLogObject(e)
}

// What the short way does not know takes the long one: names, fields, levels.
func TestRecordsOfOtherLoggers(t *testing.T) {
	var w bytes.Buffer
	l, err := Open(Options{Err: &w, Level: "warn"})
	if err != nil {
		t.Fatal(err)
	}
	quiet, loud := &record.Record{Daemon: "quiet"}, &record.Record{Daemon: "loud", Err: errors.New("x")}
	for _, tt := range []struct {
		logger *zap.Logger
		has    string
	}{
		{l.Logger(), `"msg":"decision","daemon":"loud"`},
		{l.Logger().With(zap.Int("n", 7)), `"n":7`},
		{l.Logger().Named("part"), `"logger":"part"`},
	} {
		w.Reset()
		quiet.Log(tt.logger)
		loud.Log(tt.logger)
		line := w.String()
		if strings.Count(line, "\n") != 1 || !strings.Contains(line, tt.has) || strings.Contains(line, "quiet") {
			t.Errorf("%q, want one line with %s", line, tt.has)
		}
	}
}
