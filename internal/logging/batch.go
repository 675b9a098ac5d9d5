package logging

import (
	"bytes"
	"sync"
	"time"
)

const (
	// maxPending bounds the lines that wait to be written, in octets. A writer
	// that finds more waits, until the running write counts as stuck.
	maxPending = 1 << 20
	// worthWriting is how many octets are written at once, before their time.
	// Waiting for more would only need larger buffers.
	worthWriting = 64 << 10
	// maxKept is the largest buffer that is kept. A kept buffer costs five times
	// its size, because the collector lets the heap grow by a percentage of what
	// is in use.
	maxKept = 2 * worthWriting
	// stuckAfter is how long a write may take before it counts as stuck: a pipe
	// that is not read, a disk that does not answer. From then on lines for which
	// there is no room are dropped, so that mail goes on.
	stuckAfter = 250 * time.Millisecond
	// flushGrace is how long Sync, Reopen and Close wait until earlier lines are
	// written.
	flushGrace = time.Second
)

// batch gathers lines for a short time and writes them together. They are lost if
// the process is killed in that time.
//
// One goroutine writes. The other fields are guarded by mu, which is never held
// during a write. So a write that never ends blocks only that goroutine.
type batch struct {
	out   *sink
	delay time.Duration
	// notice returns the line that reports how many lines were dropped.
	notice func(dropped uint64) []byte

	mu      sync.Mutex
	room    sync.Cond // on mu: pending was taken, or the running write is stuck
	pending []byte
	writing bool   // a write is running
	stuck   bool   // the running write takes too long
	dropped uint64 // lines, since it is stuck
	closed  bool
	left    bool // closed while stuck: later lines are dropped too

	watch *time.Timer // of the running write
	spare []byte      // used only by the goroutine that writes

	begun   chan struct{}      // pending is no longer empty
	full    chan struct{}      // pending has reached worthWriting
	flushes chan chan struct{} // each is closed when what was pending is written
	stop    chan struct{}
	ended   chan struct{}
}

func newBatch(out *sink, delay time.Duration, notice func(dropped uint64) []byte) *batch {
	b := &batch{
		out:     out,
		delay:   delay,
		notice:  notice,
		begun:   make(chan struct{}, 1),
		full:    make(chan struct{}, 1),
		flushes: make(chan chan struct{}),
		stop:    make(chan struct{}),
		ended:   make(chan struct{}),
	}
	b.room.L = &b.mu
	b.watch = time.AfterFunc(stuckAfter, b.checkStuck)
	go b.run()
	return b
}

// Write takes one line. Like the sink's, it always reports success.
func (b *batch) Write(line []byte) (int, error) {
	b.mu.Lock()
	for len(b.pending) > maxPending && !b.closed && !b.stuck {
		b.room.Wait()
	}
	switch {
	case b.left, b.stuck && len(b.pending) > maxPending:
		b.dropped++
		b.mu.Unlock()
		b.out.failures.Add(1)
		return len(line), nil
	case b.closed:
		b.mu.Unlock()
		return b.out.Write(line)
	}
	before := len(b.pending)
	b.pending = append(b.pending, line...)
	after := len(b.pending)
	b.mu.Unlock()
	if before == 0 {
		signal(b.begun)
	}
	if before <= worthWriting && after > worthWriting {
		signal(b.full)
	}
	return len(line), nil
}

// signal puts a token into c, unless one is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run writes until close.
func (b *batch) run() {
	defer close(b.ended)
	timer := time.NewTimer(b.delay)
	defer timer.Stop()
	for {
		select {
		case <-b.begun:
		case done := <-b.flushes:
			b.write()
			close(done)
			continue
		case <-b.stop:
			b.write()
			return
		}
		timer.Reset(b.delay)
		select {
		case <-timer.C:
			b.write()
		case <-b.full:
			b.write()
		case done := <-b.flushes:
			b.write()
			close(done)
		case <-b.stop:
			b.write()
			return
		}
	}
}

// write writes what is pending. After a write that was stuck it also writes how
// many lines were dropped.
func (b *batch) write() {
	b.mu.Lock()
	lines := b.pending
	b.pending = b.spare[:0]
	b.writing = len(lines) > 0
	b.mu.Unlock()
	b.room.Broadcast()
	b.spare = nil
	if cap(lines) <= maxKept {
		b.spare = lines
	}
	if len(lines) == 0 {
		return
	}
	b.watch.Reset(stuckAfter)
	_, _ = b.out.Write(lines)
	b.watch.Stop()

	b.mu.Lock()
	defer b.mu.Unlock()
	b.writing, b.stuck = false, false
	if b.dropped > 0 {
		b.pending = append(b.pending, b.notice(b.dropped)...)
		b.dropped = 0
		signal(b.begun)
	}
}

// checkStuck runs when a write has taken too long.
func (b *batch) checkStuck() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writing {
		b.stuck = true
		b.room.Broadcast()
	}
}

// blocked reports whether the running write is stuck.
func (b *batch) blocked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stuck
}

// flush waits until pending lines are written, at most for flushGrace.
func (b *batch) flush() {
	timer := time.NewTimer(flushGrace)
	defer timer.Stop()
	done := make(chan struct{})
	select {
	case b.flushes <- done:
	case <-b.ended:
		return
	case <-timer.C:
		return
	}
	select {
	case <-done:
	case <-timer.C:
	}
}

// Sync writes what is pending and waits for the disk.
func (b *batch) Sync() error {
	b.flush()
	if b.blocked() {
		return errBlocked
	}
	return b.out.Sync()
}

// close writes pending lines. Later lines go straight to the sink. When the log
// is stuck, close gives up after flushGrace, counts the lines that are lost and
// returns false.
func (b *batch) close() bool {
	b.mu.Lock()
	closed := b.closed
	b.closed = true
	b.mu.Unlock()
	b.room.Broadcast()
	if closed {
		return !b.blocked()
	}
	close(b.stop)
	timer := time.NewTimer(flushGrace)
	defer timer.Stop()
	select {
	case <-b.ended:
		return true
	case <-timer.C:
		b.leave()
		return false
	}
}

// leave abandons the goroutine that is stuck in its write. That goroutine ends
// when the write or the process ends.
func (b *batch) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	if len(b.pending) > 0 {
		b.out.failures.Add(countLines(b.pending))
		b.pending = nil
	}
}

// countLines returns how many lines are lost when a write fails.
func countLines(lines []byte) uint64 {
	return uint64(max(1, bytes.Count(lines, []byte("\n"))))
}
