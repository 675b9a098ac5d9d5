package service

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/internal/daemon"
)

// alive returns nil when the daemon answers a question of its protocol, which goes
// the way of those of Postfix: the accept loop, the bounds, the handler. While
// nothing is accepted, because a successor comes or failed, there is nothing to ask.
func (d *running[S]) alive(ctx context.Context) error {
	self := d.self.Load()
	if self == nil || d.traffic.Ask == nil {
		return nil
	}
	conn, err := self.Dial(ctx)
	if errors.Is(err, daemon.ErrNotServing) {
		return nil
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err = d.traffic.Ask(conn); d.relay.isPaused() {
		return nil // the connection was closed for a successor
	}
	return err
}
