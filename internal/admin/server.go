package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
)

const (
	// DefaultTimeout is how long a command may run.
	DefaultTimeout = time.Minute

	maxConns       = 16
	requestTimeout = 10 * time.Second // from the accept to the request's last byte
	writeTimeout   = 10 * time.Second // for each line
	drainTimeout   = 5 * time.Second
)

// Handler answers one command. It must return when ctx ends, which is when the
// client disconnects, the time is over or the daemon stops. args is the JSON of
// the arguments, nil when there are none; [Typed] decodes it. progress sends v to
// the client. Only the handler's own goroutine may call it, and only until the
// handler returns. The result is encoded as JSON. An error that wraps *[Error]
// keeps its code; any other is CodeFailed. Its text is sent to the client and
// must not have a secret.
type Handler func(ctx context.Context, args json.RawMessage, progress func(v any)) (any, error)

// Typed is a [Handler] whose arguments are a JSON object that fits A. Unknown
// keys are errors; without arguments A is its zero value.
func Typed[A any](f func(ctx context.Context, args A, progress func(v any)) (any, error)) Handler {
	return func(ctx context.Context, raw json.RawMessage, progress func(v any)) (any, error) {
		var args A
		if len(raw) > 0 {
			if err := decodeStrict(raw, &args); err != nil {
				return nil, &Error{CodeBadArgs, "arguments: " + err.Error()}
			}
		}
		return f(ctx, args, progress)
	}
}

// Options describes the daemon that answers.
type Options struct {
	Daemon  string             // its name, such as "postern-policyd"
	Version string             // its release
	Timeout time.Duration      // for each command; 0 means DefaultTimeout
	Report  func(daemon.Event) // receives problems, from several goroutines; may be nil
	// Takes are commands that get the connection itself and use another protocol
	// over it. The connection is closed when they return. ctx ends when the
	// daemon does not wait any longer.
	Takes map[string]func(ctx context.Context, conn *net.UnixConn)
}

// Server answers commands. Make it with [New].
type Server struct {
	o        Options
	handlers map[string]Handler
}

// Info is the result of the built-in command "version".
type Info struct {
	Daemon   string `json:"daemon"`
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	PID      int    `json:"pid"`
}

// Help is the result of the built-in command "help".
type Help struct {
	Commands []string `json:"commands"` // sorted
}

// New returns a server with the handlers and the built-in commands "help", "ping"
// (its result is true) and "version". It returns an error for a handler that is
// nil or has the name of a built-in command, which is a bug of the program.
func New(handlers map[string]Handler, o Options) (*Server, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Report == nil {
		o.Report = func(daemon.Event) {}
	}
	s := &Server{o: o}
	s.handlers = map[string]Handler{"help": s.help, "ping": s.ping, "version": s.version}
	for name, h := range handlers {
		if h == nil || name == "" || s.handlers[name] != nil {
			return nil, fmt.Errorf("admin command %q: no handler, no name, or the name of a built-in command", name)
		}
		s.handlers[name] = h
	}
	return s, nil
}

func (s *Server) help(context.Context, json.RawMessage, func(any)) (any, error) {
	return Help{Commands: s.commands()}, nil
}

func (s *Server) ping(context.Context, json.RawMessage, func(any)) (any, error) { return true, nil }

func (s *Server) version(context.Context, json.RawMessage, func(any)) (any, error) {
	return Info{Daemon: s.o.Daemon, Version: s.o.Version, Protocol: Version, PID: os.Getpid()}, nil
}

func (s *Server) commands() []string { return slices.Sorted(maps.Keys(s.handlers)) }

// Serve answers on the listeners until ctx is done, then drains for at most
// five seconds, see [daemon.Serve].
func (s *Server) Serve(ctx context.Context, listeners []daemon.Listener) error {
	return daemon.Serve(ctx, listeners, daemon.ServeOptions{
		Handler:      s.serve,
		MaxConns:     maxConns,
		DrainTimeout: drainTimeout,
		Report:       s.o.Report,
	})
}

// serve reads the one request of a connection and answers it.
func (s *Server) serve(ctx context.Context, conn *daemon.Conn) {
	if !conn.Idle() || conn.SetReadDeadline(time.Now().Add(requestTimeout)) != nil {
		return
	}
	r := bufio.NewReader(conn)
	line, err := readLine(r, maxRequest)
	if !conn.Busy() {
		return
	}
	req, err := accepted(line, err, r.Buffered())
	if errors.Is(err, errGone) {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &writer{conn: conn, cancel: cancel}
	if err != nil {
		w.fail(err)
		return
	}
	if take, ok := s.o.Takes[req.Command]; ok {
		if unix, ok := conn.Conn.(*net.UnixConn); ok {
			take(ctx, unix)
			return
		}
	}
	s.run(ctx, cancel, req, w)
}

var (
	errGone    = errors.New("the client went away")
	errExtra   = &Error{CodeBadRequest, "one request a connection: nothing may follow the line"}
	errTimeout = errors.New("time-out")
)

// accepted parses what was read as a request. errGone means that the client has
// disconnected.
func accepted(line []byte, err error, after int) (request, error) {
	switch {
	case errors.Is(err, errLineTooLong):
		return request{}, &Error{CodeTooLarge, fmt.Sprintf("the request is longer than %d bytes", maxRequest)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return request{}, &Error{CodeTimeout, fmt.Sprintf("no request within %v", requestTimeout)}
	case err != nil:
		return request{}, errGone
	case after > 0:
		return request{}, errExtra
	}
	return parseRequest(line)
}

// run executes the command and watches for the client to disconnect.
func (s *Server) run(ctx context.Context, cancel context.CancelCauseFunc, req request, w *writer) {
	handler, known := s.handlers[req.Command]
	if !known {
		w.fail(&Error{CodeUnknownCommand, fmt.Sprintf("command %q is not known; known are %s", req.Command, strings.Join(s.commands(), ", "))})
		return
	}
	stopWatching := watch(w.conn, cancel)
	timed, done := context.WithTimeoutCause(ctx, s.o.Timeout, errTimeout)
	defer done()
	result, err := s.call(timed, handler, req, w)
	stopWatching()

	cause := context.Cause(timed)
	late := errors.Is(cause, errTimeout)
	switch {
	case errors.Is(cause, errExtra):
		w.fail(errExtra)
	case cause != nil && !late: // disconnected, or cut at the end of draining: there is no client to answer
	case err == nil:
		w.result(result)
	case late:
		w.fail(&Error{CodeTimeout, fmt.Sprintf("%s: not done within %v: %v", req.Command, s.o.Timeout, err)})
	default:
		w.fail(err)
	}
}

// call calls the handler. After a panic of the handler, the client gets an error,
// and the log gets the stack.
func (s *Server) call(ctx context.Context, handler Handler, req request, w *writer) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Report(daemon.Event{
				Kind: daemon.HandlerPanicked, Cause: req.Command,
				Err: fmt.Errorf("admin command %s: panic: %v", req.Command, p), Stack: debug.Stack(),
			})
			err = &Error{CodeInternal, req.Command + ": internal error, see the daemon's log"}
		}
	}()
	return handler(ctx, req.Args, w.progress)
}

// watch cancels when the client closes its side or writes again. stop ends the
// watching goroutine and waits for it.
func watch(conn net.Conn, cancel context.CancelCauseFunc) (stop func()) {
	ended := make(chan struct{})
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		cancel(errGone)
	}
	go func() { // ends at the deadline that stop sets, if not before
		defer close(ended)
		n, err := conn.Read(make([]byte, 1))
		switch {
		case n > 0:
			cancel(errExtra)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			cancel(errGone)
		}
	}()
	return func() {
		if conn.SetReadDeadline(time.Unix(1, 0)) != nil {
			_ = conn.Close() // the connection is closed already: Read returns then too
		}
		<-ended
	}
}

// writer sends reply lines. After the first failure the command's context ends
// and nothing more is written.
type writer struct {
	conn   net.Conn
	cancel context.CancelCauseFunc
	failed bool
}

func (w *writer) progress(v any) {
	data, err := encode(v)
	if err != nil {
		data, _ = json.Marshal("progress lost: " + err.Error()) // a string can always be encoded
	}
	w.write(reply{Progress: data})
}

func (w *writer) result(v any) {
	data, err := encode(v)
	if err != nil {
		w.fail(err)
		return
	}
	w.write(reply{Result: data})
}

// encode encodes v as JSON, and refuses more than the client accepts as one line.
func encode(v any) (json.RawMessage, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, &Error{CodeInternal, "not JSON: " + err.Error()}
	}
	if len(data) > maxValue {
		return nil, &Error{CodeTooLarge, fmt.Sprintf("%d bytes long, at most %d are sent: ask for less", len(data), maxValue)}
	}
	return data, nil
}

func (w *writer) fail(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: CodeFailed, Message: err.Error()}
	}
	w.write(reply{Error: e})
}

func (w *writer) write(r reply) {
	if w.failed {
		return
	}
	r.V = Version
	line, err := json.Marshal(r)
	if err == nil {
		err = w.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	if err == nil {
		_, err = w.conn.Write(append(line, '\n'))
	}
	if err != nil {
		w.failed = true
		w.cancel(errGone)
	}
}
