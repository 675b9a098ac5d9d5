package logging

import (
	"bytes"
	"sync"
	"time"
)

const (
	// maxPending bounds the lines that wait to be written, in octets. A writer
	// that finds more there waits, until the write under way counts as stuck.
	maxPending = 1 << 20
	// worthWriting is how many octets are written before their time: more would
	// only need larger buffers.
	worthWriting = 64 << 10
	// maxKept is the largest buffer that is kept. What is kept costs five times its
	// size, since the collector lets the heap grow by its percentage of what lives.
	maxKept = 2 * worthWriting
	// stuckAfter is how long a write may take before it counts as stuck: a pipe
	// that is not read, a disk that does not answer. From then on lines that
	// find no room are dropped, and mail goes on.
	stuckAfter = 250 * time.Millisecond
	// flushGrace is how long Sync, Reopen and Close wait for the lines before.
	flushGrace = time.Second
)

// batch gathers lines for a short time and hands them on in one write. The
// process that is killed in that time loses them.
//
// One goroutine writes. Everything else that it holds is behind mu, which no
// one holds while writing: a write that never ends blocks that goroutine alone.
type batch struct {
	out   *sink
	delay time.Duration
	// notice makes the line that reports how many lines were dropped.
	notice func(dropped uint64) []byte

	mu      sync.Mutex
	room    sync.Cond // on mu: pending was taken, or the write under way is stuck
	pending []byte
	writing bool   // a write is under way
	stuck   bool   // and takes too long
	dropped uint64 // lines, since it is stuck
	closed  bool
	left    bool // closed while stuck: later lines are dropped too

	watch *time.Timer // of the write under way
	spare []byte      // of the goroutine that writes

	begun   chan struct{}      // pending is no longer empty
	full    chan struct{}      // pending is worth a write of its own
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

// signal leaves one token in c, however often it is called.
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

// blocked reports whether the write under way is stuck.
func (b *batch) blocked() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stuck
}

// flush has what is pending written, and waits for that, at most flushGrace.
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

// close writes what is pending. What comes later goes straight to the sink. When
// the log is stuck, close gives up after flushGrace, counts what it leaves and
// reports false.
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

// leave gives up on the goroutine that is stuck in its write. It ends with that
// write, or with the process.
func (b *batch) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = true
	if len(b.pending) > 0 {
		b.out.failures.Add(countLines(b.pending))
		b.pending = nil
	}
}

// countLines counts what is lost when a write fails.
func countLines(lines []byte) uint64 {
	return uint64(max(1, bytes.Count(lines, []byte("\n"))))
}
