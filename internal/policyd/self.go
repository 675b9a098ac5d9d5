package policyd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// answerSelf answers the daemon's own test request in the same way as Postfix's, but
// without checks and without a record.
func answerSelf(c *current, conn *daemon.Conn) {
	server := &policy.Server{Hooks: noChecks{c}, Report: policy.Reporter{Records: record.Sinks{}, Load: noLoad{}}}
	server.ServeConn(conn, nil)
}

// noChecks has the hooks of the state in force without their checks.
type noChecks struct{ current *current }

func (n noChecks) Hook(context string, bound []string) (policy.Hook, error) {
	h, err := n.current.Hook(context, bound)
	h.Chain = nil
	return h, err
}

type noLoad struct{}

func (noLoad) RequestStarted() {}
func (noLoad) RequestDone()    {}

// maxSelfReply bounds the reply.
const maxSelfReply = 4 << 10

// askSelf sends one request over conn and reads the reply.
func askSelf(conn net.Conn) error {
	if _, err := io.WriteString(conn, "request=smtpd_access_policy\nprotocol_state=RCPT\n\n"); err != nil {
		return err
	}
	reply, err := bufio.NewReader(io.LimitReader(conn, maxSelfReply)).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(reply, "action=") {
		return fmt.Errorf("the reply to the daemon itself is %q", reply)
	}
	return nil
}
