package remote

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestReadNetstring(t *testing.T) {
	long := strings.Repeat("x", MaxReply)
	for in, want := range map[string]string{"3:abc,": "abc", "0:,": "", "03:abc,": "abc", "100000:" + long + ",": long} {
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(in))); err != nil || got != want {
			t.Errorf("%.20q: got %.20q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "3", "3:", "3:ab", "3:abc", "3:abcd", ":abc,", "x3:abc,", "-1:,", "100001:", "99999999999999999999:", strings.Repeat("0", 20) + "1:a,"} {
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(in))); err == nil {
			t.Errorf("%.20q: got %q", in, got)
		}
	}
}

// serveReplies answers each request of a connection by the next of replies, then hangs up.
func serveReplies(t *testing.T, replies ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			in := bufio.NewReader(c)
			for _, reply := range replies {
				if _, err := readNetstring(in); err != nil {
					break
				}
				_, _ = io.WriteString(c, reply)
			}
			_ = c.Close()
		}
	}()
	return "inet:" + l.Addr().String() + ":map"
}

func TestSocketmapLookup(t *testing.T) {
	for reply, want := range map[string]string{"6:OK a b,": "a b", "3:OK ,": "", "9:NOTFOUND ,": "", "8:NOTFOUND,": "", "2:OK,": ""} {
		s, err := OpenSocketmap(serveReplies(t, reply), SocketmapOptions{MaxConns: 1, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the server hangs up after each: a new connection is made
			if got, err := s.Lookup(t.Context(), "key"); err != nil || strings.Join(got, ",") != want {
				t.Errorf("%q: got %q, %v", reply, got, err)
			}
		}
		if got, err := s.Lookup(t.Context(), strings.Repeat("x", MaxQuery+1)); err != nil || got != nil {
			t.Errorf("a key that is too long: %q, %v", got, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, reply := range []string{"6:TEMP x,", "9:TIMEOUT x,", "6:PERM x,", "4:what,", "garbage", "999999:", ""} {
		s, err := OpenSocketmap(serveReplies(t, reply), SocketmapOptions{MaxConns: 1, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Lookup(t.Context(), "key"); err == nil || IsKeyError(err) != strings.Contains(reply, "PERM") {
			t.Errorf("%q: got %q, %v", reply, got, err)
		}
	}
}

func TestSocketmapDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := OpenSocketmap("inet:"+l.Addr().String()+":map", SocketmapOptions{MaxConns: 1, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Lookup(ctx, "key"); err == nil {
		t.Error("a server that says nothing was understood")
	}
}

func FuzzReadNetstring(f *testing.F) {
	for _, in := range []string{"3:abc,", "0:,", ":", "00000000000", "100001:x", "-1:", "9:abc,"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if got, err := readNetstring(bufio.NewReader(strings.NewReader(in))); err == nil {
			if len(got) > MaxReply || !strings.Contains(in, ":"+got+",") {
				t.Errorf("%q: got %q", in, got)
			}
			_, _ = readReply(got)
		}
	})
}
