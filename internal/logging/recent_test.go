package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/record"
)

func numbered(n int) *record.Record {
	return &record.Record{Daemon: "policyd", Verdict: "pass", QueueID: fmt.Sprint(n)}
}

// numbers are the records of lines.
func numbers(t *testing.T, lines [][]byte) (all []string) {
	t.Helper()
	for _, line := range lines {
		var r struct {
			QueueID string `json:"queue_id"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r.QueueID)
	}
	return all
}

// The memory has the line of the log, whatever the log itself shows.
func TestRecentHasTheLinesOfTheLog(t *testing.T) {
	var out bytes.Buffer
	l, err := Open(Options{Err: &out})
	if err != nil {
		t.Fatal(err)
	}
	recent := NewRecent()
	sinks := record.Sinks{record.Log{Logger: l.Logger()}, recent}
	at := time.Date(2026, 11, 21, 2, 0, 0, 7e6, time.UTC)
	sinks.Record(&record.Record{Daemon: "policyd", Check: "greylist", Verdict: "defer", Sender: "jürgen@x.example", Steps: []record.Step{{Check: "greylist", Detail: "a\nb"}}}, at)
	sinks.Record(&record.Record{Daemon: "policyd", Err: errors.New("gone")}, at.Add(time.Second))
	l.Logger().Info("not a decision", zap.String("k", "v"))
	want := strings.Join(strings.Split(out.String(), "\n")[:2], "\n")
	if got := string(bytes.Join(recent.After(0, 1<<20).Lines, []byte("\n"))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Whatever the sizes of lines, the remembered records are the newest ones,
// complete and in order.
func TestRecentForgetsTheOldest(t *testing.T) {
	for _, tt := range []struct{ records, bytes int }{{10, 1 << 20}, {1000, 4096}, {8, 2048}, {1, 1024}} {
		r := newRecent(tt.records, tt.bytes)
		for n := range 500 {
			one := numbered(n)
			one.Helo = strings.Repeat("x", n*37%400)
			r.Record(one, time.Unix(0, 0))
			got := r.After(0, 1<<30)
			all := numbers(t, got.Lines)
			if len(all) == 0 || len(all) > tt.records || got.Lost != 0 || got.Next != uint64(n+1) {
				t.Fatalf("%+v: %d lines after %d records, next %d, lost %d", tt, len(all), n+1, got.Next, got.Lost)
			}
			for i, number := range all {
				if want := fmt.Sprint(n - len(all) + 1 + i); number != want {
					t.Fatalf("%+v, after %d records: %q", tt, n+1, all)
				}
			}
			if tt.bytes == 1<<20 && n >= tt.records && len(all) != tt.records {
				t.Fatalf("%d records are remembered, want %d", len(all), tt.records)
			}
		}
	}
}

// Records of a usual length need a part of the room, for ever.
func TestRecentStaysSmall(t *testing.T) {
	r := newRecent(1000, 1<<20)
	most := 0
	for n := range 20_000 {
		one := numbered(n)
		one.Sender = strings.Repeat("x", n%300)
		r.Record(one, time.Unix(0, 0))
		most = max(most, r.end)
		if held := r.next - r.first; n >= 1000 && held != 1000 {
			t.Fatalf("%d records are remembered after %d", held, n)
		}
	}
	if most > 400_000 {
		t.Errorf("%d octets were touched", most)
	}
}

func TestRecentInParts(t *testing.T) {
	r := newRecent(5, 1<<16)
	for n := range 3 {
		r.Record(numbered(n), time.Unix(0, 0))
	}
	first := r.After(0, 1) // room for less than one line: one comes all the same
	rest := r.After(first.Next, 1<<20)
	if got := append(numbers(t, first.Lines), numbers(t, rest.Lines)...); fmt.Sprint(got) != "[0 1 2]" || len(first.Lines) != 1 {
		t.Errorf("got %q, %d of them first", got, len(first.Lines))
	}
	for n := range 7 {
		r.Record(numbered(n+3), time.Unix(0, 0))
	}
	late := r.After(rest.Next, 1<<20)
	if got := numbers(t, late.Lines); fmt.Sprint(got) != "[5 6 7 8 9]" || late.Lost != 2 || late.Next != 10 {
		t.Errorf("got %q, lost %d, next %d", got, late.Lost, late.Next)
	}
	if none := r.After(late.Next, 1<<20); len(none.Lines) != 0 || none.Lost != 0 || none.Next != 10 {
		t.Errorf("got %+v", none)
	}
	if beyond := r.After(1<<40, 1<<20); len(beyond.Lines) != 0 || beyond.Next != 10 {
		t.Errorf("of another daemon's number: %+v", beyond)
	}
	all := func(*record.Record) bool { return true }
	for number, lost := range map[uint64]uint64{0: 0, 3: 2, 5: 0, 10: 0, 1 << 40: 0, math.MaxUint64: 0} {
		if got := r.Match(number, 10, 1<<20, all); got.Lost != lost || got.Next != 10 {
			t.Errorf("matches after %d: %+v, want %d lost", number, got, lost)
		}
	}
}

func TestRecentBoundsALine(t *testing.T) {
	r := NewRecent()
	long := numbered(1)
	long.Check, long.Reason = "greylist", record.GreylistNew
	long.Steps = []record.Step{{Check: "greylist", Detail: strings.Repeat("x", maxRecent)}}
	r.Record(long, time.Unix(0, 0))
	r.Record(numbered(2), time.Unix(0, 0))
	lines := r.After(0, 1<<20).Lines
	if len(lines) != 2 || len(lines[0]) > 500 || !strings.Contains(string(lines[0]), `"check":"greylist","verdict":"pass","reason":"greylist_new"`) || !strings.Contains(string(lines[0]), errLongRecord.Error()) {
		t.Errorf("got %.600q", lines)
	}
}

func TestRecentNews(t *testing.T) {
	r := NewRecent()
	news := []<-chan struct{}{r.News(0), r.News(0)}
	select {
	case <-news[0]:
		t.Fatal("news without a record")
	default:
	}
	r.Record(numbered(1), time.Now())
	for _, c := range append(news, r.News(0)) {
		<-c
	}
	select {
	case <-r.News(1):
		t.Error("news without a second record")
	default:
	}
}

func TestRecentManyAtOnce(t *testing.T) {
	r := newRecent(100, 1<<14)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for n := range 500 {
				r.Record(numbered(w*1000+n), time.Now())
				if n%50 == 0 {
					numbersOf := r.After(0, 1<<20)
					for _, line := range numbersOf.Lines {
						if !json.Valid(line) {
							t.Errorf("not whole: %q", line)
						}
					}
				}
			}
		})
	}
	all.Wait()
	if got := r.After(0, 1<<20); got.Next != 2000 {
		t.Errorf("%d records were counted", got.Next)
	}
}

func BenchmarkRecent(b *testing.B) {
	r := NewRecent()
	one := &record.Record{Daemon: "policyd", Check: "greylist", Verdict: "pass", Reason: record.GreylistKnown, Action: "DUNNO", Mode: "enforce",
		Instance: "1a2b.5f0e.0", ClientAddress: "192.0.2.7", ClientPort: "4711", ClientName: "mx.example.org", Helo: "mx.example.org",
		Sender: "ann@example.org", Recipient: "eve@example.net", Duration: time.Millisecond,
		Steps: []record.Step{{Check: "dnsbl", Verdict: "pass", Reason: record.DNSBLClean}, {Check: "greylist", Verdict: "pass", Reason: record.GreylistKnown, Detail: "key=spf:example.org sender=ann@example.org spf=pass"}}}
	at := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.Record(one, at)
	}
}
