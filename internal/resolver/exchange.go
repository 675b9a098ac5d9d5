package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	udpBuffer = 4096 // more than was announced; what does not fit is unreadable
	// maxMismatches is how many packets with a wrong id or question one socket
	// takes. So many mean that somebody guesses: TCP cannot be guessed.
	maxMismatches = 64
)

var errFlooded = errors.New("too many answers to other questions")

// sockets carries queries over UDP and TCP. Each query has a socket of its
// own, so that a forger must guess its port too (RFC 5452 section 9.2). It is
// connected: the kernel drops packets of others and reports ICMP errors.
type sockets struct {
	dialer  net.Dialer
	buffers sync.Pool
}

func newSockets() *sockets {
	return &sockets{buffers: sync.Pool{New: func() any { return new([udpBuffer]byte) }}}
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
	defer bind(ctx, conn)()
	if _, err := conn.Write(query); err != nil {
		return err
	}
	buf := s.buffers.Get().(*[udpBuffer]byte)
	defer s.buffers.Put(buf)
	for range maxMismatches {
		n, err := conn.Read(buf[:])
		if err != nil {
			return err
		}
		if take(buf[:n]) {
			return nil
		}
	}
	return errFlooded
}

func (s *sockets) stream(ctx context.Context, to netip.AddrPort, query []byte, take func([]byte) bool) error {
	conn, err := s.dialer.DialTCP(ctx, "tcp", netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer bind(ctx, conn)()
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

// bind ends conn's reads and writes with ctx. The function it returns lets go.
func bind(ctx context.Context, conn net.Conn) func() bool {
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only on a closed socket, as the read will
	}
	return context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// singleReply makes an exchangeFunc of Config.Exchange.
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
