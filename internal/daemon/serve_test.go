package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeListener accepts what the test sends, so that a bubble of synctest knows
// what waits.
type fakeListener struct {
	accepts chan any // net.Conn or error
	closed  chan struct{}
	once    sync.Once
}

func newFakeListener() *fakeListener {
	return &fakeListener{accepts: make(chan any, 64), closed: make(chan struct{})}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	case a := <-l.accepts:
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(net.Conn), nil
	}
}

func (l *fakeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *fakeListener) Addr() net.Addr { return &net.UnixAddr{Name: "fake"} }

// dial gives the listener a connection and returns the client's side.
func (l *fakeListener) dial(t *testing.T) net.Conn {
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	l.accepts <- server
	return client
}

func (l *fakeListener) listeners() []Listener {
	return []Listener{{Listener: l, Socket: Socket{Flag: "--listen", Endpoint: Endpoint{Network: NetworkUnix, Address: "fake"}}}}
}

// events collects what is reported.
type events struct {
	mu   sync.Mutex
	list []Event
}

func (e *events) report(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) kinds() []EventKind {
	e.mu.Lock()
	defer e.mu.Unlock()
	var kinds []EventKind
	for _, event := range e.list {
		kinds = append(kinds, event.Kind)
	}
	return kinds
}

func (e *events) want(t *testing.T, kinds ...EventKind) {
	t.Helper()
	if got := e.kinds(); !reflect.DeepEqual(got, kinds) {
		t.Errorf("events %v, want %v", got, kinds)
	}
}

// serving runs Serve in the background.
func serving(ctx context.Context, listeners []Listener, o ServeOptions) (stop context.CancelFunc, served chan error) {
	ctx, stop = context.WithCancel(ctx)
	served = make(chan error, 1)
	go func() { served <- Serve(ctx, listeners, o) }()
	return stop, served
}

func read(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != want {
		t.Fatalf("read %q, %v; want %q", buf, err, want)
	}
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func wantClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v; want the end", n, err)
	}
}

// echo answers every line, as a policy server would.
func echo(_ context.Context, c *Conn) {
	r := bufio.NewReader(c)
	for c.Idle() {
		if _, err := r.Peek(1); err != nil || !c.Busy() {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, c.Socket.Endpoint.Network+" "+line); err != nil {
			return
		}
	}
}

func TestServeRealSockets(t *testing.T) {
	path := sockDir(t) + "/s"
	listeners := listen(t, socket(t, "inet:127.0.0.1:0"), socket(t, "unix:"+path))
	var trouble events
	stop, served := serving(t.Context(), listeners, ServeOptions{Handler: echo, DrainTimeout: time.Hour, Report: trouble.report})
	var conns []net.Conn
	for i := range 40 {
		l := listeners[i%2]
		conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	for i, conn := range conns {
		for range 3 {
			write(t, conn, "hello\n")
			read(t, conn, listeners[i%2].Socket.Network+" hello\n")
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, conn := range conns {
		wantClosed(t, conn)
	}
	if conn, err := net.Dial("unix", path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v, %v", conn, err)
	}
	trouble.want(t)
}

// TestServeDrainsUnderLoad stops in the middle of traffic: a client sees
// whole answers and then the end, never half an answer.
func TestServeDrainsUnderLoad(t *testing.T) {
	const clients, warm = 30, 20
	listeners := listen(t, socket(t, "unix:"+sockDir(t)+"/s"))
	stop, served := serving(t.Context(), listeners, ServeOptions{Handler: echo, DrainTimeout: time.Hour})
	var warmed, ended sync.WaitGroup
	warmed.Add(clients)
	for range clients {
		conn, err := net.Dial("unix", listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ended.Go(func() {
			defer conn.Close()
			r := bufio.NewReader(conn)
			for answers := 0; ; answers++ {
				if answers == warm {
					warmed.Done()
				}
				_, writeErr := io.WriteString(conn, "x\n")
				line, err := r.ReadString('\n')
				if line == "" && err != nil && answers >= warm {
					return // closed between answers
				}
				if line != "unix x\n" {
					t.Errorf("answer %d is %q: %v, %v", answers, line, writeErr, err)
					if answers < warm {
						warmed.Done()
					}
					return
				}
			}
		})
	}
	warmed.Wait()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	ended.Wait()
}

func TestServeSurvivesAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{Handler: echo, DrainTimeout: time.Second, Report: heard.report})
		begin := time.Now()
		for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, errors.New("odd"), syscall.EMFILE} {
			l.accepts <- &net.OpError{Op: "accept", Err: err}
		}
		conn := l.dial(t)
		write(t, conn, "x\n")
		read(t, conn, "unix x\n")
		if waited := time.Since(begin); waited != (5+10+20+40+80)*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		heard.want(t, AcceptFailing, AcceptRecovered)
		if !errors.Is(heard.list[0].Err, syscall.EMFILE) {
			t.Errorf("reported %v", heard.list[0].Err)
		}
		// The wait starts over after a success, and a second row within
		// the minute is not news.
		l.accepts <- error(syscall.EMFILE)
		begin = time.Now()
		conn = l.dial(t)
		write(t, conn, "x\n")
		read(t, conn, "unix x\n")
		if waited := time.Since(begin); waited != minBackoff {
			t.Errorf("waited %v", waited)
		}
		heard.want(t, AcceptFailing, AcceptRecovered)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeReportsLastingAcceptErrorOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{Handler: echo, Report: heard.report})
		feed, end := context.WithCancel(t.Context())
		defer end()
		go func() {
			for feed.Err() == nil {
				select {
				case l.accepts <- error(syscall.ENFILE):
				case <-feed.Done():
				}
			}
		}()
		time.Sleep(150 * time.Second) // of the bubble's clock
		heard.want(t, AcceptFailing, AcceptFailing, AcceptFailing)
		stop()
		if err := <-served; err != nil { // also out of the wait
			t.Error(err)
		}
	})
}

func TestServeEndsWhenListenerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		_, served := serving(t.Context(), l.listeners(), ServeOptions{Handler: echo, DrainTimeout: time.Hour})
		idle := l.dial(t)
		synctest.Wait()
		l.Close()
		wantClosed(t, idle)
		if err := <-served; !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "--listen unix:fake") {
			t.Errorf("got %v", err)
		}
	})
}

func TestServeBoundsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		var running, most atomic.Int32
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{
			MaxConns: 2, DrainTimeout: time.Hour, Report: heard.report,
			Handler: func(ctx context.Context, c *Conn) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				echo(ctx, c)
			},
		})
		var conns []net.Conn
		for range 6 {
			conns = append(conns, l.dial(t))
		}
		synctest.Wait()
		if running.Load() != 2 {
			t.Errorf("%d handlers run", running.Load())
		}
		heard.want(t, ConnsFull)
		if heard.list[0].Conns != 2 {
			t.Errorf("limit reported as %d", heard.list[0].Conns)
		}
		for _, conn := range conns[:4] { // each makes room for another
			write(t, conn, "x\n")
			read(t, conn, "unix x\n")
			conn.Close()
			synctest.Wait()
		}
		write(t, conns[5], "x\n")
		read(t, conns[5], "unix x\n")
		if most.Load() != 2 {
			t.Errorf("%d handlers ran at once", most.Load())
		}
		heard.want(t, ConnsFull)
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeDrainsWhileFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{MaxConns: 1, DrainTimeout: time.Hour, Handler: echo})
		first, waiting := l.dial(t), l.dial(t)
		synctest.Wait()
		stop()
		wantClosed(t, first)
		wantClosed(t, waiting)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeContainsPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFakeListener()
		var heard events
		stop, served := serving(t.Context(), l.listeners(), ServeOptions{
			MaxConns: 1, DrainTimeout: time.Hour, Report: heard.report,
			Handler: func(ctx context.Context, c *Conn) {
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					return
				}
				panic(errors.New("exploded"))
			},
		})
		for range 3 { // with one slot, which each panic gives back
			conn := l.dial(t)
			write(t, conn, "x")
			wantClosed(t, conn)
			synctest.Wait() // the slot is given back after the close
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		heard.want(t, HandlerPanicked, HandlerPanicked, HandlerPanicked)
		event := heard.list[0]
		if !strings.Contains(event.Err.Error(), "panic: exploded") || !strings.Contains(string(event.Stack), "TestServeContainsPanic") || event.Remote == nil {
			t.Errorf("reported %v at %v\n%s", event.Err, event.Remote, event.Stack)
		}
	})
}

func TestServeDrain(t *testing.T) {
	tests := []struct {
		name    string
		timeout time.Duration
		handler func(ctx context.Context, c *Conn)
		took    time.Duration // from the order to drain to the end
		err     error
		events  []EventKind
	}{
		{
			name: "idle connections close at once", timeout: time.Hour,
			handler: echo,
		},
		{
			name: "work in hand is finished", timeout: time.Hour, took: 3 * time.Second,
			handler: func(ctx context.Context, c *Conn) {
				<-c.Draining()
				select {
				case <-time.After(3 * time.Second):
				case <-ctx.Done():
				}
				if _, err := io.WriteString(c, "done"); err != nil || ctx.Err() != nil || c.Idle() {
					panic(fmt.Sprint("cut: ", err, ctx.Err()))
				}
			},
		},
		{
			name: "a held connection is waited for, then cut", timeout: time.Minute, took: time.Minute,
			handler: func(ctx context.Context, c *Conn) {
				_, _ = c.Read(make([]byte, 1))
				<-ctx.Done()
			},
			events: []EventKind{DrainTimedOut},
		},
		{
			name: "no time to drain", timeout: 0,
			handler: func(_ context.Context, c *Conn) { _, _ = c.Read(make([]byte, 1)) },
			events:  []EventKind{DrainTimedOut},
		},
		{
			name: "a stuck handler does not hold the end", timeout: time.Minute, took: time.Minute + cutGrace,
			handler: func(context.Context, *Conn) { time.Sleep(time.Hour) },
			err:     ErrHandlersStuck, events: []EventKind{DrainTimedOut},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFakeListener()
				var heard events
				stop, served := serving(t.Context(), l.listeners(), ServeOptions{
					Handler: tt.handler, DrainTimeout: tt.timeout, Report: heard.report,
				})
				client := l.dial(t)
				go func() { _, _ = io.Copy(io.Discard, client) }()
				synctest.Wait()
				begin := time.Now()
				stop()
				if err := <-served; !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if took := time.Since(begin); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				heard.want(t, tt.events...)
				time.Sleep(time.Hour) // of the bubble's clock: the stuck handler ends
			})
		})
	}
}

func TestConnMarks(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	draining := make(chan struct{})
	c := &Conn{Conn: server, draining: draining}
	if !c.Idle() || !c.Busy() {
		t.Fatal("not serving")
	}
	close(draining)
	c.closeIfIdle() // busy: stays open
	if !c.Busy() {
		t.Error("a busy connection was closed")
	}
	if c.Idle() {
		t.Error("idle while draining")
	}
	c = &Conn{Conn: server, draining: make(chan struct{})}
	c.Idle()
	c.closeIfIdle()
	wantClosed(t, client)
	if c.Busy() {
		t.Error("a connection that draining closed takes a request")
	}
}

func TestEventTexts(t *testing.T) {
	seen := map[string]bool{}
	for kind := EventKind(1); kind < eventKindsEnd; kind++ {
		if text := kind.String(); text == "" || seen[text] {
			t.Errorf("event %d has the text %q", int(kind), text)
		}
		seen[kind.String()] = true
	}
	if EventKind(0).String() != "event 0" || eventKindsEnd.String() == "" {
		t.Error("an unknown kind has no text")
	}
	if !ReloadFailed.Trouble() || Reloaded.Trouble() {
		t.Error("the wrong events are trouble")
	}
}
