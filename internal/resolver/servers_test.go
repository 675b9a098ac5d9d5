package resolver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func names(list []*server) string {
	out := ""
	for _, s := range list {
		out += s.name[len(s.name)-4 : len(s.name)-3]
	}
	return out
}

func testPool(n int) *pool {
	var addrs []netip.AddrPort
	for i := range n {
		addrs = append(addrs, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:53", i)))
	}
	return newPool(addrs, nil)
}

func TestOrderRotatesAndPutsTheFailedLast(t *testing.T) {
	p, now := testPool(4), time.Now()
	seen := map[string]bool{}
	for range 4 {
		seen[names(p.order())] = true
	}
	if len(seen) != 4 || !seen["0123"] || !seen["3012"] {
		t.Errorf("rotation %v", seen)
	}
	for range 3 {
		p.all[1].blame(failUnreachable, now, now)
	}
	p.all[2].blame(failSilent, now, now)
	for range 8 {
		if got := names(p.order()); got != "0321" && got != "3021" {
			t.Errorf("order %s with 1 failed thrice and 2 once", got)
		}
	}
}

func TestHealth(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	for _, c := range []struct {
		name string
		do   func(s *server)
		down bool
	}{
		{"silence", func(s *server) { s.blame(failSilent, start, at(time.Second)) }, true},
		{"unreachable", func(s *server) { s.blame(failUnreachable, start, start) }, true},
		{"silence about one name", func(s *server) { s.answered(at(time.Second)); s.blame(failSilent, start, at(2*time.Second)) }, false},
		{"silence after an old answer", func(s *server) { s.answered(start); s.blame(failSilent, at(1), at(time.Second)) }, true},
		{"local error", func(s *server) { s.blame(failLocal, start, start) }, false},
		{"stopped", func(s *server) { s.blame(failStopped, start, start) }, false},
		{"some codes", func(s *server) { repeat(softLimit-1, func() { s.blame(failAnswer, start, start) }) }, false},
		{"many codes", func(s *server) { repeat(softLimit, func() { s.blame(failAnswer, start, start) }) }, true},
		{"codes and successes", func(s *server) {
			repeat(5*softLimit, func() { s.blame(failAnswer, start, start); s.succeeded(start) })
		}, false},
		{"recovered", func(s *server) { s.blame(failSilent, start, start); s.succeeded(start) }, false},
	} {
		s := testPool(1).all[0]
		c.do(s)
		if s.down != c.down {
			t.Errorf("%s: down %v", c.name, s.down)
		}
	}
}

func repeat(n int, f func()) {
	for range n {
		f()
	}
}

func TestProbesBackOff(t *testing.T) {
	s, now := testPool(1).all[0], time.Now()
	if s.claimProbe(now) {
		t.Error("a healthy server was probed")
	}
	s.blame(failSilent, now, now)
	s.blame(failSilent, now, now) // the same outage, seen by another lookup
	for _, rest := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		early := now.Add(rest*time.Second - 1)
		if s.claimProbe(early) {
			t.Fatalf("probed before %d s", rest)
		}
		now = now.Add(rest * time.Second)
		if !s.claimProbe(now) {
			t.Fatalf("not probed after %d s", rest)
		}
		if s.claimProbe(now) {
			t.Fatal("probed twice at once")
		}
		s.blame(failSilent, now, now)
		s.probed()
	}
}

func TestKindOf(t *testing.T) {
	live := t.Context()
	stopped, cancel := context.WithCancel(live)
	cancel()
	op := func(errno syscall.Errno) error {
		return &net.OpError{Op: "read", Net: "udp", Err: os.NewSyscallError("read", errno)}
	}
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want failKind
	}{
		{live, ServFail, failAnswer},
		{live, malformed(errors.New("x")), failAnswer},
		{live, os.ErrDeadlineExceeded, failSilent},
		{live, context.DeadlineExceeded, failSilent},
		{live, &net.OpError{Err: os.ErrDeadlineExceeded}, failSilent},
		{live, op(syscall.ETIMEDOUT), failSilent},
		{live, op(syscall.ECONNREFUSED), failUnreachable},
		{live, op(syscall.ENETUNREACH), failUnreachable},
		{live, op(syscall.EMFILE), failLocal},
		{live, op(syscall.EADDRNOTAVAIL), failLocal},
		{stopped, os.ErrDeadlineExceeded, failStopped},
	} {
		if got := kindOf(c.ctx, c.err); got != c.want {
			t.Errorf("%v: kind %d, want %d", c.err, got, c.want)
		}
	}
}

func TestFailures(t *testing.T) {
	s := testPool(1).all[0]
	refused := s.failed(failUnreachable, &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNREFUSED)})
	if got := refused.dnsError("a.example"); !errors.Is(got, ErrUnreachable) || !errors.Is(got, syscall.ECONNREFUSED) ||
		!got.IsTemporary || got.IsTimeout || got.IsNotFound || got.Server != "192.0.2.0:53" || got.Name != "a.example" {
		t.Errorf("%+v", got)
	}
	silent, code := s.failed(failSilent, os.ErrDeadlineExceeded), s.failed(failAnswer, Refused)
	if got := silent.dnsError("a"); !got.IsTimeout || !got.IsTemporary || !errors.Is(got, ErrTimeout) {
		t.Errorf("%+v", got)
	}
	if worse(nil, silent) != silent || worse(silent, code) != code || worse(code, silent) != code {
		t.Error("a server's word must outweigh another's silence")
	}
	if refused.kept() || !silent.kept() || !code.kept() {
		t.Error("only what servers said or failed to say is kept")
	}
	if got := s.failed(failStopped, context.Canceled); !errors.Is(got.cause, ErrClosed) || got.kept() {
		t.Errorf("%+v", got)
	}
	for code, want := range map[RCode]string{NoError: "NOERROR", FormErr: "FORMERR", ServFail: "SERVFAIL", NXDomain: "NXDOMAIN", NotImp: "NOTIMP", Refused: "REFUSED", 23: "23"} {
		if got := code.Error(); !strings.Contains(got, want) {
			t.Errorf("%d: %s", code, got)
		}
	}
}
