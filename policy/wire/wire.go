// Package wire reads and writes messages of the Postfix policy delegation
// protocol (Postfix, SMTPD_POLICY_README). A request is "name=value" lines that
// end in an empty line. A reply is one "action=" line and an empty line.
//
// It contains no mail policy. Its invariants: a request never takes more memory
// than MaxRequest, whatever the client sends. A client that has begun a request
// must end it within RequestTimeout. A violation of the protocol is a
// *ProtocolError. The connection cannot be used after it, because the start of
// the next request is unknown.
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

// The default time-outs.
const (
	// IdleTimeout is how long a connection may wait for its next request.
	// Postfix closes earlier by default: smtpd_policy_service_max_idle is 300 s
	// and smtpd_policy_service_max_ttl is 1000 s.
	IdleTimeout = time.Hour
	// RequestTimeout bounds the time from the first octet of a request to
	// its last. Postfix writes a request at once.
	RequestTimeout = 30 * time.Second
	// WriteTimeout is the longest time to write a reply. A reply is some
	// hundred octets, so only a client that has stopped reading reaches it.
	WriteTimeout = 10 * time.Second

	// An idle deadline is renewed only when it is this old. To set it for each
	// request would cost more than to parse the request.
	idleSlack = time.Minute
)

// Attr is one attribute as it was sent, without decoding.
type Attr struct {
	Name, Value string
	// Word is the position of Name in the reader's vocabulary, from 1; 0 if it
	// is not there.
	Word int
}

// ProtocolError describes how a request broke the protocol.
type ProtocolError struct{ Problem string }

func (e *ProtocolError) Error() string { return "policy protocol: " + e.Problem }

func problem(format string, args ...any) error {
	return &ProtocolError{Problem: fmt.Sprintf(format, args...)}
}

var emptyLine = []byte("\n\n")

// ErrIdle means that the client sent nothing for IdleTimeout, or that its read
// deadline was moved into the past to end the connection. No request had begun,
// so nothing is lost by closing.
var ErrIdle = errors.New("policy protocol: idle")

// Reader reads requests from one connection. It is not safe for concurrent use.
type Reader struct {
	conn  net.Conn
	buf   []byte // buf[start:end] was read and not yet consumed
	start int
	end   int
	attrs []Attr
	armed time.Time // when the idle deadline was last set

	vocabulary []string
	words      []int // of the attributes of the previous request, at most MaxAttributes

}

// NewReader returns a Reader on conn with the default time-outs. The vocabulary
// is the list of names that the caller knows. It is not copied.
func NewReader(conn net.Conn, vocabulary ...string) *Reader {
	return &Reader{
		conn:       conn,
		buf:        make([]byte, initialBuffer),
		vocabulary: vocabulary,
	}
}

// Arm sets the idle deadline if it is due. The caller calls it before Read, and
// can check its own stop signal in between.
func (r *Reader) Arm(now time.Time) {
	if now.Sub(r.armed) > min(idleSlack, IdleTimeout/2) {
		r.armed = now
		r.conn.SetReadDeadline(now.Add(IdleTimeout))
	}
}

// Read returns the attributes of the next request. The slice is valid until
// the next call; the strings stay valid.
//
// The error is io.EOF if the client closed between two requests, ErrIdle, a
// *ProtocolError, or an error of the connection.
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

// endOfRequest returns the index after the empty line that ends the first
// request in the buffer, or 0. The octets before from were searched earlier. If
// the buffer ends in an empty line, that is nearly always the only one. So it
// is taken without a search, and parse finds out if it was not.
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

// makeRoom moves unread octets to the front, enlarges a full buffer, and
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

// consume drops the request that ends at n. It also drops a buffer that a large
// request has enlarged, because hundreds of connections can be idle.
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

// parse splits the first request of raw, which ends in an empty line, into
// attributes. It returns the octets after it.
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
		if value[0] != '\n' { // many values are empty
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

// guess returns the length of the first name in lines, and its word, if it is
// the name that the previous request had at place i. Otherwise it returns 0.
// Clients send the same attributes in the same order each time.
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

// learn returns the word of the name at place i.
func (r *Reader) learn(i int, name string) int {
	word := slices.Index(r.vocabulary, name) + 1
	if i == len(r.words) {
		r.words = append(r.words, word)
	} else {
		r.words[i] = word
	}
	return word
}

// nameLength returns the length of the name in the first line; 0 if it has
// none.
func nameLength(lines string) int {
	return max(0, strings.IndexByte(lines[:strings.IndexByte(lines, '\n')], '='))
}

// notAnAttribute returns the error for a line that has no name.
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

// WriteReply sends "action=text" and the empty line in one write. The caller
// must make sure that text is one line that Postfix understands. scratch is
// reused and returned.
func WriteReply(conn net.Conn, scratch []byte, text string) ([]byte, error) {
	scratch = append(scratch[:0], "action="...)
	scratch = append(scratch, text...)
	scratch = append(scratch, "\n\n"...)
	_, err := conn.Write(scratch)
	return scratch, err
}

// clip shortens a line from outside for an error.
func clip(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
