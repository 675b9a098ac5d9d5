package service

import (
	"context"
	"net"
	"net/netip"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/status"
)

// The flags of the status page that appear in errors.
const (
	nameStatusListen = "status-listen"
	nameStatusPeers  = "status-peers"
	nameStatusToken  = "status-token-file"
)

// statusSettings reads the settings of the status page, with the token.
func statusSettings(settings Configured) (status.Options, error) {
	c, set := settings.Common().Status, settings.Set()
	o := status.Options{Names: c.Names, Privacy: c.Privacy}
	if c.Listen == "" {
		return o, nil
	}
	if len(c.Peers) > status.MaxPeers {
		return o, set.Errorf(nameStatusPeers, "%d peers: at most %d are shown on a page", len(c.Peers), status.MaxPeers)
	}
	for i, text := range c.Peers {
		peer, err := status.ParsePeer(text)
		if err != nil {
			return o, set.ErrorfAt(nameStatusPeers, i, "%w", err)
		}
		o.Peers = append(o.Peers, peer)
	}
	credentials := os.Getenv("CREDENTIALS_DIRECTORY")
	if c.TokenFile != "" && !set.CredentialHidden(c.TokenFile, credentials) {
		token, err := config.SecretFile(c.TokenFile, credentials)
		if err != nil {
			return o, set.Errorf(nameStatusToken, "%w", err)
		}
		if n := len(token.Reveal()); n < status.MinToken {
			return o, set.Errorf(nameStatusToken, "%s: a token of %d characters can be guessed; write at least %d, as openssl rand -hex 24 prints", c.TokenFile, n, status.MinToken)
		}
		o.Token = token
	}
	return o, nil
}

// wide reports whether other machines may reach an endpoint. For a socket of
// systemd that is only known once it is open.
func wide(e daemon.Endpoint) bool {
	if e.Network != daemon.NetworkTCP {
		return false
	}
	host, _, _ := net.SplitHostPort(e.Address) // ParseEndpoint has checked it
	if host == "localhost" {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err != nil || !addr.Unmap().IsLoopback()
}

// openPage makes the status page, if one is configured. It is served later.
func (d *running[S]) openPage(started time.Time, listeners []daemon.Listener) error {
	if len(listeners) == 0 {
		return nil
	}
	o, err := statusSettings(d.settings)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if !status.Local(l.Addr()) && o.Token.Empty() {
			return d.settings.Set().Errorf(nameStatusListen, "%s: %w", l.Addr(), status.ErrNoToken)
		}
	}
	o.Daemon, o.Version, o.Started = d.app.Daemon(), Version(), started
	if o.Host, err = os.Hostname(); err != nil {
		o.Host = "localhost"
	}
	o.Metrics, o.Ready = d.metrics.Gatherer(), d.readiness.Ready
	o.Records, o.Run = d.recent.Recent, d.recent.run
	o.Commands = d.commands
	o.Log = zap.NewStdLog(d.log.Logger())
	d.page = status.New(o)
	return nil
}

// closePage closes the status page, if there is one.
func (d *running[S]) closePage(ctx context.Context) error {
	if d.page == nil {
		return nil
	}
	return d.page.Shutdown(ctx)
}
