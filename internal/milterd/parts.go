package milterd

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// part is the room of one thing that the daemon does: its flags, what must hold
// between them, and how it is made of them. Each load of the configuration has
// parts of its own; what build has made is kept in the part for its commands and
// metrics.
type part interface {
	bind(*pflag.FlagSet)
	// validate needs no I/O. It may bring values into their one form.
	validate(*config.Set) error
	build(*needs) error
}

// room is a part with what can be asked of the one in force.
type room struct {
	part
	commands func(*current) map[string]admin.Handler // may be nil
	metrics  func(*current) []prometheus.Collector   // likewise
}

// Commands implements service.Room.
func (r room) Commands() func(*current) map[string]admin.Handler { return r.commands }

// Metrics implements service.Room.
func (r room) Metrics() func(*current) []prometheus.Collector { return r.metrics }

// rooms is every part, in the order in which they are built.
func rooms() []room {
	return []room{
		{new(markPart), nil, nil},
		{new(signPart), signCommands, signMetrics},
		{new(verifyPart), nil, nil},
		{new(dmarcPart), nil, dmarcMetrics},
		{new(reportPart), reportCommands, reportMetrics},
		{new(fromPart), fromCommands, fromMetrics},
	}
}

// needs is what a part is given to build what it brings, and where that goes.
type needs struct {
	service.Runtime
	life    *service.Life
	set     *config.Set // names the setting in an error
	options *Options    // of the daemon
	asks    asker       // the DNS resolver that all parts share
	dns     dns.Key     // of what asks asks
	// readOnly keeps parts from making files: nothing is going to run.
	readOnly bool

	warnings []func() // what to log when all is built

	milter milter.Settings
	// verify is begun by one part and added to by others; its handler is made
	// when all have been built.
	verify verify.Options
	// marks are the keys of our marks; nil for none.
	marks *mark.Keys
	// keys are those that sign: their domains are our own. signer signs with them.
	keys   *sign.Keys
	signer *sign.Signer
}

// warn logs a warning if the state gets built: a mistake stands alone.
func (n *needs) warn(text string, fields ...zap.Field) {
	n.warnings = append(n.warnings, func() { n.Log.Warn(text, fields...) })
}

// asker is all that parts ask of a resolver.
type asker interface {
	verify.Resolver
	dnsbl.DNS
	txtQuerier
}

// inForce returns the part of type P of the state in force. The caller calls
// release, which is nil when there is none.
func inForce[P part](c *current) (found P, release func()) {
	s, release := c.Acquire()
	if s != nil {
		for _, r := range s.settings.rooms {
			if found, ok := r.part.(P); ok {
				return found, release
			}
		}
	}
	release()
	return found, nil
}

// command answers a question to the part of type P.
func command[P part, A any](c *current, answer func(P, context.Context, A, func(any)) (any, error)) admin.Handler {
	return admin.Typed(func(ctx context.Context, args A, progress func(any)) (any, error) {
		p, release := inForce[P](c)
		if release == nil {
			return nil, &admin.Error{Code: admin.CodeFailed, Message: "the daemon has stopped"}
		}
		defer release()
		return answer(p, ctx, args, progress)
	})
}
