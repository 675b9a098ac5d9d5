package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// DefaultMaxConns is far above what Postfix keeps open with its default
	// process limit of 100 a service, and enough for ten services of 200.
	DefaultMaxConns = 2000

	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
	// cutGrace is how long handlers have to return once their connection is cut.
	cutGrace = 2 * time.Second
	// remindEvery is the shortest time between two reports of a state that lasts.
	remindEvery = time.Minute
)

// ErrHandlersStuck is the error of [Serve] when handlers did not return after
// their connections were cut.
var ErrHandlersStuck = errors.New("handlers did not end")

// ServeOptions are the settings of [Serve].
type ServeOptions struct {
	// Handler owns the connection until it returns. The connection is closed
	// then, also after a panic. ctx ends when the connection is cut, not when
	// draining begins, so that the current request is finished; see [Conn.Idle]
	// and [Conn.Draining].
	Handler func(ctx context.Context, conn *Conn)
	// MaxConns is the highest number of handlers that run at once, over all
	// listeners; 0 means DefaultMaxConns. WhenFull is what happens above it.
	MaxConns int
	// MaxHostConns is the highest number of handlers for one other host; 0 means
	// no bound. Above it a connection is closed: an idle one of that host if
	// WhenFull is CloseIdle, else the new one.
	MaxHostConns int
	WhenFull     WhenFull
	// Overflow counts connections closed because of the bounds; it may be nil.
	Overflow *Overflow
	// Linger is called when no connections are accepted any more. Draining begins
	// when its channel is closed, or when the last connection has ended. With a
	// nil function or channel, draining begins at once.
	Linger func() <-chan struct{}
	// DrainTimeout is how long connections may go on once draining began.
	// Then they are cut; 0 cuts them at once.
	DrainTimeout time.Duration
	// Report receives problems for the log; it may be nil. Several goroutines
	// call it at once.
	Report func(Event)
}

// Serve accepts on all listeners until ctx is done, then drains: it closes the
// listeners, lingers, closes every idle connection, and waits until the other
// handlers return or DrainTimeout cuts their connections. No handler runs any
// more when it returns nil. Errors of Accept never end it, except when something
// else closed a listener: Serve then drains and returns that error.
func Serve(ctx context.Context, listeners []Listener, o ServeOptions) error {
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	if o.Overflow == nil {
		o.Overflow = new(Overflow)
	}
	s := newServer(o)
	// Connections go on when ctx ends, until they are cut.
	life, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()

	var accepting sync.WaitGroup
	broken := make(chan error, len(listeners))
	for _, l := range listeners {
		accepting.Go(func() {
			if err := s.accept(life, l); err != nil {
				broken <- err
			}
		})
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-broken:
	}
	s.stopAccepting(listeners)
	accepting.Wait()
	s.linger()
	return errors.Join(err, s.drain(cut))
}

// server is the state of one Serve.
type server struct {
	o        ServeOptions
	stopped  chan struct{} // closed when nothing is to be accepted any more
	draining chan struct{} // closed when draining begins
	empty    chan struct{} // closed when draining and the last handler ended
	room                   // its connections
}

func newServer(o ServeOptions) *server {
	s := &server{o: o, stopped: make(chan struct{}), draining: make(chan struct{}), empty: make(chan struct{})}
	s.conns = make(map[*Conn]struct{})
	s.hosts = make(map[netip.Addr]int)
	s.freed.L = &s.mu
	return s
}

// accept serves one listener. At most one connection a listener waits accepted,
// the others in the backlog.
func (s *server) accept(life context.Context, l Listener) error {
	var trouble backoff
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			if trouble.over() {
				s.o.Report(Event{Kind: AcceptRecovered, Socket: l.Socket})
			}
		case s.isStopped():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("%s %s: %w", l.Socket.Flag, l.Socket.Endpoint, err)
		default:
			s.pause(&trouble, l, err)
			continue
		}
		c := &Conn{Conn: conn, Socket: l.Socket, draining: s.draining, room: &s.room, host: s.hostOf(conn)}
		c.state.Store(connNew)
		c.since.Store(int64(time.Since(begun)))
		if s.admit(c) {
			s.start(life, c)
		} else {
			_ = conn.Close()
		}
	}
}

// pause waits a little before the next Accept. The usual error is too many open
// files, which passes when connections end.
func (s *server) pause(trouble *backoff, l Listener, err error) {
	wait, tell := trouble.next(time.Now())
	if tell {
		s.o.Report(Event{Kind: AcceptFailing, Socket: l.Socket, Err: err})
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stopped:
	}
}

func (s *server) start(life context.Context, c *Conn) {
	go func() { // ends with the handler; drain waits for it
		defer s.finish(c)
		ctx, cancel := context.WithCancel(life)
		defer cancel()
		s.handle(ctx, c)
	}()
}

func (s *server) handle(ctx context.Context, c *Conn) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Report(Event{
				Kind: HandlerPanicked, Socket: c.Socket, Remote: c.RemoteAddr(),
				Err: fmt.Errorf("panic: %v", p), Stack: debug.Stack(),
			})
		}
	}()
	s.o.Handler(ctx, c)
}

func (s *server) finish(c *Conn) {
	_ = c.Close() // most handlers have closed it already
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(c)
	if s.last && len(s.conns) == 0 {
		close(s.empty)
	}
}

func (s *server) isStopped() bool {
	select {
	case <-s.stopped:
		return true
	default:
		return false
	}
}

func (s *server) stopAccepting(listeners []Listener) {
	close(s.stopped)
	s.wake()
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.o.Report(Event{Kind: CloseFailed, Socket: l.Socket, Err: err})
		}
	}
}

// linger waits as [ServeOptions.Linger] has it, after the last connection was
// added.
func (s *server) linger() {
	if s.o.Linger == nil {
		return
	}
	if until := s.o.Linger(); until != nil {
		s.open()
		select {
		case <-until:
		case <-s.empty:
		}
	}
}

// drain ends the connections that are left.
func (s *server) drain(cut context.CancelFunc) error {
	close(s.draining)
	for _, c := range s.open() {
		c.closeIfIdle()
	}
	if s.ended(s.o.DrainTimeout) {
		return nil
	}
	left := s.open()
	s.o.Report(Event{Kind: DrainTimedOut, Conns: len(left)})
	cut()
	for _, c := range left {
		_ = c.Close()
	}
	if s.ended(cutGrace) {
		return nil
	}
	return fmt.Errorf("%w: %d, %v after their connections were cut", ErrHandlersStuck, len(s.open()), cutGrace)
}

// open returns all connections with a running handler. After the first call no
// connection is added any more.
func (s *server) open() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last {
		s.last = true
		if len(s.conns) == 0 {
			close(s.empty)
		}
	}
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// ended waits for the last handler, at most for limit, and reports whether it
// ended.
func (s *server) ended(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.empty:
		return true
	case <-timer.C:
	}
	select { // with a limit of 0 both may be ready
	case <-s.empty:
		return true
	default:
		return false
	}
}
