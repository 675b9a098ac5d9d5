package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendLean sends the load to a unix socket, with a new request each time. One thread
// serves all connections with epoll(7). This costs a third of send, so that the client
// is not measured when client, daemon and a store's server share the machine. sendLean
// also returns the total time.
func (l load) sendLean(ctx context.Context, path string) (latencies, map[string]int, time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(poll)
	run := leanRun{took: make(latencies, 0, l.requests), actions: map[string]*int{}, every: l.every}
	conns := make([]*leanConn, l.conns)
	for i := range conns {
		c, err := l.dialLean(poll, path, i)
		if err != nil {
			return nil, nil, 0, err
		}
		defer unix.Close(c.fd)
		conns[i] = c
	}
	if l.every > 0 {
		if run.clock, err = clockOf(poll, l.every); err != nil {
			return nil, nil, 0, err
		}
		defer unix.Close(run.clock)
	}
	runtime.GC() // collects the garbage of making the requests before the clock starts
	start := time.Now()
	run.due, run.idle = start, slices.Clone(conns)
	if err := run.sendDue(); err != nil {
		return nil, nil, 0, err
	}
	err = run.wait(ctx, poll, conns)
	wall := time.Since(start)
	slices.Sort(run.took)
	actions := map[string]int{}
	for word, n := range run.actions {
		actions[word] = *n
	}
	return run.took, actions, wall, err
}

// leanRun holds the results of all connections.
type leanRun struct {
	took    latencies
	actions map[string]*int
	every   time.Duration // see load
	clock   int           // see clockOf, if every is set
	due     time.Time     // when the next request is due, if every is set
	idle    []*leanConn   // have no request under way, but one to send
}

// leanConn is one connection. It has one request under way at a time.
type leanConn struct {
	fd       int
	requests [][]byte
	next     int // request
	sent     time.Time
	reply    []byte
	buffer   [4096]byte
}

func (l load) dialLean(poll int, path string, index int) (*leanConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &leanConn{fd: fd, requests: make([][]byte, l.requests/l.conns)}
	for i := range c.requests {
		c.requests[i] = l.request(index, i)
	}
	err = errors.Join(
		unix.Connect(fd, &unix.SockaddrUnix{Name: path}),
		unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(index)}))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), unix.Close(fd))
	}
	return c, nil
}

// wait serves the connections until all have their replies.
func (r *leanRun) wait(ctx context.Context, poll int, conns []*leanConn) error {
	events := make([]unix.EpollEvent, len(conns)+1)
	for open := len(conns); open > 0; {
		n, err := epollWait(poll, events)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("epoll_wait: %w", err)
		case n == 0:
			return fmt.Errorf("no reply within %s", replyTimeout)
		}
		for _, e := range events[:n] {
			if e.Fd == clockEvent {
				var ticks [8]byte
				if _, err := transfer(unix.SYS_READ, r.clock, ticks[:]); err != nil { // it goes on when it was read
					return fmt.Errorf("timerfd: %w", err)
				}
				continue
			}
			done, err := r.serve(conns[e.Fd])
			if err != nil {
				return err
			}
			if done {
				open--
			}
		}
		if err := r.sendDue(); err != nil {
			return err
		}
	}
	return nil
}

// sendDue sends a request on each idle connection, as far as requests are due. The time of
// a request that is late counts from when it was due.
func (r *leanRun) sendDue() error {
	now := time.Now()
	for len(r.idle) > 0 && (r.every == 0 || !r.due.After(now)) {
		c := r.idle[len(r.idle)-1]
		r.idle = r.idle[:len(r.idle)-1]
		c.sent = now
		if r.every > 0 {
			c.sent, r.due = r.due, r.due.Add(r.every)
		}
		if err := c.write(); err != nil {
			return err
		}
	}
	return nil
}

// clockEvent stands for clockOf in events.
const clockEvent = -1

// clockOf adds a clock to poll that ticks at an interval.
func clockOf(poll int, every time.Duration) (int, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("timerfd_create: %w", err)
	}
	tick := unix.NsecToTimespec(every.Nanoseconds())
	err = errors.Join(
		unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Interval: tick, Value: tick}, nil),
		unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: clockEvent}))
	if err != nil {
		return -1, errors.Join(fmt.Errorf("timerfd: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// These calls do not inform Go's scheduler that they may block. Otherwise the scheduler
// would move this thread's work, which it does not have, to another thread.

func epollWait(poll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(poll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(replyTimeout.Milliseconds()), 0, 0)
	return int(n), failure(errno)
}

func transfer(call uintptr, fd int, octets []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&octets[0])), uintptr(len(octets)))
	return int(n), failure(errno)
}

func failure(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

// serve reads the available input and sends the next request after a complete reply.
func (r *leanRun) serve(c *leanConn) (done bool, err error) {
	n, err := transfer(unix.SYS_READ, c.fd, c.buffer[:])
	if err != nil || n == 0 {
		return false, fmt.Errorf("reply %d: read of %d octets: %w", c.next, n, err)
	}
	c.reply = append(c.reply, c.buffer[:n]...)
	if !bytes.HasSuffix(c.reply, []byte("\n\n")) {
		return false, nil
	}
	r.took = append(r.took, time.Since(c.sent))
	word, _, _ := bytes.Cut(bytes.TrimSpace(c.reply[len("action="):]), []byte(" "))
	r.count(word)
	c.reply = c.reply[:0]
	if c.next == len(c.requests) {
		return true, nil
	}
	r.idle = append(r.idle, c)
	return false, nil
}

// count counts a word, and allocates a string only for a new one.
func (r *leanRun) count(word []byte) {
	n, known := r.actions[string(word)]
	if !known {
		n = new(int)
		r.actions[string(word)] = n
	}
	*n++
}

func (c *leanConn) write() error {
	request := c.requests[c.next]
	c.next++
	n, err := transfer(unix.SYS_WRITE, c.fd, request)
	if err == nil && n < len(request) {
		err = errors.New("the socket took a part only")
	}
	if err != nil {
		return fmt.Errorf("request %d: %w", c.next, err)
	}
	return nil
}
