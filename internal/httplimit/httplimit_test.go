package httplimit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

const places = 4

// site is a server whose clients have the addresses that a test chooses.
type site struct {
	t       *testing.T
	address string
	log     bytes.Buffer // read it after the end of the server
	release chan struct{}

	mu   sync.Mutex
	next string // the address of the next client; guarded by mu
}

// clients is a listener that gives its clients chosen addresses.
type clients struct {
	net.Listener
	site *site
}

type from struct {
	net.Conn
	remote net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.remote }

func (c clients) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.site.mu.Lock()
	defer c.site.mu.Unlock()
	remote, err := net.ResolveTCPAddr("tcp", c.site.next)
	c.site.next = "" // the client was accepted
	return from{conn, remote}, err
}

func start(t *testing.T) (s *site, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &site{t: t, address: ln.Addr().String(), release: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-s.release
		_, _ = io.WriteString(w, "late")
	})
	server := &http.Server{Handler: mux, ErrorLog: log.New(&s.log, "", 0)}
	served := make(chan error, 1)
	go func() { served <- Serve(server, clients{ln, s}, places) }()
	stop = sync.OnceFunc(func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// client is a connection.
type client struct {
	net.Conn
	in *bufio.Reader
}

// connect connects as a client with this address, and sends text. The server accepts
// the clients of a test in the order in which they connect.
func (s *site) connect(address, text string) *client {
	s.t.Helper()
	s.mu.Lock()
	s.next = address
	s.mu.Unlock()
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	for accepted := false; !accepted; {
		s.mu.Lock()
		accepted = s.next == ""
		s.mu.Unlock()
	}
	c := &client{conn, bufio.NewReader(conn)}
	c.send(text)
	return c
}

func (c *client) send(text string) { _, _ = io.WriteString(c.Conn, text) }

// ask returns the body of the answer to GET /, or an error if the connection is lost.
func (c *client) ask() (string, error) {
	c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	return c.answer()
}

func (c *client) answer() (string, error) {
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

func TestOneClientDisplacesItself(t *testing.T) {
	s, stop := start(t)
	friend := s.connect("192.0.2.1:1", "")
	if body, err := friend.ask(); body != "hello" || err != nil {
		t.Fatalf("%q %v", body, err)
	}
	// None of these gets an answer, and each keeps its place for as long as it can.
	var flood []*client
	for _, text := range []string{"", "GET", "GET / HTTP/1.1\r\nX: ", "", "GET / HTTP/1.1\r\n", "", "", "", ""} {
		flood = append(flood, s.connect("203.0.113.7:9", text))
	}
	if body, err := friend.ask(); body != "hello" || err != nil {
		t.Errorf("the first friend, in the flood: %q %v", body, err)
	}
	if body, err := s.connect("192.0.2.2:1", "").ask(); body != "hello" || err != nil {
		t.Errorf("a friend who comes in the flood: %q %v", body, err)
	}
	for _, c := range flood[:5] {
		if _, err := c.in.ReadByte(); err == nil {
			t.Error("a connection of the flood has an answer")
		}
	}
	stop()
	if text := s.log.String(); strings.Count(text, "closed one from 203.0.113.7") != 1 {
		t.Errorf("%q", text)
	}
}

// slowly returns connections of a client, each of which waits for the end of an answer.
func (s *site) slowly(address string, n int) (slow []*client) {
	s.t.Helper()
	for range n {
		c := s.connect(address, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := c.in.Peek(1); err != nil { // the answer has begun
			s.t.Fatal(err)
		}
		slow = append(slow, c)
	}
	return slow
}

func TestAnswersAreNotCutOff(t *testing.T) {
	s, stop := start(t)
	slow := append(s.slowly("192.0.2.1:1", places/2), s.slowly("192.0.2.2:1", places/2)...)
	for range places {
		if _, err := s.connect("192.0.2.1:9", "").ask(); err == nil {
			t.Error("a connection beyond the limit has an answer")
		}
	}
	close(s.release)
	for _, c := range slow {
		if body, err := c.answer(); body != "late" || err != nil {
			t.Errorf("%q %v", body, err)
		}
	}
	if body, err := s.connect("203.0.113.7:9", "").ask(); body != "hello" || err != nil {
		t.Errorf("after the answers: %q %v", body, err)
	}
	stop()
	if text := s.log.String(); strings.Count(text, "closed a new one from 192.0.2.1") != 1 {
		t.Errorf("%q", text)
	}
}

// A client that fills all places with answers that it does not read loses its share, and
// no more.
func TestSlowReaderLosesItsShare(t *testing.T) {
	s, stop := start(t)
	flood := s.slowly("203.0.113.7:9", places)
	friends := s.slowly("192.0.2.1:1", places/2)
	if _, err := s.connect("192.0.2.1:1", "").ask(); err == nil {
		t.Error("a third of four connections displaces one of two")
	}
	if _, err := s.connect("203.0.113.7:9", "").ask(); err == nil {
		t.Error("the flood displaces others")
	}
	close(s.release)
	for i, c := range append(flood, friends...) {
		if body, err := c.answer(); (body == "late" && err == nil) != (i >= places/2) {
			t.Errorf("answer %d: %q %v", i, body, err)
		}
	}
	stop()
	if text := s.log.String(); strings.Count(text, "closed the longest answer of 203.0.113.7:9, which has the most") != 1 {
		t.Errorf("%q", text)
	}
}

func TestClientOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1", "[2001:db8:1:2:3::4]:1": "2001:db8:1:2::",
		"[fe80::1%lo]:1": "fe80::", "127.0.0.2:1": "invalid IP", "[::1]:1": "invalid IP",
	} {
		remote, err := net.ResolveTCPAddr("tcp", address)
		if got := clientOf(remote).String(); err != nil || got != want {
			t.Errorf("%s: %s %v", address, got, err)
		}
	}
	if got := clientOf(&net.UnixAddr{Name: "@", Net: "unix"}); got.IsValid() {
		t.Errorf("a unix socket: %s", got)
	}
}
