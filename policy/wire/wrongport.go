package wire

import (
	"encoding/binary"
	"errors"
)

// ErrMilterClient means that the client speaks the milter protocol: main.cf or
// master.cf has the wrong port.
var ErrMilterClient = errors.New("policy protocol: this is a policy port, and the client speaks the milter protocol; give smtpd_milters the port of postern-milterd, 10046 by default")

// isMilter reports whether the first octets of a connection are those of a
// milter's option negotiation: its length, below 64 KiB, then "O".
func isMilter(start []byte) bool {
	return len(start) >= 5 && start[0] == 0 && start[1] == 0 && start[4] == 'O'
}

// turnAway answers a milter client at once that this is the wrong port, in a
// frame of its protocol. smtpd(8) sends no banner before the milter has
// answered, and would otherwise wait for 30 seconds.
func (r *Reader) turnAway() error {
	const text = "y451 4.3.5 this is the policy port of postern-policyd, not a milter port\x00"
	_, _ = r.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...))
	return ErrMilterClient
}
