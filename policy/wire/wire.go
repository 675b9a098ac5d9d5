// Package wire frames the Postfix policy delegation protocol: requests are
// "name=value" lines ended by an empty line, a reply is one "action=" line
// and an empty line (Postfix, SMTPD_POLICY_README).
//
// It knows no mail policy. Its invariants: a request never takes more memory
// than MaxRequest, whatever the client sends; a client that has begun a
// request must end it within RequestTimeout; and what does not follow the
// protocol is a *ProtocolError, after which the connection is of no use,
// because no one can tell where the next request begins.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// Bounds of a request. Postfix sends about 30 attributes and 1 kB; the largest
// values are certificate subjects and addresses, each below a few kB.
const (
	MaxRequest    = 64 << 10 // octets, the final empty line included
	MaxLine       = 16 << 10 // octets of one "name=value" line
	MaxAttributes = 128

	initialBuffer = 2 << 10
)

// Default time-outs of a Reader.
const (
	// IdleTimeout is how long a connection may wait for its next request.
	// Postfix closes first: smtpd_policy_service_max_idle is 300 s and
	// smtpd_policy_service_max_ttl 1000 s by default.
	IdleTimeout = time.Hour
	// RequestTimeout bounds the time from the first octet of a request to
	// its last. Postfix writes a request at once.
	RequestTimeout = 30 * time.Second
	// WriteTimeout bounds a reply. A reply is some hundred octets, so only a
	// client that has stopped reading gets there.
	WriteTimeout = 10 * time.Second

	// An idle deadline is renewed only when it has grown this much stale:
	// arming it for each request would cost more than parsing the request.
	idleSlack = time.Minute
)

// Attr is one attribute as it was sent, nothing decoded.
type Attr struct {
	Name, Value string
	// Word is the place of Name in the reader's vocabulary, counted from 1; 0
	// if it is not there.
	Word int
}

// ProtocolError says how a request broke the protocol.
type ProtocolError struct{ Problem string }

func (e *ProtocolError) Error() string { return "policy protocol: " + e.Problem }

func problem(format string, args ...any) error {
	return &ProtocolError{Problem: fmt.Sprintf(format, args...)}
}

var emptyLine = []byte("\n\n")

// ErrIdle reports that the client sent nothing for IdleTimeout (or that its
// read deadline was moved into the past to end the connection). No request
// was begun, so nothing is lost by closing.
var ErrIdle = errors.New("policy protocol: idle")

// Reader takes requests from one connection. It is not for concurrent use.
type Reader struct {
	conn  net.Conn
	buf   []byte // buf[start:end] was read and not yet consumed
	start int
	end   int
	attrs []Attr
	armed time.Time // when the idle deadline was last set

	vocabulary []string
	words      []int // of the attributes of the request before, at most MaxAttributes

}

// NewReader returns a Reader on conn with the default time-outs. The
// vocabulary is the names that the caller knows; it is not copied.
func NewReader(conn net.Conn, vocabulary ...string) *Reader {
	return &Reader{
		conn:       conn,
		buf:        make([]byte, initialBuffer),
		vocabulary: vocabulary,
	}
}

// Arm sets the idle deadline if it is due. The owner calls it before Read, so
// that it can look at its own stop signal between the two.
func (r *Reader) Arm(now time.Time) {
	if now.Sub(r.armed) > min(idleSlack, IdleTimeout/2) {
		r.armed = now
		r.conn.SetReadDeadline(now.Add(IdleTimeout))
	}
}

// Read returns the attributes of the next request. The slice is valid until
// the next call; the strings stay valid.
//
// The errors: io.EOF when the client closed between two requests, ErrIdle,
// a *ProtocolError, or the connection's own error.
func (r *Reader) Read() ([]Attr, error) {
	scanned := r.start // buf[start:scanned] holds no end of request
	timed := false
	for {
		if isMilter(r.buf[r.start:r.end]) {
			return nil, r.turnAway()
		}
		if n := r.endOfRequest(scanned); n > 0 {
			raw := string(r.buf[r.start:n])
			rest, err := r.parse(raw)
			r.consume(n - len(rest))
			if timed { // the request deadline must not outlive the request
				r.armed = time.Time{}
				r.Arm(time.Now())
			}
			return r.attrs, err
		}
		pending := r.end - r.start
		if pending >= MaxRequest {
			return nil, problem("request longer than %d octets", MaxRequest)
		}
		if pending > 0 && !timed {
			timed = true
			r.conn.SetReadDeadline(time.Now().Add(RequestTimeout))
		}
		scanned = r.makeRoom()
		n, err := r.conn.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			return nil, r.readError(err, pending)
		}
	}
}

// endOfRequest returns an index behind the empty line that ends the first
// request in the buffer, or 0. What lies before from was searched before. When
// the buffer ends in an empty line, that is nearly always the only one, so it
// is taken without a search; parse finds out.
func (r *Reader) endOfRequest(from int) int {
	if r.start == r.end {
		return 0
	}
	if r.buf[r.start] == '\n' { // an empty request
		return r.start + 1
	}
	unread := r.buf[r.start:r.end]
	if bytes.HasSuffix(unread, emptyLine) {
		return r.end
	}
	from = max(from-1, r.start) // the first \n may be the last octet searched
	if i := bytes.Index(r.buf[from:r.end], emptyLine); i >= 0 {
		return from + i + len(emptyLine)
	}
	return 0
}

// makeRoom moves what is unread to the front, grows a full buffer, and
// returns the index up to which the buffer has been searched.
func (r *Reader) makeRoom() int {
	if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.end -= r.start
		r.start = 0
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(2*len(r.buf), MaxRequest))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
	return r.end
}

// consume drops the request that ends at n, and a buffer that one large
// request has grown: hundreds of connections sit idle at a time.
func (r *Reader) consume(n int) {
	r.start = n
	if r.start < r.end {
		return
	}
	r.start, r.end = 0, 0
	if len(r.buf) > 2*initialBuffer {
		r.buf = make([]byte, initialBuffer)
	}
}

func (r *Reader) readError(err error, pending int) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && pending == 0:
		return ErrIdle
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem("request not ended within %s", RequestTimeout)
	case errors.Is(err, io.EOF) && pending > 0:
		return problem("connection closed within a request")
	}
	return err
}

// parse cuts the first request of raw, which ends in an empty line, into
// attributes, and returns what follows it.
func (r *Reader) parse(raw string) (rest string, err error) {
	attrs := r.attrs[:0]
	for raw[0] != '\n' {
		if len(attrs) == MaxAttributes {
			return "", problem("more than %d attributes", MaxAttributes)
		}
		n, word := r.guess(len(attrs), raw)
		if n == 0 {
			if n = nameLength(raw); n == 0 {
				return "", notAnAttribute(raw)
			}
			word = r.learn(len(attrs), raw[:n])
		}
		value, end := raw[n+1:], 0
		if value[0] != '\n' { // many are empty
			end = strings.IndexByte(value, '\n')
		}
		if n+1+end > MaxLine {
			return "", problem("line longer than %d octets", MaxLine)
		}
		attrs = append(attrs, Attr{Name: raw[:n], Value: value[:end], Word: word})
		raw = value[end+1:]
	}
	r.attrs = attrs
	if len(attrs) == 0 {
		return "", problem("empty request")
	}
	return raw[1:], nil
}

// guess gives the length of the name that lines begin with, and its word, if
// it is what the request before had at place i; else 0. Clients send the same
// attributes in the same order each time.
func (r *Reader) guess(i int, lines string) (n, word int) {
	if i >= len(r.words) || r.words[i] == 0 {
		return 0, 0
	}
	word = r.words[i]
	name := r.vocabulary[word-1]
	if n = len(name); n < len(lines) && lines[n] == '=' && lines[:n] == name {
		return n, word
	}
	return 0, 0
}

// learn gives the word of the name at place i.
func (r *Reader) learn(i int, name string) int {
	word := slices.Index(r.vocabulary, name) + 1
	if i == len(r.words) {
		r.words = append(r.words, word)
	} else {
		r.words[i] = word
	}
	return word
}

// nameLength is that of the name the first line begins with; 0 if it has none.
func nameLength(lines string) int {
	return max(0, strings.IndexByte(lines[:strings.IndexByte(lines, '\n')], '='))
}

// notAnAttribute says what is wrong with a line that has no name.
func notAnAttribute(lines string) error {
	line := lines[:strings.IndexByte(lines, '\n')]
	switch {
	case len(line) > MaxLine:
		return problem("line longer than %d octets", MaxLine)
	case line == "\r":
		return problem("lines end in CR LF; the protocol ends them in LF")
	}
	return problem("line %q is not name=value", clip(line))
}

// WriteReply sends "action=text" and the empty line in one write. It frames
// only: that text is a line which Postfix understands is the caller's affair.
// scratch is reused and returned.
func WriteReply(conn net.Conn, scratch []byte, text string) ([]byte, error) {
	scratch = append(scratch[:0], "action="...)
	scratch = append(scratch, text...)
	scratch = append(scratch, "\n\n"...)
	_, err := conn.Write(scratch)
	return scratch, err
}

// clip keeps a foreign line in an error short.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
