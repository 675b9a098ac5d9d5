package policyd

import (
	"context"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/policy"
)

// What the postern command must know to find the daemon.
const (
	ProgramName      = "postern-policyd"
	DefaultAdminPath = "/run/postern/policyd.sock"
)

const daemonName = "policyd"

// Main runs the daemon to its end and returns the exit status.
func Main(p service.Process) int {
	a := new(app)
	status := service.Main(a, p)
	if s := a.current.p.Swap(nil); s != nil {
		s.done() // stores write what they still hold
	}
	return status
}

// app is the daemon as the service package drives it.
type app struct{ current current }

func (*app) Name() string   { return ProgramName }
func (*app) Daemon() string { return daemonName }

func (a *app) Configure(args, environ []string) (service.Settings, error) {
	s, err := configure(args, environ)
	s.current = &a.current
	return s, err
}

// Start wires requests to the state in force.
func (a *app) Start(r service.Runtime) service.Traffic {
	r.Metrics.Registerer().MustRegister(dns.NewCollector(a.current.resolverStats), dnslists.NewCollector(a.current.zones), newGreylistCollector(&a.current))
	server := &policy.Server{
		Hooks:  &a.current,
		Report: policy.Reporter{Log: r.Log, Counter: counter{r.Metrics}},
	}
	return service.Traffic{
		Handler: func(_ context.Context, conn *daemon.Conn) {
			server.ServeConn(conn, conn.Socket.Suffix)
		},
		Commands: a.commands(),
	}
}

// counter gives the server's counts to the metrics.
type counter struct{ *metrics.Metrics }

func (c counter) Decision(check, verdict string, reason record.Reason, mode string, took time.Duration) {
	c.Decided(metrics.Labels{Check: check, Verdict: verdict, Reason: reason, Mode: mode}, took)
}
