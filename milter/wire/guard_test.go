package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// scripted is a connection whose peer sends the content of in, and records each write
// to it.
type scripted struct {
	net.Conn
	in     io.Reader
	writes [][]byte
	closed int
}

func (s *scripted) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error) {
	s.writes = append(s.writes, bytes.Clone(p))
	return len(p), nil
}
func (s *scripted) Close() error                     { s.closed++; return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

func frame(c Command, payload string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1))) + string(byte(c)) + payload
}

const (
	allActions  = 0x1ff
	allProtocol = 0x1fffff
)

func offer(version, actions, protocol uint32) string {
	var b []byte
	for _, v := range []uint32{version, actions, protocol} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return frame(Negotiate, string(b))
}

var (
	negotiated = offer(6, allActions, allProtocol)
	connected  = negotiated + frame(Connect, "client.example\x004\x30\x39192.0.2.1\x00")
	inEnvelope = connected + frame(Mail, "<a@example.org>\x00")
	inContent  = inEnvelope + frame(Rcpt, "<b@example.com>\x00") + frame(EndHeader, "")
)

// readAll returns all octets that the library would see.
func readAll(t testing.TB, in io.Reader) (string, *Guard) {
	t.Helper()
	g := New(&scripted{in: in}, Config{})
	out, err := io.ReadAll(g)
	if err != nil {
		t.Fatalf("the library sees %v; only the end of the stream is expected", err)
	}
	return string(out), g
}

func TestGuardPassesSession(t *testing.T) {
	session := inContent + frame(Body, "one\r\n") + frame(Body, "") + frame(EndBody, "") +
		frame(Mail, "<second@example.org>\x00SIZE=5\x00") + frame(Abort, "") +
		frame(Helo, "after.starttls\x00") + frame(Abort, "") +
		frame(Mail, "<>\x00") + frame(Helo, "x\x00") + frame(Rcpt, "<c@example.com>\x00") +
		frame(Data, "") + frame(Header, "From\x00 x\n y\x00") + frame(Header, "Empty\x00\x00") +
		frame(EndHeader, "") + frame(Body, strings.Repeat("x", MaxBodyChunk)) + frame(EndBody, "") +
		frame(Mail, "<third@example.org>\x00") + frame(Header, "X\x00\x00") +
		frame(Mail, "<fourth@example.org>\x00") + frame(Quit, "")
	readers := map[string]func(io.Reader) io.Reader{
		"whole":  func(r io.Reader) io.Reader { return r },
		"octets": iotest.OneByteReader,
		"halves": iotest.HalfReader,
		"eof":    iotest.DataErrReader,
	}
	for name, reader := range readers {
		t.Run(name, func(t *testing.T) {
			got, g := readAll(t, reader(strings.NewReader(session)))
			if got != session {
				t.Errorf("the library sees %d octets of %d", len(got), len(session))
			}
			if g.Err() != nil {
				t.Errorf("reason %v", g.Err())
			}
		})
	}
}

func TestGuardRefuses(t *testing.T) {
	tests := []struct{ name, sent, passes, reason string }{
		{"zero length", "\x00\x00\x00\x00", "", "length zero"},
		{"zero length later", connected + "\x00\x00\x00\x00", connected, "length zero"},
		{"4 GiB", "\xff\xff\xff\xffO", "", "too long"},
		{"2 GiB", inContent + "\x80\x00\x00\x00B", inContent, "too long"},
		{"unknown command", connected + frame('?', "NOOP\x00"), connected, "unknown command"},
		{"negotiation in a session", connected + negotiated, connected, "negotiation out of order"},
		{"body before a message", connected + frame(Body, "x"), connected, "body out of order"},
		{"end of body before a message", connected + frame(EndBody, ""), connected, "end of body out of order"},
		{"negotiation twice, an old one", negotiated + offer(1, allActions, allProtocol), negotiated, "version 1"},
		{"NUL as command", connected + frame(0, ""), connected, "unknown command"},
		{"text protocol", "EHLO client.example\r\n", "", "too long"},
		{"connect before negotiation", frame(Connect, "h\x00U"), "", "CONNECT out of order"},
		{"connect twice", connected + frame(Connect, "h\x00U"), connected, "CONNECT out of order"},
		{"rcpt before mail", connected + frame(Rcpt, "<>\x00"), connected, "RCPT out of order"},
		{"header before mail", connected + frame(Header, "A\x00b\x00"), connected, "header out of order"},
		{"header after header", inContent + frame(Header, "A\x00b\x00"), inContent, "header out of order"},
		{"rcpt in body", inContent + frame(Rcpt, "<>\x00"), inContent, "RCPT out of order"},
		{"macros before negotiation", frame(Macro, "Cj\x00mx\x00"), "", "macro out of order"},
		{"abort at once", frame(Abort, ""), "", "ABORT out of order"},
		{"short negotiation", frame(Negotiate, "\x00\x00\x00\x06"), "", "too short"},
		{"old protocol", offer(1, allActions, allProtocol), "", "version 1"},
		{"connect of one string", negotiated + frame(Connect, "host\x00"), negotiated, "truncated CONNECT"},
		{"connect without end", negotiated + frame(Connect, "host"), negotiated, "truncated CONNECT"},
		{"connect without port", negotiated + frame(Connect, "host\x004"), negotiated, "truncated CONNECT"},
		{"connect with half a port", negotiated + frame(Connect, "host\x004\x00"), negotiated, "truncated CONNECT"},
		{"connect without address", negotiated + frame(Connect, "host\x006\x00\x19"), negotiated, "truncated CONNECT"},
		{"connect with open address", negotiated + frame(Connect, "host\x004\x00\x19192.0.2.1"), negotiated, "truncated CONNECT"},
		{"connect with more", negotiated + frame(Connect, "host\x004\x00\x19192.0.2.1\x00x\x00"), negotiated, "truncated CONNECT"},
		{"connect of odd family", negotiated + frame(Connect, "host\x00X\x00\x19a\x00"), negotiated, "family"},
		{"empty helo", connected + frame(Helo, ""), connected, "too short"},
		{"helo of two strings", connected + frame(Helo, "a\x00b\x00"), connected, "not one string"},
		{"helo without end", connected + frame(Helo, "abc"), connected, "not one string"},
		{"empty mail", connected + frame(Mail, ""), connected, "too short"},
		{"mail without end", connected + frame(Mail, "<a@b>"), connected, "end in NUL"},
		{"mail of many arguments", connected + frame(Mail, strings.Repeat("a\x00", maxArgs+1)), connected, "arguments"},
		{"long mail", connected + frame(Mail, strings.Repeat("a", MaxCommandFrame)+"\x00"), connected, "too long"},
		{"header of one string", inEnvelope + frame(Header, "Subject\x00"), inEnvelope, "not two strings"},
		{"header of three strings", inEnvelope + frame(Header, "A\x00b\x00c\x00"), inEnvelope, "not two strings"},
		{"header without end", inEnvelope + frame(Header, "A\x00bcd"), inEnvelope, "not two strings"},
		{"header without name", inEnvelope + frame(Header, "\x00b\x00"), inEnvelope, "without a name"},
		{"header without NUL", inEnvelope + frame(Header, "abc"), inEnvelope, "without a name"},
		{"empty macro packet", connected + frame(Macro, ""), connected, "too short"},
		{"macro of unknown command", connected + frame(Macro, "Xi\x001\x00"), connected, "macros for unknown"},
		{"macro of NUL", connected + frame(Macro, "\x00i\x001\x00"), connected, "macros for unknown"},
		{"macro without value", connected + frame(Macro, "Mi\x00"), connected, "without a value"},
		{"macro without end", connected + frame(Macro, "Mi\x001"), connected, "end in NUL"},
		{"many macros", connected + frame(Macro, "M"+strings.Repeat("i\x001\x00", MaxMacroFrame)), connected, "too long"},
		{"end of header with payload", inEnvelope + frame(EndHeader, "x"), inEnvelope, "too long"},
		{"end of body with a chunk", inContent + frame(EndBody, "x"), inContent, "too long"},
		{"long chunk", inContent + frame(Body, strings.Repeat("x", MaxBodyChunk+1)), inContent, "too long"},
		{"cut in the length", connected + "\x00\x00", connected, "inside a frame"},
		{"cut in a header", inEnvelope + frame(Header, "A\x00b\x00")[:7], inEnvelope, "inside a frame"},
		{"cut in a chunk", inContent + frame(Body, "0123456789")[:9], inContent + frame(Body, "0123456789")[:9], "inside a frame"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, g := readAll(t, strings.NewReader(tt.sent))
			if got != tt.passes {
				t.Errorf("the library sees %d octets %q, want %d", len(got), got, len(tt.passes))
			}
			if g.Err() == nil || !strings.Contains(g.Err().Error(), tt.reason) {
				t.Errorf("reason %v, want %q", g.Err(), tt.reason)
			}
		})
	}
}

// A claimed length must not cost memory before the octets come.
func TestClaimedLengthCostsLittle(t *testing.T) {
	sent := inEnvelope + "\x00\x10\x00\x00L" + "abc"
	_, g := readAll(t, strings.NewReader(sent))
	if !errors.Is(g.Err(), ErrTruncated) {
		t.Fatalf("reason %v", g.Err())
	}
	if len(g.buf) != readSize {
		t.Errorf("the buffer has grown to %d octets", len(g.buf))
	}
}

func TestLargeFrameBufferIsReturned(t *testing.T) {
	value := strings.Repeat("v", 100_000)
	sent := inEnvelope + frame(Header, "X-Long\x00 "+value+"\x00") + frame(Header, "A\x00 b\x00") + frame(EndHeader, "")
	for name, in := range map[string]io.Reader{
		"whole":  strings.NewReader(sent),
		"octets": iotest.OneByteReader(strings.NewReader(sent)),
	} {
		t.Run(name, func(t *testing.T) {
			got, g := readAll(t, in)
			if got != sent {
				t.Errorf("the library sees %d octets of %d", len(got), len(sent))
			}
			if len(g.buf) != readSize {
				t.Errorf("the buffer keeps %d octets", len(g.buf))
			}
		})
	}
}

func TestHeaderOverflowIsSwallowed(t *testing.T) {
	many := strings.Repeat(frame(Header, "A\x00b\x00"), MaxHeaders)
	long := frame(Header, "A\x00"+strings.Repeat("b", 100_000)+"\x00")
	flood := strings.Repeat(long, MaxHeaderBytes/100_000)
	tests := []struct {
		name, fields string
		extra        string
		overflow     bool
	}{
		{"as many as allowed", many, "", false},
		{"one too many", many, frame(Header, "X\x00y\x00"), true},
		{"as long as allowed", flood, "", false},
		{"too long", flood, strings.Repeat(long, 3), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, g := readAll(t, strings.NewReader(inEnvelope+tt.fields+tt.extra+frame(EndHeader, "")))
			if want := inEnvelope + tt.fields + frame(EndHeader, ""); got != want {
				t.Errorf("the library sees %d octets, want %d", len(got), len(want))
			}
			if g.HeaderOverflow() != tt.overflow {
				t.Errorf("HeaderOverflow() = %v", g.HeaderOverflow())
			}
			got, g = readAll(t, strings.NewReader(inEnvelope+tt.fields+tt.extra+frame(Abort, "")+frame(Quit, "")))
			if g.HeaderOverflow() || !strings.HasSuffix(got, frame(Quit, "")) {
				t.Error("the overflow outlives its message")
			}
		})
	}
}

// Large headers of all connections share one bound. Without room, fields of a message
// are dropped and reported. There is room again when the other messages are done.
func TestLargeHeadersShareRoom(t *testing.T) {
	b := new(Buffers)
	hold := DefaultHeaderRoom - 100_000
	if !b.lend(hold) {
		t.Fatal("nothing is lent")
	}
	field := frame(Header, "X\x00"+strings.Repeat("y", 90_000)+"\x00")
	begin := inEnvelope
	guard := func(text string) *Guard {
		g := New(&scripted{in: strings.NewReader(text)}, Config{Buffers: b})
		_, _ = io.Copy(io.Discard, g)
		return g
	}
	small := guard(begin + field)
	if small.HeaderNoRoom() || small.lent == 0 {
		t.Errorf("no room: %v, lent %d", small.HeaderNoRoom(), small.lent)
	}
	// The buffer of a frame that is too large to keep does not grow either.
	huge := guard(begin + frame(Header, "X\x00"+strings.Repeat("y", 900_000)+"\x00") + frame(EndHeader, ""))
	if !huge.HeaderNoRoom() || len(huge.buf) != readSize || huge.Err() != nil {
		t.Errorf("no room: %v, a buffer of %d octets, %v", huge.HeaderNoRoom(), len(huge.buf), huge.Err())
	}
	large := guard(begin + strings.Repeat(field, 3))
	if !large.HeaderNoRoom() || large.HeaderOverflow() {
		t.Errorf("no room: %v, overflow: %v", large.HeaderNoRoom(), large.HeaderOverflow())
	}
	for _, end := range []func(g *Guard){(*Guard).MessageDone, func(g *Guard) { _ = g.Close() }} {
		end(small)
		end(large)
		if left := b.headers.Load(); left != int64(hold) {
			t.Errorf("%d octets are not given back", left-int64(hold))
		}
	}
	next := guard(begin + strings.Repeat(field, 3) + frame(Abort, "") + frame(Mail, "<b@x>\x00") + field)
	if next.HeaderNoRoom() {
		t.Error("the next message of the session has no room either")
	}
}

// The room can be smaller than usual. A header that needs none of it is kept.
func TestHeaderRoom(t *testing.T) {
	b := &Buffers{HeaderRoom: 100_000}
	guard := func(value int) *Guard {
		g := New(&scripted{in: strings.NewReader(inEnvelope + frame(Header, "X\x00"+strings.Repeat("y", value)+"\x00"))}, Config{Buffers: b})
		_, _ = io.Copy(io.Discard, g)
		return g
	}
	for _, tt := range []struct {
		value int
		kept  bool
	}{{90_000, true}, {90_000, false}, {15_000, true}} {
		if g := guard(tt.value); g.HeaderNoRoom() == tt.kept {
			t.Errorf("a header of %d octets: no room: %v", tt.value, g.HeaderNoRoom())
		}
	}
}

// The library keeps a header that never ends, also after the next MAIL.
func TestUnfinishedHeadersAddUp(t *testing.T) {
	again := frame(Mail, "<>\x00") + strings.Repeat(frame(Header, "A\x00b\x00"), MaxHeaders/4)
	got, g := readAll(t, strings.NewReader(connected+strings.Repeat(again, 10)+frame(EndHeader, "")))
	if n := strings.Count(got, "LA\x00b\x00"); n != MaxHeaders || !g.HeaderOverflow() {
		t.Errorf("%d fields passed", n)
	}
	got, g = readAll(t, strings.NewReader(connected+strings.Repeat(again+frame(EndHeader, ""), 10)))
	if n := strings.Count(got, "LA\x00b\x00"); n != 10*MaxHeaders/4 || g.HeaderOverflow() {
		t.Errorf("%d fields of ended headers passed", n)
	}
}

func TestWritesLeaveTogether(t *testing.T) {
	conn := &scripted{in: strings.NewReader(negotiated + frame(Quit, ""))}
	g := New(conn, Config{})
	buf := make([]byte, len(negotiated))
	if _, err := io.ReadFull(g, buf); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"modification", "another", "verdict"} {
		if _, err := g.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Progress(); err != nil || len(conn.writes) != 0 {
		t.Fatalf("before the next read %d writes (progress: %v), want none", len(conn.writes), err)
	}
	if rest, err := io.ReadAll(g); err != nil || string(rest) != frame(Quit, "") {
		t.Fatalf("rest %q, %v", rest, err)
	}
	if len(conn.writes) != 1 || string(conn.writes[0]) != "modificationanotherverdict" {
		t.Errorf("writes %q, want one", conn.writes)
	}
	if err := g.Progress(); err != nil || string(conn.writes[1]) != progress {
		t.Errorf("progress %q, %v", conn.writes[1:], err)
	}
}

func TestUnsentIsBounded(t *testing.T) {
	conn := &scripted{in: strings.NewReader("")}
	g := New(conn, Config{})
	for range 100 {
		if _, err := g.Write(make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if len(g.unsent) >= maxUnsent {
			t.Fatalf("%d octets wait", len(g.unsent))
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	var total int
	for _, w := range conn.writes {
		total += len(w)
	}
	if total != 100*4096 {
		t.Errorf("%d octets left, want %d", total, 100*4096)
	}
}

// Frames of Send leave with what Write was given, and not after the end.
func TestSend(t *testing.T) {
	conn := &scripted{in: strings.NewReader("")}
	g := New(conn, Config{})
	if err := errors.Join(g.Send('i', "one", "\x00", ""), g.Send('a'), g.Flush()); err != nil {
		t.Fatal(err)
	}
	if got := string(bytes.Join(conn.writes, nil)); got != frame('i', "one\x00")+frame('a', "") {
		t.Errorf("sent %q", got)
	}
	if err := g.Send('i', strings.Repeat("x", maxUnsent)); err != nil || len(conn.writes) != 2 {
		t.Errorf("%d writes, %v", len(conn.writes), err)
	}
	g.Fail(ErrCut)
	if err := g.Send('a'); err != ErrCut {
		t.Errorf("after the end: %v", err)
	}
}

func TestFailDropsUnsent(t *testing.T) {
	conn := &scripted{in: strings.NewReader(connected)}
	closed := 0
	g := New(conn, Config{Closed: func() { closed++ }})
	if _, err := g.Write([]byte("half an answer")); err != nil {
		t.Fatal(err)
	}
	reason := errors.New("reason")
	g.Fail(reason)
	g.Fail(errors.New("later"))
	if _, err := g.Write([]byte("x")); err == nil {
		t.Error("a failed connection takes writes")
	}
	if rest, err := io.ReadAll(g); err != nil || len(rest) > 0 {
		t.Errorf("a failed connection gives %q, %v", rest, err)
	}
	for range 2 {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(conn.writes) != 0 || conn.closed != 1 || closed != 1 {
		t.Errorf("%d writes, closed %d times, told %d times", len(conn.writes), conn.closed, closed)
	}
	if g.Err() != reason {
		t.Errorf("reason %v", g.Err())
	}
}

// pair returns a guard over a pipe, the MTA's end, and the end of the reading.
func pair(t *testing.T, cfg Config) (*Guard, net.Conn, <-chan string) {
	near, far := net.Pipe()
	g := New(near, cfg)
	seen := make(chan string, 1)
	go func() {
		out, _ := io.ReadAll(g)
		_ = g.Close()
		seen <- string(out)
	}()
	t.Cleanup(func() { _ = far.Close() })
	return g, far, seen
}

func send(t *testing.T, conn net.Conn, s string) {
	t.Helper()
	if _, err := conn.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func TestDeadlines(t *testing.T) {
	header := frame(Header, "Subject\x00 "+strings.Repeat("x", 50)+"\x00")
	chunk := frame(Body, strings.Repeat("x", 60_000))
	tests := []struct {
		name  string
		play  func(t *testing.T, conn net.Conn)
		after time.Duration
		want  error
	}{
		{"says nothing", func(*testing.T, net.Conn) {}, DefaultFrame, ErrIdle},
		{"negotiates only", func(t *testing.T, c net.Conn) { send(t, c, negotiated) }, DefaultIdle, ErrIdle},
		{"sleeps between messages", func(t *testing.T, c net.Conn) { send(t, c, connected) }, DefaultIdle, ErrIdle},
		{"stops in a length", func(t *testing.T, c net.Conn) { send(t, c, connected+"\x00") }, DefaultFrame, ErrStalled},
		{"stops in a header", func(t *testing.T, c net.Conn) { send(t, c, inEnvelope+header[:20]) }, DefaultFrame, ErrStalled},
		{"stops in a chunk", func(t *testing.T, c net.Conn) { send(t, c, inContent+chunk[:30_000]) }, DefaultFrame, ErrStalled},
		{"drips a header", func(t *testing.T, c net.Conn) {
			send(t, c, inEnvelope)
			for i := range 6 {
				send(t, c, header[i:i+1])
				time.Sleep(DefaultFrame / 6)
			}
		}, DefaultFrame, ErrStalled},
		{"drips a chunk", func(t *testing.T, c net.Conn) {
			send(t, c, inContent)
			for i := range 6 {
				send(t, c, chunk[i*9000:(i+1)*9000])
				time.Sleep(DefaultFrame / 6)
			}
		}, DefaultFrame, ErrStalled},
		{"is slow but alive", func(t *testing.T, c net.Conn) {
			send(t, c, connected)
			for range 3 {
				time.Sleep(DefaultIdle - time.Second)
				send(t, c, frame(Mail, "<>\x00"))
			}
		}, 3*(DefaultIdle-time.Second) + DefaultIdle, ErrIdle},
	}
	for _, tt := range tests {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, bodies kept: %t", tt.name, keep), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					start := time.Now()
					g, far, seen := pair(t, Config{KeepBodies: keep})
					tt.play(t, far)
					<-seen
					if !errors.Is(g.Err(), tt.want) {
						t.Errorf("reason %v, want %v", g.Err(), tt.want)
					}
					if took := time.Since(start); took != tt.after {
						t.Errorf("ended after %v, want %v", took, tt.after)
					}
				})
			})
		}
	}
}

// keptBodies reads a stream as a library does that leaves bodies to the guard. It
// returns what the library sees and the bodies that were asked for.
func keptBodies(t testing.TB, in io.Reader, ask func(chunk int) bool) (seen string, bodies []string, g *Guard) {
	t.Helper()
	g = New(&scripted{in: in}, Config{KeepBodies: true})
	for {
		var head [5]byte
		if _, err := io.ReadFull(g, head[:]); err != nil {
			return seen, bodies, g
		}
		rest := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(g, rest); err != nil {
			t.Fatal(err)
		}
		seen += string(head[:]) + string(rest)
		if Command(head[4]) != Body || !ask(len(bodies)) {
			continue
		}
		var body strings.Builder
		for {
			piece, err := g.BodyPiece()
			if err != nil || len(piece) == 0 {
				break
			}
			body.Write(piece)
		}
		bodies = append(bodies, body.String())
	}
}

// The octets of body chunks go only to the caller, whether or not it asks for them.
// The library sees everything else unchanged.
func TestKeptBodies(t *testing.T) {
	chunks := []string{"one\r\n", "", strings.Repeat("x", MaxBodyChunk), strings.Repeat("y", 20_000)}
	stream, empty := inContent, inContent
	for _, chunk := range chunks {
		stream += frame(Body, chunk)
		empty += frame(Body, "")
	}
	end := frame(EndBody, "") + frame(Mail, "<c@example.org>\x00")
	for name, in := range map[string]func() io.Reader{
		"whole":  func() io.Reader { return strings.NewReader(stream + end) },
		"halves": func() io.Reader { return iotest.HalfReader(strings.NewReader(stream + end)) },
		"octets": func() io.Reader { return iotest.OneByteReader(strings.NewReader(stream + end)) },
	} {
		seen, bodies, g := keptBodies(t, in(), func(int) bool { return true })
		if seen != empty+end || !slices.Equal(bodies, chunks) || g.Err() != nil {
			t.Errorf("%s: %d octets seen, %d bodies, %v", name, len(seen), len(bodies), g.Err())
		}
		seen, bodies, g = keptBodies(t, in(), func(int) bool { return false })
		if seen != empty+end || len(bodies) > 0 || g.Err() != nil {
			t.Errorf("%s, not asked for: %d octets seen, %d bodies, %v", name, len(seen), len(bodies), g.Err())
		}
	}
	cut := stream[:len(stream)-1]
	for _, ask := range []bool{true, false} {
		seen, _, g := keptBodies(t, strings.NewReader(cut), func(int) bool { return ask })
		if seen != empty || !errors.Is(g.Err(), ErrTruncated) {
			t.Errorf("cut in a chunk, asked for: %t: %d octets seen, %v", ask, len(seen), g.Err())
		}
	}
}

// Large buffers are borrowed for large chunks only, as far as there are some, and given
// back when the chunk is over, and at the end of the connection.
func TestLargeBuffersAreBorrowed(t *testing.T) {
	chunk := strings.Repeat("x", MaxBodyChunk)
	stream := inContent + frame(Body, chunk) + frame(Body, "small") + frame(EndBody, "")
	for name, test := range map[string]struct {
		lent  int64
		large bool
	}{"free": {0, true}, "all lent": {maxLarge, false}} {
		b := new(Buffers)
		b.larges.Store(test.lent)
		g := New(&scripted{in: iotest.HalfReader(strings.NewReader(stream))}, Config{KeepBodies: true, Buffers: b})
		if _, err := io.ReadFull(g, make([]byte, len(inContent)+5)); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < len(chunk); {
			piece, err := g.BodyPiece()
			if err != nil {
				t.Fatal(err)
			}
			got += len(piece)
		}
		if test.large != (g.large != nil) {
			t.Errorf("%s: borrowed %v", name, g.large != nil)
		}
		if _, err := io.ReadFull(g, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if piece, err := g.BodyPiece(); string(piece) != "small" || err != nil || g.large != nil {
			t.Errorf("%s: piece %q, %v, borrowed %v", name, piece, err, g.large != nil)
		}
		if err := g.Close(); err != nil || b.larges.Load() != test.lent {
			t.Errorf("%s: %d buffers are lent, %v", name, b.larges.Load(), err)
		}
	}
}

func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // no one reads from far
		defer far.Close()
		g := New(near, Config{})
		start := time.Now()
		if err := g.Progress(); !errors.Is(err, ErrStalled) {
			t.Errorf("progress: %v", err)
		}
		if _, err := g.Write([]byte("reply")); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read: %v", err)
		}
		if !errors.Is(g.Err(), ErrStalled) || time.Since(start) != 2*DefaultWrite {
			t.Errorf("reason %v after %v", g.Err(), time.Since(start))
		}
		_ = g.Close() // has nothing left to send and does not wait again
		if time.Since(start) != 2*DefaultWrite {
			t.Errorf("close took %v", time.Since(start)-2*DefaultWrite)
		}
	})
}

func TestStop(t *testing.T) {
	t.Run("between messages", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, far, seen := pair(t, Config{})
			send(t, far, connected)
			synctest.Wait()
			g.Stop()
			if got := <-seen; got != connected || !errors.Is(g.Err(), ErrStopped) {
				t.Errorf("saw %d octets, reason %v", len(got), g.Err())
			}
		})
	})
	t.Run("in a message", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g, far, seen := pair(t, Config{})
			send(t, far, inEnvelope)
			synctest.Wait()
			g.Stop()
			time.Sleep(time.Hour)
			send(t, far, frame(Rcpt, "<b@example.com>\x00"))
			send(t, far, frame(Abort, "")) // the message is over, and so is the session
			if got := <-seen; !strings.HasSuffix(got, frame(Abort, "")) || !errors.Is(g.Err(), ErrStopped) {
				t.Errorf("saw %q, reason %v", got, g.Err())
			}
		})
	})
	t.Run("after the final reply", func(t *testing.T) {
		conn := &scripted{in: strings.NewReader(inEnvelope)}
		g := New(conn, Config{})
		if _, err := io.ReadFull(g, make([]byte, len(inEnvelope))); err != nil {
			t.Fatal(err)
		}
		g.Stop()
		g.MessageDone()
		_, _ = g.Write([]byte("verdict"))
		if _, err := g.Read(make([]byte, 1)); err != io.EOF || !errors.Is(g.Err(), ErrStopped) {
			t.Errorf("read %v, reason %v", err, g.Err())
		}
		if len(conn.writes) != 1 {
			t.Error("the verdict was not sent")
		}
	})
	t.Run("woken although a message began", func(t *testing.T) {
		conn := &scripted{in: io.MultiReader(strings.NewReader(inEnvelope),
			iotest.ErrReader(os.ErrDeadlineExceeded))}
		g := New(conn, Config{})
		if _, err := io.ReadFull(g, make([]byte, len(inEnvelope))); err != nil {
			t.Fatal(err)
		}
		g.stop.Store(true) // Stop, with its look at inMail before MAIL came
		conn.in = io.MultiReader(&once{err: os.ErrDeadlineExceeded}, strings.NewReader(frame(Rcpt, "<x@example.org>\x00")))
		if _, err := io.ReadFull(g, make([]byte, 5)); err != nil {
			t.Errorf("the message was cut: %v, %v", err, g.Err())
		}
		conn.in = iotest.ErrReader(os.ErrDeadlineExceeded)
		if _, err := io.ReadAll(g); err != nil || !errors.Is(g.Err(), ErrIdle) {
			t.Errorf("a second time-out is real: %v, %v", err, g.Err())
		}
	})
}

// once fails once, then returns io.EOF.
type once struct{ err error }

func (o *once) Read([]byte) (int, error) {
	err := o.err
	o.err = io.EOF
	return 0, err
}

// Stop ends the connection at any time, but never inside a message.
func TestStopRace(t *testing.T) {
	for range 200 {
		near, far := net.Pipe()
		g := New(near, Config{})
		seen := make(chan string, 1)
		go func() {
			out, _ := io.ReadAll(g)
			_ = g.Close()
			seen <- string(out)
		}()
		go g.Stop()
		_, _ = far.Write([]byte(inEnvelope))
		_, _ = far.Write([]byte(frame(Abort, "")))
		got := <-seen
		if strings.Contains(got, frame(Mail, "<a@example.org>\x00")) && !strings.HasSuffix(got, frame(Abort, "")) {
			t.Fatalf("cut inside a message: %q, %v", got, g.Err())
		}
		_ = far.Close()
	}
}

func TestKill(t *testing.T) {
	g, far, seen := pair(t, Config{})
	send(t, far, inEnvelope)
	g.Kill()
	if got := <-seen; got != inEnvelope || !errors.Is(g.Err(), ErrCut) {
		t.Errorf("saw %q, reason %v", got, g.Err())
	}
}

func TestPayload(t *testing.T) {
	g := New(&scripted{in: strings.NewReader(inContent + frame(Body, "x"))}, Config{})
	var got []string
	for {
		var head [4]byte
		if _, err := io.ReadFull(g, head[:]); err != nil {
			break
		}
		rest := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(g, rest); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%c %q", rest[0], g.Payload()))
	}
	want := []string{
		`O "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff"`,
		`C "client.example\x00409192.0.2.1\x00"`,
		`M "<a@example.org>\x00"`, `R "<b@example.com>\x00"`, `N ""`, `B ""`,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("payloads\n%q\nwant\n%q", got, want)
	}
}
