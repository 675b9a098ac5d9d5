package postfixtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strings"
	"sync"
)

// Bounds of the sink.
const (
	maxKept           = 10_000    // messages; the oldest are dropped first
	maxConnectionRead = 256 << 20 // bytes read from one connection
)

// Delivery is a message that Postfix delivered to one recipient.
type Delivery struct {
	Sender    string // envelope; "" is the null sender
	Recipient string
	Data      []byte // header and body as cleanup(8) left them, lines ended by CRLF
}

// Header returns the first header field of that name, unfolded, or "".
func (d Delivery) Header(name string) string {
	values := d.Headers(name)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// Headers returns every header field of that name, unfolded and from the top.
func (d Delivery) Headers(name string) []string {
	head, _, _ := bytes.Cut(d.Data, []byte("\r\n\r\n"))
	unfolded := strings.NewReplacer("\r\n\t", " ", "\r\n ", " ").Replace(string(head))
	var values []string
	for line := range strings.SplitSeq(unfolded, "\r\n") {
		field, value, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(strings.TrimSpace(field), name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// sink is an LMTP server that accepts everything (RFC 2033).
type sink struct {
	listener net.Listener
	serving  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once stopped
	kept  []Delivery
	news  chan struct{} // closed and replaced when something arrives
}

func startSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &sink{listener: l, conns: map[net.Conn]struct{}{}, news: make(chan struct{})}
	s.serving.Go(s.accept)
	return s, nil
}

func (s *sink) addr() string { return s.listener.Addr().String() }

// stop ends every connection and waits for their goroutines.
func (s *sink) stop() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		err = errors.Join(err, c.Close())
	}
	s.conns = nil
	s.mu.Unlock()
	s.serving.Wait()
	return err
}

func (s *sink) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // closed by stop
		}
		if !s.track(c) {
			_ = c.Close()
			return
		}
		s.serving.Go(func() {
			defer s.forget(c)
			// An error shows as a deferred message in Postfix's log.
			_ = s.serve(c)
		})
	}
}

func (s *sink) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *sink) forget(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.conns[c]; ok {
		delete(s.conns, c)
		_ = c.Close()
	}
}

// serve speaks LMTP until the client leaves.
func (s *sink) serve(c net.Conn) error {
	conn := textproto.NewConn(struct {
		io.Reader
		io.WriteCloser
	}{io.LimitReader(c, maxConnectionRead), c})
	if err := conn.PrintfLine("220 sink.invalid LMTP"); err != nil {
		return err
	}
	var envelope Delivery
	var recipients []string
	for {
		line, err := conn.ReadLine()
		if err != nil {
			return err
		}
		reply := "250 2.0.0 Ok"
		switch verb, rest := cutVerb(line); verb {
		case "LHLO":
			reply = "250-sink.invalid\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES"
		case "MAIL":
			envelope, recipients = Delivery{Sender: path(rest)}, nil
		case "RCPT":
			recipients = append(recipients, path(rest))
		case "RSET":
			envelope, recipients = Delivery{}, nil
		case "DATA":
			reply, err = s.data(conn, envelope, recipients)
			if err != nil {
				return err
			}
		case "QUIT":
			return conn.PrintfLine("221 2.0.0 Bye")
		case "NOOP":
		default:
			reply = "502 5.5.1 Command not implemented"
		}
		if err := conn.PrintfLine("%s", reply); err != nil {
			return err
		}
	}
}

// data reads a message and returns one reply line per recipient.
func (s *sink) data(conn *textproto.Conn, envelope Delivery, recipients []string) (string, error) {
	if len(recipients) == 0 {
		return "503 5.5.1 No recipients", nil
	}
	if err := conn.PrintfLine("354 Go on"); err != nil {
		return "", err
	}
	text, err := conn.ReadDotBytes()
	if err != nil {
		return "", err
	}
	envelope.Data = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	replies := make([]string, len(recipients))
	for i, recipient := range recipients {
		envelope.Recipient = recipient
		s.keep(envelope)
		replies[i] = "250 2.1.5 <" + recipient + "> kept"
	}
	return strings.Join(replies, "\r\n"), nil
}

func (s *sink) keep(d Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == maxKept {
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	s.kept = append(s.kept, d)
	close(s.news)
	s.news = make(chan struct{})
}

// take removes and returns the oldest delivery to recipient. If there is none, it
// returns a channel that is closed when a delivery arrives.
func (s *sink) take(recipient string) (d Delivery, ok bool, news <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.kept, func(d Delivery) bool { return strings.EqualFold(d.Recipient, recipient) })
	if i < 0 {
		return Delivery{}, false, s.news
	}
	d = s.kept[i]
	s.kept = slices.Delete(s.kept, i, i+1)
	return d, true, nil
}

// cutVerb splits a command from its arguments.
func cutVerb(line string) (verb, rest string) {
	verb, rest, _ = strings.Cut(line, " ")
	return strings.ToUpper(verb), rest
}

// path returns the address in "FROM:<address> PARAMETERS".
func path(arguments string) string {
	_, after, _ := strings.Cut(arguments, "<")
	address, _, _ := strings.Cut(after, "> ")
	return strings.TrimSuffix(address, ">")
}

// Delivered waits until a message to recipient has been delivered, and returns it. It
// waits a minute at most. Each message is returned once, the oldest first. The
// recipient is the one after Postfix's rewriting; case is ignored.
func (p *Postfix) Delivered(ctx context.Context, recipient string) (Delivery, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for {
		d, ok, news := p.sink.take(recipient)
		if ok {
			return d, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return Delivery{}, fmt.Errorf("nothing delivered to %s: %w\n%s", recipient, context.Cause(ctx), p.LogTail())
		}
	}
}

// Deliveries returns the deliveries that Delivered has not returned yet.
func (p *Postfix) Deliveries() []Delivery {
	p.sink.mu.Lock()
	defer p.sink.mu.Unlock()
	return slices.Clone(p.sink.kept)
}
