package logging

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/record"
)

// The bounds of [Recent].
const (
	// RecentRecords is how many records a daemon remembers.
	RecentRecords = 10_000
	// recentBytes bounds their lines. Most have less than 1 kB.
	recentBytes = 16 << 20
	// maxRecentLine bounds one line. Of a longer record only the verdict is kept.
	maxRecentLine = 64 << 10
)

// Recent keeps the lines of the last records in memory, as the log has them at
// --log-format json, whatever the log's own form and level are. It is a
// [record.Sink]. The oldest records make room for new ones.
type Recent struct {
	stamps stamps
	lines  sync.Pool // of *[]byte

	mu          sync.Mutex
	space       []byte // lines, each in one piece
	end         int    // of the newest line in space
	spans       []span // where the lines are: that of number n at n % len
	first, next uint64 // numbers of the oldest line, and of the one to come
	news        chan struct{}
}

// span is the place of a line.
type span struct{ start, end int }

// NewRecent returns an empty memory of RecentRecords.
func NewRecent() *Recent { return newRecent(RecentRecords, recentBytes) }

func newRecent(records, bytes int) *Recent {
	r := &Recent{
		lines: sync.Pool{New: func() any { return new([]byte) }},
		spans: make([]span, records),
		first: 1, next: 1,
	}
	r.space = outsideHeap(r, bytes)
	return r
}

// outsideHeap returns memory that the garbage collector does not see: at the
// daemons' GC percent of 400, each octet of the heap may cost five. Pages take room
// once they are written to. It is released with its owner.
func outsideHeap(owner *Recent, size int) []byte {
	space, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, size)
	}
	runtime.AddCleanup(owner, func(space []byte) { _ = unix.Munmap(space) }, space)
	return space
}

// Record implements [record.Sink].
func (r *Recent) Record(rec *record.Record, at time.Time) {
	line := r.lines.Get().(*[]byte)
	b := jsonForm((*line)[:0], &r.stamps, rec.Level(), at, rec)
	if len(b) > min(maxRecentLine, len(r.space)) {
		short := record.Record{Daemon: rec.Daemon, Check: rec.Check, Verdict: rec.Verdict, Reason: rec.Reason, Mode: rec.Mode, Err: errLongRecord}
		b = jsonForm(b[:0], &r.stamps, short.Level(), at, &short)
	}
	r.add(b[:len(b)-1])
	if cap(b) <= maxRecentLine {
		*line = b
		r.lines.Put(line)
	}
}

var errLongRecord = errors.New("the record is too long to be remembered; read it in the log")

func (r *Recent) add(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next-r.first == uint64(len(r.spans)) {
		r.first++
	}
	r.place(line)
	if r.news != nil {
		close(r.news)
		r.news = nil
	}
}

// place copies a line behind the newest one, or to the start when there is no room
// behind it. What lies there is forgotten.
func (r *Recent) place(line []byte) {
	start := r.end
	if start+len(line) > len(r.space) {
		r.forget(start, len(r.space))
		start = 0
	}
	end := start + copy(r.space[start:], line)
	r.forget(start, end)
	*r.at(r.next) = span{start, end}
	r.next++
	r.end = end
}

// at is the place of a line by its number.
func (r *Recent) at(number uint64) *span { return &r.spans[number%uint64(len(r.spans))] }

// forget drops the oldest lines as long as they lie in a part of space. The newest
// line ends where the part begins, so that the lines in it are the oldest ones.
func (r *Recent) forget(start, end int) {
	for r.first < r.next {
		if old := r.at(r.first); old.start >= end || old.end <= start {
			return
		}
		r.first++
	}
}

// Lines are some of the records of a [Recent].
type Lines struct {
	Lines [][]byte // without line feeds
	Next  uint64   // what to read after
	Lost  uint64   // records that were asked for and are not remembered any more
}

// After returns the records behind a number, 0 for all: as many as have room in
// so many octets, but at least one, if there is any.
func (r *Recent) After(number uint64, room int) Lines {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := Lines{Next: min(number, r.next-1)}
	if number > 0 && out.Next+1 < r.first {
		out.Lost = r.first - 1 - out.Next
	}
	for n := max(out.Next+1, r.first); n < r.next; n++ {
		s := *r.at(n)
		if room -= s.end - s.start; room < 0 && len(out.Lines) > 0 {
			break
		}
		out.Next = n
		out.Lines = append(out.Lines, bytes.Clone(r.space[s.start:s.end]))
	}
	return out
}

// News returns a channel that is closed when there is a record behind a number.
func (r *Recent) News(number uint64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if number < r.next-1 {
		return closed
	}
	if r.news == nil {
		r.news = make(chan struct{})
	}
	return r.news
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()
