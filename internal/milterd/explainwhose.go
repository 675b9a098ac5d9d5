package milterd

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/milter"
)

// WhoseArgs describes a message as Postfix presents it, and the settings of the daemon.
type WhoseArgs struct {
	Socket string // sign, verify or any; "" asks for the table alone
	Login  string
	Daemon string // {daemon_name}
	Client string // IP address
	// Settings are arguments of the daemon, including --config.
	Settings []string
}

// Values of WhoseArgs.Socket.
const (
	SocketSign   = "sign"
	SocketVerify = "verify"
	SocketAny    = "any"
)

// ExplainWhose returns the table that decides whose mail a message is, with the row
// that applies.
func ExplainWhose(a WhoseArgs) (*api.WhoseExplained, error) {
	s, err := configure(a.Settings, nil)
	if err != nil {
		return nil, err
	}
	x := &api.WhoseExplained{Sockets: s.socketTexts()}
	for _, row := range milter.WhoseRows() {
		x.Rows = append(x.Rows, api.WhoseRow{Whose: string(row.Whose), When: row.When, Set: s.whoseSet(row.Whose), Role: row.Role.String()})
	}
	for _, row := range milter.OwnMailRows() {
		x.Own = append(x.Own, api.WhoseRow{Whose: string(row.Reason), When: row.When})
	}
	if a.Socket == "" {
		return x, nil
	}
	peer := milter.Session{Daemon: a.Daemon}
	if a.Client != "" {
		if peer.Client, err = netip.ParseAddr(a.Client); err != nil {
			return nil, fmt.Errorf("client address: %w", err)
		}
	}
	kinds := map[string]milter.Listen{SocketSign: milter.SignOnly, SocketVerify: milter.VerifyOnly, SocketAny: milter.BySession}
	kind, ok := kinds[a.Socket]
	if !ok {
		return nil, fmt.Errorf("socket %.40q: write sign (--listen-sign), verify (--listen-verify) or any (--listen)", a.Socket)
	}
	settings := s.milterSettings()
	x.Applies = string(settings.Whose(kind, &peer, &milter.Message{Login: a.Login}))
	return x, nil
}

// whoseFrom returns the row for mail from a client that has not logged in, at the
// socket for mail from outside.
func (s *settings) whoseFrom(client netip.Addr) string {
	kind := milter.VerifyOnly
	if len(s.Listen) > 0 {
		kind = milter.BySession
	}
	settings := s.milterSettings()
	return string(settings.Whose(kind, &milter.Session{Client: client}, new(milter.Message)))
}

// whoseSet returns the settings that belong to a row.
func (o *Options) whoseSet(whose milter.Whose) string {
	switch whose {
	case milter.WhoseDaemonName:
		return strings.Join(o.Originating, ", ")
	case milter.WhoseInternalNetwork:
		return strings.Join(o.InternalNetworks, ", ")
	}
	return ""
}

// socketTexts returns the listeners as text.
func (o *Options) socketTexts() (all []string) {
	for _, l := range o.listeners() {
		for _, endpoint := range l.endpoints {
			all = append(all, "--"+l.flag+" "+endpoint)
		}
	}
	return all
}
