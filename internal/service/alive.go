package service

import (
	"context"
	"errors"

	"github.com/postern-mail/postern/internal/daemon"
)

// alive returns nil when the daemon answers a question in its own protocol. The
// question takes the same way as those of Postfix: the accept loop, the bounds,
// the handler. While no connections are accepted, because a successor is starting
// or has failed, alive asks nothing and returns nil.
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
