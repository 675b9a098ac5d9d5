package wire

import "errors"

// ErrPolicyClient is a client that speaks the policy protocol: main.cf or
// master.cf names the wrong port.
var ErrPolicyClient = errors.New("milter: this is a milter port, and the client speaks the policy protocol; give check_policy_service the port of postern-policyd, 10045 by default")

// isPolicy reports whether the first octets of a connection are those of a policy
// request: a line of text. As the length of a frame they would mean a gigabyte.
func isPolicy(start []byte) bool {
	for _, c := range start[:4] {
		if c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}

// turnAway sends a policy client a line of text that names this port. smtpd(8) then
// logs a problem with this server and applies its default_action.
func (g *Guard) turnAway() error {
	_ = g.writeConn([]byte("this is the milter port of postern-milterd, not the policy port\n\n"))
	return ErrPolicyClient
}
