package daemon

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// unixPair returns both ends of a stream.
func unixPair(t testing.TB) (one, other *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		t.Cleanup(func() { _ = conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

func nothing() error { return nil }

// The successor gets the same sockets: it answers clients that wait in the
// backlog, and only it removes the path of a unix socket.
func TestHandOver(t *testing.T) {
	dir := sockDir(t)
	sockets := []Socket{socket(t, "unix:"+dir+"/s"), socket(t, "inet:127.0.0.1:0=a"), socket(t, "unix:"+dir+"/gone")}
	old := listen(t, sockets...)
	waiting, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	ours, theirs := unixPair(t)
	steps := make(chan string, 2)
	outcome := make(chan error, 1)
	go func() {
		outcome <- HandOver(ours, old,
			func() error { steps <- "release"; return nil },
			func() error {
				steps <- "serving"
				for _, l := range old {
					_ = l.Abandon()
				}
				return nil
			})
	}()
	p, err := take(theirs)
	if err != nil {
		t.Fatal(err)
	}
	wanted := []Socket{sockets[0], sockets[1], socket(t, "unix:"+dir+"/new")}
	fresh, err := ListenAfter(p, wanted)
	if err != nil || len(fresh) != 3 {
		t.Fatal(fresh, err)
	}
	if inherited := p.Inherited(fresh); len(inherited) != 2 {
		t.Errorf("%d of the listeners are inherited", len(inherited))
	}
	if got, want := fresh[1].Addr().String(), old[1].Addr().String(); got != want {
		t.Errorf("listens on %s, not %s", got, want)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if err := p.Serving(); err != nil {
		t.Error(err)
	}
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	if one, two := <-steps, <-steps; one != "release" || two != "serving" {
		t.Errorf("steps %s, %s", one, two)
	}
	conn, err := fresh[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, "hello")
	read(t, waiting, "hello")
	conn.Close()
	for _, l := range old {
		_ = l.Close() // without effect
	}
	if _, err := os.Lstat(dir + "/s"); err != nil {
		t.Error("the predecessor removed the successor's socket: ", err)
	}
	for _, l := range fresh {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"s", "new"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", name, err)
		}
	}
}

// The side that fails sends the reason, and the predecessor keeps its sockets.
func TestHandOverFails(t *testing.T) {
	refusal := errors.New("the store is busy")
	tests := []struct {
		name      string
		release   func() error
		successor func(t *testing.T, p *Predecessor)
		want      string
	}{
		{"the successor fails", nothing, func(_ *testing.T, p *Predecessor) { p.Fail("no such table") }, "no such table"},
		{"it goes away", nothing, func(_ *testing.T, p *Predecessor) { _ = p.link.conn.Close() }, "EOF"},
		{"it skips a step", nothing, func(t *testing.T, p *Predecessor) {
			if err := p.Serving(); err == nil {
				t.Error("the predecessor left")
			}
		}, `"release" was expected`},
		{"the predecessor cannot let go", func() error { return refusal }, func(t *testing.T, p *Predecessor) {
			if err := p.Release(); err == nil || err.Error() != refusal.Error() {
				t.Errorf("got %v", err)
			}
		}, refusal.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(sockDir(t), "s")
			old := listen(t, socket(t, "unix:"+path))
			ours, theirs := unixPair(t)
			outcome := make(chan error, 1)
			go func() {
				defer ours.Close()
				outcome <- HandOver(ours, old, tt.release, func() error { t.Error("left"); return nil })
			}()
			p, err := take(theirs)
			if err != nil {
				t.Fatal(err)
			}
			tt.successor(t, p)
			if err := <-outcome; err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			go func() {
				if conn, err := old[0].Accept(); err == nil {
					conn.Close()
				}
			}()
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			wantClosed(t, conn)
		})
	}
}

func TestRefuseHandOver(t *testing.T) {
	ours, theirs := unixPair(t)
	go RefuseHandOver(ours, "the daemon is running")
	if _, err := take(theirs); err == nil || err.Error() != "the daemon is running" {
		t.Errorf("got %v", err)
	}
}

// Closing a lease leaves the socket open when it is kept. Clients that connect
// meanwhile are answered under the next lease.
func TestLease(t *testing.T) {
	path := filepath.Join(sockDir(t), "s")
	l := listen(t, socket(t, "unix:"+path))
	first := Lease(l, func(Socket) bool { return true })
	accepted := make(chan error, 1)
	go func() { _, err := first[0].Accept(); accepted <- err }()
	if err := first[0].Close(); err != nil {
		t.Error(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	waiting, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	second := Lease(l, func(Socket) bool { return false })
	conn, err := second[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	wantClosed(t, waiting)
	if err := second[0].Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the path is left: ", err)
	}
}

func FuzzHandoverMessage(f *testing.F) {
	f.Add([]byte(`{"say":"take"}` + "\n"))
	f.Add([]byte(`{"say":"sockets","sockets":[{"network":"tcp","address":"x"}]}` + "\n"))
	f.Add([]byte("\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours, theirs := unixPair(t)
		go func() {
			_, _ = ours.Write(text)
			_ = ours.Close()
		}()
		_, files, err := link{theirs}.receive()
		if err == nil && len(files) != 0 {
			t.Error("descriptors out of nothing")
		}
	})
}
