package logging

import (
	"bytes"
	"sync"
	"time"
)

// maxPending bounds the lines that wait to be written, in octets. A writer
// that finds more there waits: lines are never dropped.
const maxPending = 256 << 10

// batch gathers lines for a short time and hands them on in one write. The
// process that is killed in that time loses them.
type batch struct {
	out   *sink
	delay time.Duration

	mu      sync.Mutex
	room    sync.Cond // on mu: pending was taken
	pending []byte
	closed  bool

	writing sync.Mutex // held while lines are written, so that they keep their order
	spare   []byte     // of writing

	begun chan struct{} // pending is no longer empty
	full  chan struct{} // pending is worth a write of its own
	stop  chan struct{}
	ended chan struct{}
}

func newBatch(out *sink, delay time.Duration) *batch {
	b := &batch{
		out:   out,
		delay: delay,
		begun: make(chan struct{}, 1),
		full:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		ended: make(chan struct{}),
	}
	b.room.L = &b.mu
	go b.run()
	return b
}

// Write takes one line. Like the sink's, it always reports success.
func (b *batch) Write(line []byte) (int, error) {
	b.mu.Lock()
	for len(b.pending) > maxPending && !b.closed {
		b.room.Wait()
	}
	if b.closed {
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
	if before <= maxPending/2 && after > maxPending/2 {
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
		case <-b.stop:
			return
		}
		timer.Reset(b.delay)
		select {
		case <-timer.C:
		case <-b.full:
		case <-b.stop:
			return
		}
		b.flush()
	}
}

// flush writes what is pending.
func (b *batch) flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	lines := b.pending
	b.pending = b.spare[:0]
	b.mu.Unlock()
	b.room.Broadcast()
	if len(lines) > 0 {
		_, _ = b.out.Write(lines)
	}
	b.spare = lines
}

// Sync writes what is pending and waits for the disk.
func (b *batch) Sync() error {
	b.flush()
	return b.out.Sync()
}

// close writes what is pending. What comes later goes straight to the sink.
func (b *batch) close() {
	b.mu.Lock()
	closed := b.closed
	b.closed = true
	b.mu.Unlock()
	if closed {
		return
	}
	close(b.stop)
	<-b.ended
	b.flush()
}

// countLines counts what is lost when a write fails.
func countLines(lines []byte) uint64 {
	return uint64(max(1, bytes.Count(lines, []byte("\n"))))
}
