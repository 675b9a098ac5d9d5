package logging

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/record"
)

// The bounds of [Recent].
const (
	// RecentRecords is how many records a daemon remembers.
	RecentRecords = 10_000
	// recentBytes bounds their compact forms. Most have 300 to 500 octets.
	recentBytes = 16 << 20
	// maxRecent bounds one record. Of a longer one only the verdict is kept.
	maxRecent = 64 << 10
)

// Recent keeps the last records in memory, and returns them as lines in the form
// of --log-format json, whatever the form and the level of the log are. It is a
// [record.Sink]. The oldest records make room for new ones.
type Recent struct {
	stamps stamps
	forms  sync.Pool // of *[]byte

	mu          sync.Mutex
	space       []byte // compact records, each after its time and in one piece
	end         int    // of the newest one in space
	spans       []span // where the records are: number n at index n % len
	first, next uint64 // numbers of the oldest record and of the next one
	news        chan struct{}
}

// span is the place of a record.
type span struct{ start, end uint32 }

// NewRecent returns an empty memory of RecentRecords.
func NewRecent() *Recent { return newRecent(RecentRecords, recentBytes) }

func newRecent(records, bytes int) *Recent {
	r := &Recent{
		forms: sync.Pool{New: func() any { return new([]byte) }},
		spans: make([]span, records),
		first: 1, next: 1,
	}
	r.space = outsideHeap(r, bytes)
	return r
}

// outsideHeap returns memory outside the heap of the garbage collector, because
// with the daemons' GC percent of 400 each octet of the heap may cost five. A
// page needs memory only once it is written to. The memory is released with its
// owner.
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
	form := r.forms.Get().(*[]byte)
	stamped := binary.LittleEndian.AppendUint64((*form)[:0], uint64(at.UnixNano()))
	b := rec.AppendCompact(stamped)
	if len(b) > min(maxRecent, len(r.space)) {
		short := record.Record{Daemon: rec.Daemon, Check: rec.Check, Verdict: rec.Verdict, Reason: rec.Reason, Mode: rec.Mode, Err: errLongRecord}
		b = short.AppendCompact(stamped)
	}
	r.remember(b)
	if cap(b) <= maxRecent {
		*form = b
		r.forms.Put(form)
	}
}

// line returns the line of a record, without its line feed.
func (r *Recent) line(b []byte) []byte { return r.lineOf(b, record.ParseCompact(b[8:])) }

// lineOf is line for a record that was parsed.
func (r *Recent) lineOf(b []byte, rec *record.Record) []byte {
	line := jsonForm(nil, &r.stamps, rec.Level(), time.Unix(0, int64(binary.LittleEndian.Uint64(b))), rec)
	return line[:len(line)-1]
}

var errLongRecord = errors.New("the record is too long to be remembered; read it in the log")

func (r *Recent) remember(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	full := r.next-r.first == uint64(len(r.spans))
	if full {
		r.first++
	}
	r.place(b, full)
	if r.news != nil {
		close(r.news)
		r.news = nil
	}
}

// place copies a record after the newest one, or to the start when there is no
// room after it. Old records at that place are dropped. When the number of
// records is at its limit, the start is used as soon as it is free, with some
// room for longer records. So no more memory is touched than the records need.
func (r *Recent) place(b []byte, full bool) {
	start := r.end
	switch {
	case start+len(b) > len(r.space):
		r.forget(start, len(r.space))
		start = 0
	case full && r.first < r.next:
		if free := int(r.at(r.first).start); free < start && free >= max(maxRecent, start/8) {
			start = 0
		}
	}
	end := start + copy(r.space[start:], b)
	r.forget(start, end)
	*r.at(r.next) = span{uint32(start), uint32(end)}
	r.next++
	r.end = end
}

// at returns the place of a record by its number.
func (r *Recent) at(number uint64) *span { return &r.spans[number%uint64(len(r.spans))] }

// forget drops the oldest records as long as they are in a part of space. The
// newest record ends where the part begins, so the records in the part are the
// oldest ones.
func (r *Recent) forget(start, end int) {
	for r.first < r.next {
		if old := r.at(r.first); int(old.start) >= end || int(old.end) <= start {
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

// After returns the records after a number, 0 for all. Their lines have at most
// room octets, but it returns at least one record, if there is any.
func (r *Recent) After(number uint64, room int) Lines {
	forms, out := r.after(number, room)
	for i, b := range forms {
		line := r.line(b)
		if room -= len(line); room < 0 && i > 0 {
			out.Next -= uint64(len(forms) - i)
			break
		}
		out.Lines = append(out.Lines, line)
	}
	return out
}

// after copies the compact records after a number, as many as have room: their
// lines are longer. It only copies, so that lines are made later, without the
// lock for which decisions wait.
func (r *Recent) after(number uint64, room int) (forms [][]byte, out Lines) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out = Lines{Next: min(number, r.next-1), Lost: r.lost(number)}
	for n := max(out.Next+1, r.first); n < r.next; n++ {
		form := r.form(n)
		if room -= len(form); room < 0 && len(forms) > 0 {
			break
		}
		out.Next = n
		forms = append(forms, bytes.Clone(form))
	}
	return forms, out
}

// lost returns how many records after a number, 0 for none in particular, are not
// remembered any more.
func (r *Recent) lost(number uint64) uint64 {
	if number == 0 || number >= r.first {
		return 0
	}
	return r.first - 1 - number
}

// form returns the compact record of a number, which is valid as long as the lock
// is held.
func (r *Recent) form(number uint64) []byte {
	s := r.at(number)
	return r.space[s.start:s.end]
}

// matchBatch is how many records are copied at a time during a search.
const matchBatch = 256

// Match returns the newest records after a number that pick accepts, the oldest
// of them first: at most so many, and about as many as have room in so many
// octets. pick may change its record; the line shows the changed record. Next is
// the number of the newest record, accepted or not.
func (r *Recent) Match(number uint64, most, room int, pick func(*record.Record) bool) Lines {
	out := r.newest(number)
	for end := out.Next; end > number && len(out.Lines) < most && room > 0; {
		forms := r.before(number, end)
		for _, b := range slices.Backward(forms) {
			rec := record.ParseCompact(b[8:])
			if !pick(rec) {
				continue
			}
			line := r.lineOf(b, rec)
			out.Lines = append(out.Lines, line)
			if room -= len(line); room <= 0 || len(out.Lines) == most {
				break
			}
		}
		if len(forms) == 0 {
			break
		}
		end -= uint64(len(forms))
	}
	slices.Reverse(out.Lines)
	return out
}

// newest returns the number of the newest record, and how many records after a
// number are lost.
func (r *Recent) newest(number uint64) Lines {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Lines{Next: r.next - 1, Lost: r.lost(number)}
}

// before copies the last records after one number, up to another one.
func (r *Recent) before(number, end uint64) (forms [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end < r.first {
		return nil
	}
	start := max(number+1, r.first)
	if end-start >= matchBatch {
		start = end - matchBatch + 1
	}
	for n := start; n <= end; n++ {
		forms = append(forms, bytes.Clone(r.form(n)))
	}
	return forms
}

// News returns a channel that is closed when there is a record after a number.
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
