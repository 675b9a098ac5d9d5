package milterd

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// part is one task of the daemon: its flags, the checks of their values, and the code
// that builds it. Each load of the configuration has new parts. A part keeps what its
// build method made, for its commands and metrics.
type part interface {
	bind(*pflag.FlagSet)
	// validate does no I/O. It may normalize values.
	validate(*config.Set) error
	build(*needs) error
}

// room is a part with its commands and metrics. They use the part in force.
type room struct {
	part
	commands func(*current) map[string]admin.Handler // may be nil
	metrics  func(*current) []prometheus.Collector   // likewise
}

// Commands implements service.Room.
func (r room) Commands() func(*current) map[string]admin.Handler { return r.commands }

// Metrics implements service.Room.
func (r room) Metrics() func(*current) []prometheus.Collector { return r.metrics }

// rooms returns all parts, in the order in which they are built.
func rooms() []room {
	return []room{
		{new(markPart), nil, nil},
		{new(signPart), signCommands, signMetrics},
		{new(verifyPart), nil, nil},
		{new(dmarcPart), nil, dmarcMetrics},
		{new(reportPart), reportCommands, reportMetrics},
		{new(receivedPart), receivedCommands, nil},
		{new(fromPart), fromCommands, nil},
	}
}

// needs is the input for building a part, and takes the results.
type needs struct {
	service.Runtime
	life    *service.Life
	set     *config.Set     // for errors that name the setting
	options *Options        // of the daemon
	asks    asker           // the DNS resolver that all parts share
	dns     dns.Key         // the settings of that resolver
	tables  []postmap.Table // that the parts have opened
	// readOnly keeps parts from creating files, because no daemon is started.
	readOnly bool

	warnings []func() // logged when all parts are built

	milter milter.Settings
	// verify is set by one part, and others add to it. The handler is made when all
	// parts are built.
	verify verify.Options
	// marks are the keys of our marks; may be nil.
	marks *mark.Keys
	// keys are the signing keys. Their domains are our own. signer signs with them.
	keys   *sign.Keys
	signer *sign.Signer
}

// warn logs a warning once the whole state is built. If building fails, only the error
// is shown.
func (n *needs) warn(text string, fields ...zap.Field) {
	n.warnings = append(n.warnings, func() { n.Log.Warn(text, fields...) })
}

// asker is the resolver as parts use it.
type asker interface {
	verify.Resolver
	dnsbl.DNS
	txtQuerier
}

// inForce returns the part of type P of the state in force. The caller must call
// release, which is nil if there is no such part.
func inForce[P part](c *current) (found P, release func()) {
	s, release := c.Acquire()
	if s != nil {
		if found, ok := locate[P](s.settings.rooms); ok {
			return found, release
		}
	}
	release()
	return found, nil
}

// locate returns the part of type P.
func locate[P part](rooms []room) (found P, ok bool) {
	for _, r := range rooms {
		if found, ok = r.part.(P); ok {
			return found, true
		}
	}
	return found, false
}

// command returns the handler of a command that the part of type P answers.
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
