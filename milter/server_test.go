package milter

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	library "github.com/emersion/go-milter"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// The library does not recover from a panic in NewMilter.
func TestPanicInNewMilter(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	server := New(Options{Log: zap.New(core), Records: record.Log{Logger: zap.New(core)}}, Settings{})
	near, far := net.Pipe()
	defer far.Close()
	s := newSession(t.Context(), server, near, VerifyOnly)
	server.start(s, func() library.Milter { panic("boom") })
	<-s.done
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is open: %v", err)
	}
	lines := logs.FilterMessage(record.Message).All()
	if len(lines) != 1 || lines[0].ContextMap()["reason"] != string(record.Panicked) {
		t.Errorf("log %+v", logs.All())
	}
	if stack := logs.FilterMessage("panic in a milter session").All(); len(stack) != 1 {
		t.Errorf("log %+v", logs.All())
	}
}

func TestOneShot(t *testing.T) {
	only := &wholeIn{}
	o := &oneShot{conn: only}
	if conn, err := o.Accept(); conn != only || err != nil {
		t.Errorf("first Accept: %v, %v", conn, err)
	}
	if conn, err := o.Accept(); conn != nil || err != io.EOF {
		t.Errorf("second Accept: %v, %v", conn, err)
	}
	if err := o.Close(); err != nil || only.closed {
		t.Errorf("the connection does not survive its listener: %v", err)
	}
}

func TestPulse(t *testing.T) {
	t.Run("quick work needs none", func(t *testing.T) {
		p := startPulse(func() error { t.Error("progress"); return nil }, func() { t.Error("lost") })
		p.stop()
	})
	t.Run("failure", func(t *testing.T) {
		lost := make(chan struct{})
		p := startPulse(func() error { return errors.New("gone") }, func() { close(lost) })
		p.timer.Reset(0)
		<-lost
		p.stop()
	})
}

// wholeIn is a connection whose peer has sent everything and reads all.
type wholeIn struct {
	net.Conn
	in     io.Reader
	out    strings.Builder
	closed bool
}

func (c *wholeIn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *wholeIn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *wholeIn) Close() error                     { c.closed = true; return nil }
func (c *wholeIn) SetReadDeadline(time.Time) error  { return nil }
func (c *wholeIn) SetWriteDeadline(time.Time) error { return nil }

// mirror puts what the peer sent into every answer.
type mirror struct{ m *Message }

func (mirror) Begin(_ context.Context, s *Session, m *Message) (Work, Answer, error) {
	if s.Helo == "reject" {
		return nil, Answer{Verdict: Reject, Reply: Reply{Text: m.Sender.Raw}}, nil
	}
	return mirror{m}, Answer{}, nil
}
func (w mirror) Headers(context.Context) (Answer, error) { return Answer{}, nil }
func (w mirror) Body([]byte) error                       { return nil }
func (w mirror) Close()                                  {}
func (w mirror) Finish(context.Context) (Decision, error) {
	var d Decision
	for _, f := range w.m.Header {
		d.Insert = append(d.Insert, Insertion{Name: f.Name, Value: f.Value})
		d.Delete = append(d.Delete, Position{f.Name, len(d.Insert)})
	}
	d.Quarantine = w.m.Get("Subject")
	return d, nil
}

type panicCounter struct{ t *testing.T }

func (c panicCounter) Record(r *record.Record, _ time.Time) {
	if r.Reason == record.Panicked {
		c.t.Errorf("panic: %v", r.Err)
	}
}

// FuzzSession runs whole sessions: no stream of frames may make them panic, hang,
// or send anything but well-formed frames.
func FuzzSession(f *testing.F) {
	offer := wiretest.Frame('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff")
	connect := wiretest.Frame('C', "h\x004\x00\x19192.0.2.1\x00")
	f.Add("D\x00\x04Mi\x001\x00", "H\x00\x03hx\x00")
	f.Add("M<a@example.org>\x00", "Subject")
	seed := func(frames ...[]byte) {
		var all strings.Builder
		for _, frame := range frames {
			all.Write(frame)
		}
		f.Add(all.String(), "x\x00")
	}
	w := wiretest.Frame
	seed(w('H', "reject\x00"), w('M', "<a%b@example.org>\x00"), w('R', "<x>\x00"), w('N', ""), w('B', "x"), w('E', ""))
	seed(w('M', "<a@example.org>\x00"), w('L', "A\x00 b\n c\x00"), w('L', "Subject\x00 \x01\x00"), w('N', ""), w('E', ""), w('Q', ""))
	seed(w('M', "\x00\x00"), w('D', "Mi"), w('L', "A\x00b\x00c\x00"))
	f.Fuzz(func(t *testing.T, stream, more string) {
		for _, kind := range []Listen{VerifyOnly, SignOnly} {
			conn := &wholeIn{in: strings.NewReader(string(offer) + string(connect) + stream + more)}
			server := New(Options{Records: panicCounter{t}}, Settings{Sign: mirror{}, Verify: mirror{}})
			server.ServeConn(t.Context(), conn, kind)
			checkFrames(t, conn.out.String())
		}
	})
}

// checkFrames fails unless out is whole frames of the protocol.
func checkFrames(t *testing.T, out string) {
	for out != "" {
		n := int(out[0])<<24 | int(out[1])<<16 | int(out[2])<<8 | int(out[3])
		if n == 0 || len(out) < 4+n || !strings.ContainsRune("Ocaymiqp", rune(out[4])) {
			t.Fatalf("sent %q", out)
		}
		out = out[4+n:]
	}
}
