package policyd

import (
	"context"
	"maps"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/policy"
)

const daemonName = "policyd"

// Main runs the daemon to its end and returns the exit status.
func Main(p service.Process) int { return service.Main(app{}, p) }

// app is the daemon as the service package drives it.
type app struct{}

func (app) Name() string   { return api.Policyd }
func (app) Daemon() string { return daemonName }

func (app) Configure(args, environ []string) (service.Settings[*state], error) {
	return configure(args, environ)
}

// Start wires requests to the state in force.
func (app) Start(r service.Runtime, inForce *service.Current[*state]) service.Traffic {
	c := &current{inForce}
	register(r.Metrics, c)
	server := &policy.Server{
		Hooks:  c,
		Report: policy.Reporter{Records: r.Records, Load: r.Metrics},
	}
	return service.Traffic{
		Handler: func(_ context.Context, conn *daemon.Conn) {
			server.ServeConn(conn, conn.Socket.Suffix)
		},
		Commands: commands(c),
	}
}

// register adds what the parts of the daemon show of the state in force.
func register(m *metrics.Metrics, c *current) {
	m.Registerer().MustRegister(dns.NewCollector(c.resolverStats))
	for _, room := range rooms() {
		if room.metrics != nil {
			m.Registerer().MustRegister(room.metrics(c)...)
		}
	}
}

// commands are what the postern command may ask of this daemon.
func commands(c *current) map[string]admin.Handler {
	all := map[string]admin.Handler{api.PolicyExplain: admin.Typed(c.explain)}
	for _, room := range rooms() {
		if room.commands != nil {
			maps.Copy(all, room.commands(c))
		}
	}
	return all
}
