package policyd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/internal/service/tables"
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

// Start connects requests to the state in force.
func (app) Start(r service.Runtime, inForce *service.Current[*state]) service.Traffic {
	c := &current{inForce}
	c.register(r.Metrics)
	all := commands(c)
	all[api.Reload] = lastgood.Command(inForce, r)
	server := &policy.Server{
		Hooks:  c,
		Report: policy.Reporter{Records: r.Records, Load: r.Metrics},
	}
	return service.Traffic{
		Ask: askSelf,
		Handler: func(_ context.Context, conn *daemon.Conn) {
			if conn.Socket.Flag == daemon.FlagSelf {
				answerSelf(c, conn)
				return
			}
			server.ServeConn(conn, conn.Socket.Suffix)
		},
		Commands: all,
	}
}

// register adds the metrics of the state in force.
func (c *current) register(m *metrics.Metrics) {
	each := tables.InForce(c.Current, func(s *state) []postmap.Table { return s.tables })
	service.Register(m, c, rooms(), dns.NewCollector(c.resolverStats), tables.NewCollector(each))
}

// commands returns the commands of this daemon's checks for postern.
func commands(c *current) map[string]admin.Handler {
	all := service.Commands(c, rooms())
	all[api.PolicyExplain] = admin.Typed(c.explain)
	return all
}
