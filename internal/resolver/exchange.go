package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	udpBuffer = 4096 // more than EDNS announced; a larger packet is cut and cannot be read
	// maxMismatches is how many packets with a wrong id or question one socket
	// accepts. So many mean that someone guesses ids. Then TCP is used, where
	// guessing does not work.
	maxMismatches = 64
	// A packet is sent again after one part in resendPart of the time-out of a try.
	resendPart = 4
)

var errFlooded = errors.New("too many answers to other questions")

// sockets carries queries over UDP and TCP. Each query has a socket of its own, so
// that a forger must guess the port too (RFC 5452 section 9.2). The socket is
// connected: the kernel drops packets of other senders and reports ICMP errors.
type sockets struct {
	dialer  net.Dialer
	buffers sync.Pool
	resent  *atomic.Uint64
}

func newSockets(resent *atomic.Uint64) *sockets {
	return &sockets{resent: resent, buffers: sync.Pool{New: func() any { return new([udpBuffer]byte) }}}
}

func (s *sockets) exchange(ctx context.Context, to netip.AddrPort, network string, query []byte, take func([]byte) bool) error {
	if network == "tcp" {
		return s.stream(ctx, to, query, take)
	}
	return s.datagram(ctx, to, query, take)
}

func (s *sockets) datagram(ctx context.Context, to netip.AddrPort, query []byte, take func([]byte) bool) error {
	conn, err := s.dialer.DialUDP(ctx, "udp", netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	until, _ := ctx.Deadline()
	again := time.Now().Add(time.Until(until) / resendPart)
	defer bind(ctx, conn, again)()
	if _, err := conn.Write(query); err != nil {
		return err
	}
	buf := s.buffers.Get().(*[udpBuffer]byte)
	defer s.buffers.Put(buf)
	for resent, taken := false, 0; taken < maxMismatches; {
		n, err := conn.Read(buf[:])
		switch {
		case err == nil && take(buf[:n]):
			return nil
		case err == nil:
			taken++
		case resent || !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		default:
			resent = true
			if err := s.resend(ctx, conn, query, until); err != nil {
				return err
			}
		}
	}
	return errFlooded
}

// resend sends a query a second time. A full buffer may have dropped the packet or
// its answer: many questions at once cause that even on loopback.
func (s *sockets) resend(ctx context.Context, conn *net.UDPConn, query []byte, until time.Time) error {
	s.resent.Add(1)
	if err := conn.SetDeadline(until); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // its deadline on conn may just have been overwritten
	}
	_, err := conn.Write(query)
	return err
}

func (s *sockets) stream(ctx context.Context, to netip.AddrPort, query []byte, take func([]byte) bool) error {
	conn, err := s.dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	until, _ := ctx.Deadline()
	defer bind(ctx, conn, until)()
	framed := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	if _, err := conn.Write(append(framed, query...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	packet := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, packet); err != nil {
		return err
	}
	if !take(packet) {
		return malformed(errMismatch)
	}
	return nil
}

// bind ends the reads and writes of conn at until, and when ctx ends. The caller
// must call the returned function afterwards.
func bind(ctx context.Context, conn net.Conn, until time.Time) func() bool {
	_ = conn.SetDeadline(until) // fails only on a closed socket, as the read will
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// singleReply turns Config.Exchange into an exchangeFunc.
func singleReply(f func(context.Context, netip.AddrPort, string, []byte) ([]byte, error)) exchangeFunc {
	return func(ctx context.Context, to netip.AddrPort, network string, query []byte, take func([]byte) bool) error {
		packet, err := f(ctx, to, network, query)
		if err != nil {
			return err
		}
		if !take(packet) {
			return malformed(errMismatch)
		}
		return nil
	}
}
