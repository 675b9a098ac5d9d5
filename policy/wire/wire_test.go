package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pieces is a connection whose Read returns one piece at a time.
type pieces struct {
	net.Conn // nil: nothing else is called
	rest     []string
	read     int // octets handed out
	told     string
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[0])
	p.rest[0] = p.rest[0][n:]
	if p.rest[0] == "" {
		p.rest = p.rest[1:]
	}
	p.read += n
	return n, nil
}

// endless sends one octet for ever.
type endless struct {
	pieces
	octet byte
}

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = e.octet
	}
	e.read += len(b)
	return len(b), nil
}

func readAll(t *testing.T, in ...string) (requests [][]Attr, err error) {
	t.Helper()
	r := NewReader(&pieces{rest: in}, known...)
	for {
		attrs, err := r.Read()
		if err != nil {
			return requests, err
		}
		requests = append(requests, slices.Clone(attrs))
	}
}

const one = "request=smtpd_access_policy\nsender=a@b.example\nempty=\nx=1=2\n\n"

var oneAttrs = []Attr{{"request", "smtpd_access_policy", 2}, {"sender", "a@b.example", 1}, {"empty", "", 0}, {"x", "1=2", 0}}

// known is a vocabulary in an order that differs from Postfix's.
var known = []string{"sender", "request", "recipient"}

func TestReadSplitAnywhere(t *testing.T) {
	in := one + one
	for cut := 1; cut < len(in); cut++ {
		got, err := readAll(t, in[:cut], in[cut:])
		if err != io.EOF || len(got) != 2 || !slices.Equal(got[0], oneAttrs) || !slices.Equal(got[1], oneAttrs) {
			t.Fatalf("cut at %d: %+v, %v", cut, got, err)
		}
	}
	got, err := readAll(t, strings.Split(in, "")...)
	if err != io.EOF || len(got) != 2 {
		t.Fatalf("octet by octet: %d requests, %v", len(got), err)
	}
}

// The name that the previous request had at a place is only a guess.
func TestWords(t *testing.T) {
	requests := []string{
		"sender=a\nrequest=b\n", "sender=a\nrequest=b\n", "request=b\nsender=a\nrecipient=c\n", "sender=a\n", "request=b\nsende=x\nrecipient=c\n",
		"requests=x\nsender==\nrecipien=x\nsender=y\n", "request=\nsender\x00=x\nsender=z\n", "x=sender\n",
	}
	got, err := readAll(t, strings.Join(requests, "\n")+"\n")
	if err != io.EOF || len(got) != len(requests) {
		t.Fatalf("%d requests, %v", len(got), err)
	}
	for i, attrs := range got {
		var text strings.Builder
		for _, a := range attrs {
			text.WriteString(a.Name + "=" + a.Value + "\n")
			if a.Word != slices.Index(known, a.Name)+1 {
				t.Errorf("request %d: %q is word %d", i, a.Name, a.Word)
			}
		}
		if text.String() != requests[i] {
			t.Errorf("request %d: %q, want %q", i, text.String(), requests[i])
		}
	}
	if _, err := readAll(t, "sender=a\n\nsende\n\n"); err == io.EOF {
		t.Error("a line without a name was taken after one with it")
	}
}

func TestReadValuesAreData(t *testing.T) {
	for name, value := range map[string]string{
		"CR":            "a\rb\r",
		"NUL":           "a\x00b",
		"invalid UTF-8": "\xff\xfe\xc0\x80",
		"blank":         "  x ",
		"unknown":       "unknown",
	} {
		got, err := readAll(t, "v="+value+"\n\n")
		if err != io.EOF || len(got) != 1 || got[0][0].Value != value {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	many := strings.Repeat("a=b\n", MaxAttributes+1) + "\n"
	tests := map[string]struct{ in, problem string }{
		"empty request":     {"\n", "empty request"},
		"CR LF":             {"a=b\r\n\r\n\n", "LF"},
		"no equals sign":    {"hello\n\n", `"hello" is not name=value`},
		"no name":           {"=x\n\n", "not name=value"},
		"attributes":        {many, "more than 128 attributes"},
		"long line":         {"a=" + strings.Repeat("x", MaxLine) + "\n\n", "line longer"},
		"long request":      {strings.Repeat("a="+strings.Repeat("x", MaxLine-2)+"\n", 5) + "\n", "request longer"},
		"ends in a request": {"a=b\nc=", "closed within a request"},
		"HTTP":              {"GET / HTTP/1.1\r\nHost: x\r\n\n", "not name=value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := readAll(t, tt.in)
			var pe *ProtocolError
			if !errors.As(err, &pe) || !strings.Contains(pe.Problem, tt.problem) {
				t.Errorf("got %v, want a protocol error with %q", err, tt.problem)
			}
		})
	}
}

// A line of a gigabyte must cost no more memory than a request may have.
func TestReadBoundsMemory(t *testing.T) {
	for _, octet := range []byte{'x', '\r', 0} {
		conn := &endless{octet: octet}
		r := NewReader(conn)
		_, err := r.Read()
		var pe *ProtocolError
		if !errors.As(err, &pe) {
			t.Fatalf("got %v", err)
		}
		if conn.read > MaxRequest || len(r.buf) > MaxRequest {
			t.Errorf("took %d octets into a buffer of %d", conn.read, len(r.buf))
		}
	}
}

func TestBufferShrinksAgain(t *testing.T) {
	big := "a=" + strings.Repeat("x", MaxLine-2) + "\n\n"
	r := NewReader(&pieces{rest: []string{big, one}})
	for range 2 {
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.buf) != initialBuffer {
		t.Errorf("buffer of an idle connection: %d octets", len(r.buf))
	}
}

func TestTimeouts(t *testing.T) {
	tests := map[string]struct {
		send func(net.Conn)
		want func(error) bool
		took time.Duration
	}{
		"idle": {
			send: func(net.Conn) {},
			want: func(err error) bool { return err == ErrIdle },
			took: IdleTimeout,
		},
		"an octet a second": {
			send: func(c net.Conn) {
				for range 100 {
					if _, err := c.Write([]byte("a")); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			},
			want: func(err error) bool {
				var pe *ProtocolError
				return errors.As(err, &pe) && strings.Contains(pe.Problem, "not ended within 30s")
			},
			took: RequestTimeout,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server, client := net.Pipe()
				var sender sync.WaitGroup
				sender.Go(func() { tt.send(client) })
				defer sender.Wait()
				r := NewReader(server)
				begin := time.Now()
				r.Arm(begin)
				_, err := r.Read()
				if !tt.want(err) || time.Since(begin) != tt.took {
					t.Errorf("%v after %s", err, time.Since(begin))
				}
				server.Close()
				client.Close()
			})
		})
	}
}

// The deadline of a slow request must not end the connection later.
func TestRequestDeadlineEndsWithRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		defer server.Close()
		defer client.Close()
		go func() {
			client.Write([]byte(one[:10]))
			time.Sleep(RequestTimeout / 2)
			client.Write([]byte(one[10:]))
			time.Sleep(IdleTimeout / 2)
			client.Write([]byte(one))
		}()
		r := NewReader(server)
		for i := range 2 {
			r.Arm(time.Now())
			if _, err := r.Read(); err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
		}
	})
}

func TestWriteReply(t *testing.T) {
	server, client := net.Pipe()
	go func() {
		defer server.Close()
		scratch, _ := WriteReply(server, nil, "DUNNO")
		WriteReply(server, scratch, "DEFER x")
	}()
	got, _ := io.ReadAll(client)
	if want := "action=DUNNO\n\naction=DEFER x\n\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(one), 3)
	f.Add([]byte("client_address=unknown\n\n"), 1)
	f.Add([]byte("a=\r\nb=\x00\nc=\xff\n\n"), 5)
	f.Add([]byte("sender=a\nsender=b\n\n\n"), 7)
	f.Add([]byte(strings.Repeat("a=b\n", 10000)+"\n"), 4096)
	f.Add(bytes.Repeat([]byte("x"), MaxRequest+10), 1000)
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		size = max(1, min(size, 1<<16))
		var conn pieces
		for chunk := range slices.Chunk(in, size) {
			conn.rest = append(conn.rest, string(chunk))
		}
		r := NewReader(&conn, known...)
		var again strings.Builder
		for {
			attrs, err := r.Read()
			if err != nil {
				break
			}
			for _, a := range attrs {
				if a.Word != slices.Index(known, a.Name)+1 {
					t.Fatalf("%q is word %d", a.Name, a.Word)
				}
				if a.Name == "" || strings.ContainsAny(a.Name, "=\n") || strings.Contains(a.Value, "\n") {
					t.Fatalf("attribute %+v", a)
				}
				again.WriteString(a.Name + "=" + a.Value + "\n")
			}
			again.WriteString("\n")
		}
		if !bytes.HasPrefix(in, []byte(again.String())) {
			t.Fatalf("read %q from %q", again.String(), in)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var req strings.Builder
	var vocabulary []string
	for i := range 29 {
		vocabulary = append(vocabulary, "attribute"+strconv.Itoa(i))
		req.WriteString(vocabulary[i] + "=some value\n")
	}
	req.WriteString("\n")
	conn := &repeat{text: req.String()}
	r := NewReader(conn, vocabulary...)
	b.SetBytes(int64(req.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

type repeat struct {
	pieces
	text string
}

func (r *repeat) Read(b []byte) (int, error) { return copy(b, r.text), nil }
