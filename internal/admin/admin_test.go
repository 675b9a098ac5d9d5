package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
)

type checkArgs struct {
	Sender string `json:"sender"`
	Login  string `json:"login"`
}

// testHandlers returns handlers for the tests; ended receives why waiting ended.
func testHandlers(ended chan<- error) map[string]Handler {
	wait := func(ctx context.Context, _ json.RawMessage, progress func(any)) (any, error) {
		progress("waiting")
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
	return map[string]Handler{
		"owners.check": Typed(func(_ context.Context, args checkArgs, progress func(any)) (any, error) {
			for i := range 3 {
				progress(map[string]int{"map": i})
			}
			return args.Sender + "/" + args.Login, nil
		}),
		"nothing": func(context.Context, json.RawMessage, func(any)) (any, error) { return nil, nil },
		"wait":    wait,
		"fail":    func(context.Context, json.RawMessage, func(any)) (any, error) { return nil, errors.New("map is gone") },
		"coded": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return nil, fmt.Errorf("owners: %w", &Error{"not_found", "no such sender"})
		},
		"panic": func(context.Context, json.RawMessage, func(any)) (any, error) { panic("secret detail") },
		"huge": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return strings.Repeat("x", maxReply), nil
		},
		"largest": func(context.Context, json.RawMessage, func(any)) (any, error) {
			return strings.Repeat("x", maxValue-2), nil
		},
		"nojson": func(_ context.Context, _ json.RawMessage, progress func(any)) (any, error) {
			progress(make(chan int))
			return make(chan int), nil
		},
	}
}

type events struct {
	mu   sync.Mutex
	list []daemon.Event
}

func (e *events) report(event daemon.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) all() []daemon.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.list
}

func newServer(t *testing.T, handlers map[string]Handler, report func(daemon.Event)) *Server {
	t.Helper()
	s, err := New(handlers, Options{Daemon: "postern-test", Version: "1.2.3", Report: report})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve runs a server on a real socket until the test ends.
func serve(t *testing.T, s *Server) Client {
	t.Helper()
	path := filepath.Join(shortDir(t), "admin.sock")
	listeners, err := daemon.Listen([]daemon.Socket{{
		Endpoint: daemon.Endpoint{Network: daemon.NetworkUnix, Address: path}, Flag: "--admin", Mode: 0o600,
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, listeners) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return Client{Path: path, Daemon: "postern-test"}
}

func TestCall(t *testing.T) {
	var heard events
	client := serve(t, newServer(t, testHandlers(nil), heard.report))

	var progress []string
	var result string
	err := client.Call(t.Context(), "owners.check", checkArgs{"a@example.com", "alice"}, &result,
		func(p json.RawMessage) { progress = append(progress, string(p)) })
	if err != nil || result != "a@example.com/alice" {
		t.Errorf("got %q, %v", result, err)
	}
	if want := []string{`{"map":0}`, `{"map":1}`, `{"map":2}`}; !reflect.DeepEqual(progress, want) {
		t.Errorf("progress %q", progress)
	}

	var info Info
	if err := client.Call(t.Context(), "version", nil, &info, nil); err != nil || info != (Info{"postern-test", "1.2.3", Version, os.Getpid()}) {
		t.Errorf("version %+v, %v", info, err)
	}
	var pong bool
	if err := client.Call(t.Context(), "ping", nil, &pong, nil); err != nil || !pong {
		t.Errorf("ping %v, %v", pong, err)
	}
	var help Help
	want := []string{"coded", "fail", "help", "huge", "largest", "nojson", "nothing", "owners.check", "panic", "ping", "version", "wait"}
	if err := client.Call(t.Context(), "help", nil, &help, nil); err != nil || !reflect.DeepEqual(help.Commands, want) {
		t.Errorf("help %v, %v", help, err)
	}
	nothing := &struct{}{}
	if err := client.Call(t.Context(), "nothing", nil, &nothing, nil); err != nil || nothing != nil {
		t.Errorf("nothing: %v, %v", nothing, err)
	}
	var largest string
	if err := client.Call(t.Context(), "largest", nil, &largest, nil); err != nil || len(largest) != maxValue-2 {
		t.Errorf("largest: %d bytes, %v", len(largest), err)
	}
	if err := client.Call(t.Context(), "owners.check", nil, nil, nil); err != nil {
		t.Errorf("without arguments and result: %v", err)
	}
	if list := heard.all(); len(list) != 0 {
		t.Errorf("events %v", list)
	}
}

func TestCallErrors(t *testing.T) {
	var heard events
	client := serve(t, newServer(t, testHandlers(nil), heard.report))
	tests := []struct {
		command string
		args    any
		code    string
		text    string
	}{
		{"fail", nil, CodeFailed, "map is gone"},
		{"coded", nil, "not_found", "no such sender"},
		{"panic", nil, CodeInternal, "panic: internal error, see the daemon's log"},
		{"huge", nil, CodeTooLarge, "ask for less"},
		{"nojson", nil, CodeInternal, "not JSON"},
		{"owner.check", nil, CodeUnknownCommand, `command "owner.check" is not known; known are coded, fail, help,`},
		{"owners.check", map[string]string{"sendr": "x"}, CodeBadArgs, `unknown field "sendr"`},
		{"owners.check", []int{1}, CodeBadArgs, "cannot unmarshal"},
		{"", nil, CodeBadRequest, "names no command"},
	}
	for _, tt := range tests {
		err := client.Call(t.Context(), tt.command, tt.args, nil, nil)
		var e *Error
		if !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.text) || strings.Contains(e.Message, "secret") {
			t.Errorf("%s: got %v; want %s with %q", tt.command, err, tt.code, tt.text)
		}
	}
	list := heard.all()
	if len(list) != 1 || list[0].Kind != daemon.HandlerPanicked || list[0].Cause != "panic" ||
		!strings.Contains(list[0].Err.Error(), "secret detail") || !strings.Contains(string(list[0].Stack), "testHandlers") {
		t.Errorf("events %+v", list)
	}
	if err := client.Call(t.Context(), "ping", make(chan int), nil, nil); err == nil || !strings.Contains(err.Error(), "arguments") {
		t.Errorf("arguments that are not JSON: %v", err)
	}
	if err := client.Call(t.Context(), "ping", strings.Repeat("x", maxRequest), nil, nil); err == nil || !strings.Contains(err.Error(), "bytes long") {
		t.Errorf("arguments too long: %v", err)
	}
	var number int
	if err := client.Call(t.Context(), "ping", nil, &number, nil); err == nil || !strings.Contains(err.Error(), "result") {
		t.Errorf("result of another type: %v", err)
	}
}

func TestClientGoneEndsCommand(t *testing.T) {
	ended := make(chan error, 1)
	client := serve(t, newServer(t, testHandlers(ended), nil))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("operator pressed ^C")
	err := client.Call(ctx, "wait", nil, nil, func(json.RawMessage) { cancel(why) })
	if !errors.Is(err, why) {
		t.Errorf("call: %v", err)
	}
	if err := <-ended; !errors.Is(err, errGone) {
		t.Errorf("the command ended with %v", err)
	}
}

func TestServerDrains(t *testing.T) {
	ended := make(chan error, 1)
	s := newServer(t, testHandlers(ended), nil)
	synctest.Test(t, func(t *testing.T) {
		client, l := pipe(t)
		idle, _ := pipe(t, l)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, []daemon.Listener{{Listener: l}}) }()
		go io.WriteString(client, `{"v":1,"command":"wait"}`+"\n")
		reply := make([]byte, 100)
		if n, err := client.Read(reply); err != nil {
			t.Errorf("progress %q, %v", reply[:n], err)
		}
		begin := time.Now()
		stop()
		if n, err := idle.Read(reply); !errors.Is(err, io.EOF) || time.Since(begin) != 0 {
			t.Errorf("idle connection: %d, %v after %v", n, err, time.Since(begin))
		}
		if err := <-served; err != nil || time.Since(begin) != drainTimeout {
			t.Errorf("serve: %v after %v", err, time.Since(begin))
		}
		if n, err := client.Read(reply); !errors.Is(err, io.EOF) {
			t.Errorf("cut connection: %q, %v", reply[:n], err)
		}
	})
	if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, errGone) {
		t.Errorf("the command ended with %v", err)
	}
}

// pipeListener accepts the server's ends of pipes, for bubbles of synctest.
type pipeListener struct {
	accepts chan net.Conn
	closed  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepts:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func pipe(t *testing.T, on ...*pipeListener) (net.Conn, *pipeListener) {
	l := &pipeListener{accepts: make(chan net.Conn, 8), closed: make(chan struct{})}
	if len(on) > 0 {
		l = on[0]
	}
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close() })
	l.accepts <- server
	return client, l
}

// TestServerRaw speaks to one connection byte by byte, on a bubble's clock.
func TestServerRaw(t *testing.T) {
	const waitOut = `{"v":1,"progress":"waiting"}` + "\n"
	tests := []struct {
		name  string
		write []string
		want  string // all that the server sends until it closes
		after time.Duration
	}{
		{name: "one byte at a time", write: strings.Split(`{"v":1,"command":"ping"}`+"\n", ""), want: `{"v":1,"result":true}` + "\n"},
		{name: "no request", want: `{"v":1,"error":{"code":"timeout","message":"no request within 10s"}}` + "\n", after: requestTimeout},
		{name: "half a request", write: []string{`{"v":1,`}, want: `{"v":1,"error":{"code":"timeout","message":"no request within 10s"}}` + "\n", after: requestTimeout},
		{name: "too long", write: []string{strings.Repeat("x", 2*maxRequest)}, want: `{"v":1,"error":{"code":"too_large","message":"the request is longer than 65536 bytes"}}` + "\n"},
		{name: "newer version", write: []string{`{"v":9}` + "\n"}, want: `{"v":1,"error":{"code":"unknown_version","message":"version 9 is not spoken here, only 1: use the postern command of the daemon's release"}}` + "\n"},
		{name: "two requests at once", write: []string{"{\"v\":1,\"command\":\"ping\"}\n{"}, want: `{"v":1,"error":{"code":"bad_request","message":"one request a connection: nothing may follow the line"}}` + "\n"},
		{name: "a second request later", write: []string{`{"v":1,"command":"wait"}` + "\n", "x"}, want: waitOut + `{"v":1,"error":{"code":"bad_request","message":"one request a connection: nothing may follow the line"}}` + "\n"},
		{name: "a command without end", write: []string{`{"v":1,"command":"wait"}` + "\n"}, want: waitOut + `{"v":1,"error":{"code":"timeout","message":"wait: not done within 1m0s: context deadline exceeded"}}` + "\n", after: DefaultTimeout},
		{name: "nothing as a result", write: []string{`{"v":1,"command":"nothing"}` + "\n"}, want: `{"v":1,"result":null}` + "\n"},
		{
			name: "progress that is not JSON", write: []string{`{"v":1,"command":"nojson"}` + "\n"},
			want: `{"v":1,"progress":"progress lost: not JSON: json: unsupported type: chan int"}` + "\n" +
				`{"v":1,"error":{"code":"internal","message":"not JSON: json: unsupported type: chan int"}}` + "\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, l := pipe(t)
				ctx, stop := context.WithCancel(t.Context())
				served := make(chan error, 1)
				s := newServer(t, testHandlers(make(chan error, 1)), nil)
				go func() { served <- s.Serve(ctx, []daemon.Listener{{Listener: l}}) }()
				begin := time.Now()
				go func() {
					for _, text := range tt.write {
						_, _ = io.WriteString(client, text) // the server may close before the end
						synctest.Wait()
					}
				}()
				got, err := io.ReadAll(client)
				if err != nil || string(got) != tt.want {
					t.Errorf("got %s, %v; want %s", got, err, tt.want)
				}
				if took := time.Since(begin); took != tt.after {
					t.Errorf("after %v, want %v", took, tt.after)
				}
				stop()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, l := pipe(t)
		ended := make(chan error, 1)
		s := newServer(t, testHandlers(ended), nil)
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- s.Serve(ctx, []daemon.Listener{{Listener: l}}) }()
		begin := time.Now()
		if _, err := io.WriteString(client, `{"v":1,"command":"wait"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, errGone) || time.Since(begin) != writeTimeout {
			t.Errorf("the command ended with %v after %v", err, time.Since(begin))
		}
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	h := func(context.Context, json.RawMessage, func(any)) (any, error) { return nil, nil }
	for _, handlers := range []map[string]Handler{{"": h}, {"x": nil}, {"help": h}, {"ping": h}, {"version": h}} {
		if _, err := New(handlers, Options{}); err == nil {
			t.Errorf("accepted %v", handlers)
		}
	}
}

// TestClientAgainstBadDaemon answers with a fixed text.
func TestClientAgainstBadDaemon(t *testing.T) {
	tests := []struct{ name, answer, want string }{
		{"nothing", "", "closed the connection without an answer"},
		{"progress only", `{"v":1,"progress":1}` + "\n", "closed the connection without an answer"},
		{"half a line", `{"v":1,`, io.ErrUnexpectedEOF.Error()},
		{"no JSON", "hello\n", "malformed"},
		{"another version", `{"v":2,"result":1}` + "\n", "the daemon answers in version 2, this command speaks 1"},
		{"neither", `{"v":1}` + "\n", "not one of progress, result and error"},
		{"endless", strings.Repeat("x", maxReply+1), errLineTooLong.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(shortDir(t), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1000))
				_, _ = io.WriteString(conn, tt.answer) // the client may have disconnected
			}()
			err = Client{Path: path}.Call(t.Context(), "ping", nil, nil, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			<-answered
		})
	}
}

// shortDir returns a folder with a short path: a unix socket's path has at most
// 107 bytes, and that of t.TempDir may have more.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestClientWithoutDaemon(t *testing.T) {
	path := filepath.Join(shortDir(t), "admin.sock")
	client := Client{Path: path, Daemon: "postern-policyd"}
	err := client.Call(t.Context(), "ping", nil, nil, nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is postern-policyd running? --admin names its socket when it is not "+path) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	err = client.Call(t.Context(), "ping", nil, nil, nil)
	if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "postern-policyd is not running") {
		t.Errorf("stale socket: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Call(ctx, "ping", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// callVariable is the environment variable with a socket. It makes the test
// binary call "ping" on that socket, as a user without rights, and print the
// error.
const callVariable = "POSTERN_ADMIN_TEST_CALL"

func TestMain(m *testing.M) {
	path := os.Getenv(callVariable)
	if path == "" {
		os.Exit(m.Run())
	}
	if os.Geteuid() == 0 {
		if err := (daemon.Identity{Name: "test", UID: 65534, GID: 65534, Groups: []int{65534}}).Become(); err != nil {
			panic(err)
		}
	}
	err := Client{Path: path}.Call(context.Background(), "ping", nil, nil, nil)
	fmt.Println(errors.Is(err, fs.ErrPermission), err)
}

func TestClientDenied(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "admin.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	call := func() string {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), callVariable+"="+path, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := bytes.Cut(out, []byte("\n"))
		return string(line)
	}
	group := groupName(uint32(os.Getegid()))
	steps := []struct {
		dir, socket fs.FileMode
		want        string
	}{
		{0o755, 0, path + " belongs to group " + group + ", mode 0000: run as root or become a member"},
		{0, 0o666, dir + " belongs to group " + group + ", mode 0000: run as root or become a member"},
	}
	for _, step := range steps {
		if err := errors.Join(os.Chmod(path, step.socket), os.Chmod(dir, step.dir)); err != nil {
			t.Fatal(err)
		}
		got := call()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got, "true ") || !strings.Contains(got, step.want) {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}
