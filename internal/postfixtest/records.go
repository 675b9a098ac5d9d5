package postfixtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/record"
)

// Bounds on what is kept of a daemon's log.
const (
	maxLine  = 1 << 20
	maxLines = 100_000 // the oldest are dropped first
)

// Record is a line of a daemon's log.
type Record struct {
	Level        string  `json:"level"`
	Message      string  `json:"msg"`
	Daemon       string  `json:"daemon"`
	Check        string  `json:"check"`
	Verdict      string  `json:"verdict"`
	Reason       string  `json:"reason"`
	Action       string  `json:"action"`
	Mode         string  `json:"mode"`
	Instance     string  `json:"instance"`
	QueueID      string  `json:"queue_id"`
	Client       string  `json:"client_address"`
	ClientPort   string  `json:"client_port"`
	ClientName   string  `json:"client_name"`
	Helo         string  `json:"helo"`
	Sender       string  `json:"sender"`
	Recipient    string  `json:"recipient"`
	SASLUsername string  `json:"sasl_username"`
	DurationMS   float64 `json:"duration_ms"`
	Steps        []Step  `json:"steps"`
	Error        string  `json:"error"`
	Whose        string  `json:"whose"`

	Raw string `json:"-"` // the whole line, for all other keys
}

// Step is one element of a record's steps.
type Step struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Mode    string `json:"mode"`
	Detail  string `json:"detail"`
	Error   string `json:"error"`
}

// Why returns the reason that decided and its detail. If no check objected and none
// passed the request, these are the last check's.
func (r Record) Why() (reason, detail string) {
	i := slices.IndexFunc(r.Steps, func(s Step) bool { return s.Check == r.Check })
	if i < 0 {
		i = len(r.Steps) - 1
	}
	if i < 0 {
		return r.Reason, ""
	}
	return r.Steps[i].Reason, r.Steps[i].Detail
}

// Step returns the step of a check, or the zero value if the check was not asked.
func (r Record) Step(check string) Step {
	for _, s := range r.Steps {
		if s.Check == check {
			return s
		}
	}
	return Step{}
}

// lines collects a log and wakes the goroutines that wait for a line.
type lines struct {
	mu    sync.Mutex
	all   []line
	ended bool
	news  chan struct{} // closed and replaced when a line arrives or the log ends
}

type line struct {
	record Record
	taken  bool // by a WaitRecord
}

func newLines() *lines { return &lines{news: make(chan struct{})} }

func (l *lines) add(text string) {
	r := Record{}
	// Lines that are not JSON, such as a panic, are only in Raw.
	_ = json.Unmarshal([]byte(text), &r)
	r.Raw = text
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == maxLines {
		l.all = slices.Delete(l.all, 0, maxLines/2)
	}
	l.all = append(l.all, line{record: r})
	l.wake()
}

func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
}

func (l *lines) wake() {
	close(l.news)
	l.news = make(chan struct{})
}

// take marks and returns the first line that matches and is not yet taken.
func (l *lines) take(match func(Record) bool) (r Record, ok, ended bool, news <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.all {
		if !l.all[i].taken && match(l.all[i].record) {
			l.all[i].taken = true
			return l.all[i].record, true, false, nil
		}
	}
	return Record{}, false, l.ended, l.news
}

var errLogEnded = errors.New("the daemon ended without it")

func (l *lines) wait(ctx context.Context, match func(Record) bool) (Record, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		r, ok, ended, news := l.take(match)
		if ok {
			return r, nil
		}
		if ended {
			return Record{}, fmt.Errorf("wait for a log line: %w\n%s", errLogEnded, l.tail())
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Record{}, fmt.Errorf("wait for a log line: %w\n%s", context.Cause(ctx), l.tail())
		}
	}
}

func (l *lines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var raw []string
	for _, one := range l.all[max(0, len(l.all)-tailLines):] {
		raw = append(raw, one.record.Raw)
	}
	return strings.Join(raw, "\n")
}

// WaitRecord waits for a decision record that satisfies match, and returns it. It waits
// a minute at most. Each record is returned once, the oldest first, so two equal waits
// are two decisions.
func (d *Daemon) WaitRecord(ctx context.Context, match func(Record) bool) (Record, error) {
	return d.lines.wait(ctx, func(r Record) bool { return r.Message == record.Message && match(r) })
}

// WaitLine is WaitRecord for any line of the log.
func (d *Daemon) WaitLine(ctx context.Context, match func(Record) bool) (Record, error) {
	return d.lines.wait(ctx, match)
}

// Records returns all decision records so far, including those that WaitRecord
// returned.
func (d *Daemon) Records() []Record {
	d.lines.mu.Lock()
	defer d.lines.mu.Unlock()
	var all []Record
	for _, one := range d.lines.all {
		if one.record.Message == record.Message {
			all = append(all, one.record)
		}
	}
	return all
}
