package milterd

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// What askSelf offers: version 6 of the protocol, all actions, and to skip all steps of
// the protocol.
const (
	selfVersion  = 6
	selfActions  = 0x1ff
	selfProtocol = 0x1fffff
)

// maxSelfReply bounds the answer.
const maxSelfReply = 4 << 10

// askSelf negotiates over conn as an MTA does at the begin of an SMTP session, and
// quits. It sends no mail.
func askSelf(conn net.Conn) error {
	offer := []byte{0, 0, 0, 13, 'O'}
	for _, n := range []uint32{selfVersion, selfActions, selfProtocol} {
		offer = binary.BigEndian.AppendUint32(offer, n)
	}
	if _, err := conn.Write(offer); err != nil {
		return err
	}
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:4])
	if head[4] != 'O' || size == 0 || size > maxSelfReply {
		return fmt.Errorf("the daemon answers itself with %q of %d octets", head[4], size)
	}
	if _, err := io.CopyN(io.Discard, conn, int64(size)-1); err != nil {
		return err
	}
	_, err := conn.Write([]byte{0, 0, 0, 1, 'Q'})
	return err
}
