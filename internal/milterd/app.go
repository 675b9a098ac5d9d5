package milterd

import (
	"context"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/milter"
)

// What the postern command must know to find the daemon.
const (
	ProgramName      = "postern-milterd"
	DefaultAdminPath = "/run/postern/milterd.sock"
	DefaultConfig    = "/etc/postern/milterd.toml"
)

const daemonName = "milterd"

// Main runs the daemon to its end and returns the exit status.
func Main(p service.Process) int { return service.Main(new(app), p) }

// app is the daemon as the service package drives it.
type app struct {
	runtime service.Runtime
	server  *milter.Server // made when the first state comes into force
	current current
	dmarc   *dmarcMetrics // see counts
}

// counts are those of all states; the first state is built before there is
// anywhere to register them.
func (a *app) counts() *dmarcMetrics {
	if a.dmarc == nil {
		a.dmarc = newDMARCMetrics()
	}
	return a.dmarc
}

func (*app) Name() string   { return ProgramName }
func (*app) Daemon() string { return daemonName }

func (a *app) Configure(args, environ []string) (service.Settings, error) {
	s, err := configure(args, environ)
	s.app = a
	return s, err
}

// Start wires connections to the server.
func (a *app) Start(r service.Runtime) service.Traffic {
	a.runtime = r
	r.Metrics.Registerer().MustRegister(newKeyCollector(&a.current), dns.NewCollector(a.current.resolverStats),
		dnslists.NewCollector(a.current.zones), newHoldCollector(&a.current))
	r.Metrics.Registerer().MustRegister(a.counts().collectors()...)
	return service.Traffic{
		Handler: func(ctx context.Context, conn *daemon.Conn) {
			a.server.ServeConn(ctx, conn, kind(conn.Socket.Flag))
		},
		Commands: a.commands(),
	}
}

// apply puts a state in force. Only the first one says how long the server
// drains: the time cannot be changed later.
func (a *app) apply(s *state) {
	if a.server == nil {
		a.server = milter.New(milter.Options{
			Log:          a.runtime.Log,
			Counter:      counter{a.runtime.Metrics},
			DrainTimeout: s.settings.milterDrain(),
		}, s.milter)
	} else {
		a.server.Reconfigure(s.milter)
	}
	old := a.current.Swap(s)
	s.start()
	if old != nil {
		old.close()
	}
}

// counter gives the server's records to the metrics.
type counter struct{ *metrics.Metrics }

func (c counter) Count(r record.Record) {
	c.Decided(metrics.Labels{Check: r.Check, Verdict: r.Verdict, Reason: r.Reason, Mode: r.Mode}, r.Duration)
}
