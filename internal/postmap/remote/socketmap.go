// socketmap: tables, in a socketmap server.
//
// socketmap:inet:host:port:name and socketmap:unix:/path:name use the protocol of
// socketmap_table(5). Request and reply are netstrings: "name key", and "OK data",
// "NOTFOUND ", or "TEMP", "TIMEOUT" or "PERM" with a reason. Only full addresses are
// looked up.
//
// Invariants: a reply is bounded, and a connection is closed if its reply is not a
// netstring.

package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Postfix's own limits.
const (
	MaxReply       = 100_000 // octets of a reply, without the netstring around it
	MaxQuery       = 10_000  // octets of a key
	socketIdle     = 10 * time.Second
	socketLifetime = 100 * time.Second

	maxReason = 200 // octets of a server's reason that an error contains
	maxDigits = 8   // of the length of a netstring
)

// SocketmapOptions of [OpenSocketmap].
type SocketmapOptions struct {
	MaxConns int
	Now      func() time.Time
}

// Socketmap is a socketmap server.
type Socketmap struct {
	name        string
	connections *Pool[*socketConn]
}

type socketConn struct {
	net.Conn
	in *bufio.Reader
}

// OpenSocketmap parses what follows "socketmap:". It does not connect; the first Lookup
// does.
func OpenSocketmap(text string, o SocketmapOptions) (*Socketmap, error) {
	network, address, name, err := parseSocketmap(text)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	dial := func(ctx context.Context) (*socketConn, error) {
		c, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &socketConn{c, bufio.NewReader(c)}, nil
	}
	return &Socketmap{name: name, connections: NewPool(PoolConfig[*socketConn]{
		Hosts: []Host[*socketConn]{{Name: "socketmap server " + address, Dial: dial}},
		Max:   o.MaxConns, Idle: socketIdle, Lifetime: socketLifetime,
		Close: func(c *socketConn) { _ = c.Close() }, Now: o.Now, // read-only: nothing is lost
	})}, nil
}

// parseSocketmap takes "inet:host:port:name" or "unix:/path:name" apart.
func parseSocketmap(text string) (network, address, name string, err error) {
	kind, rest, _ := strings.Cut(text, ":")
	at := strings.LastIndexByte(rest, ':')
	if at <= 0 || at == len(rest)-1 {
		return "", "", "", fmt.Errorf("%q is no server and map", text)
	}
	address, name = rest[:at], rest[at+1:]
	switch kind {
	case "unix":
		if !filepath.IsAbs(address) {
			return "", "", "", fmt.Errorf("%q is a relative path, which would begin at Postfix's queue directory there and nowhere here", address)
		}
		return "unix", address, name, nil
	case "inet":
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
			return "", "", "", fmt.Errorf("%q is no host and port", address)
		}
		return "tcp", address, name, nil
	}
	return "", "", "", fmt.Errorf("%q is neither inet nor unix", kind)
}

// Lookup implements ownership.Source.
func (s *Socketmap) Lookup(ctx context.Context, key string) ([]string, error) {
	if len(key) > MaxQuery {
		return nil, nil // as Postfix: such a key is not listed
	}
	var reply string
	err := s.connections.Do(ctx, func(ctx context.Context, c *socketConn) (err error) {
		reply, err = c.roundTrip(ctx, s.name+" "+key)
		return err
	}, IsKeyError)
	if err != nil {
		return nil, err
	}
	return readReply(reply)
}

// readReply reads a reply.
func readReply(reply string) ([]string, error) {
	status, data, _ := strings.Cut(reply, " ")
	switch status {
	case "OK":
		if data == "" {
			return nil, nil
		}
		return []string{data}, nil
	case "NOTFOUND":
		return nil, nil
	case "PERM": // about this key: the next one may be answered
		return nil, &KeyError{What: fmt.Sprintf("the socketmap server says PERM: %.*q", maxReason, strings.TrimSpace(data))}
	case "TEMP", "TIMEOUT":
		return nil, fmt.Errorf("the socketmap server says %s: %.*q", status, maxReason, strings.TrimSpace(data))
	}
	return nil, fmt.Errorf("the socketmap server gives an unknown reply: %.*q", maxReason, reply)
}

// Close closes the connections.
func (s *Socketmap) Close() error {
	s.connections.Close()
	return nil
}

// roundTrip sends one request and reads one reply, within the context.
func (c *socketConn) roundTrip(ctx context.Context, request string) (string, error) {
	deadline, _ := ctx.Deadline() // the zero time is none
	if err := c.SetDeadline(deadline); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(c, strconv.Itoa(len(request))+":"+request+","); err != nil {
		return "", fmt.Errorf("send: %w", err)
	}
	reply, err := readNetstring(c.in)
	if err != nil {
		return "", fmt.Errorf("read the reply: %w", err)
	}
	return reply, nil
}

var errNetstring = errors.New("no netstring")

// readNetstring reads "length:data," with a length of at most MaxReply.
func readNetstring(in *bufio.Reader) (string, error) {
	size, digits := 0, 0
	for {
		c, err := in.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == ':' && digits > 0:
			return readData(in, size)
		case c < '0' || c > '9':
			return "", errNetstring
		}
		digits++
		if size = size*10 + int(c-'0'); size > MaxReply || digits > maxDigits {
			return "", fmt.Errorf("a reply of more than %d octets", MaxReply)
		}
	}
}

func readData(in *bufio.Reader, size int) (string, error) {
	data := make([]byte, size+1)
	if _, err := io.ReadFull(in, data); err != nil {
		return "", err
	}
	if data[size] != ',' {
		return "", errNetstring
	}
	return string(data[:size]), nil
}
