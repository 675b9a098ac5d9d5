package milterd

import (
	"context"
	"runtime/debug"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/internal/service/tables"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire"
)

const daemonName = "milterd"

// Main runs the daemon to its end and returns the exit status.
func Main(p service.Process) int { return service.Main(app{}, p) }

// app is the daemon as the service package drives it.
type app struct{}

func (app) Name() string   { return api.Milterd }
func (app) Daemon() string { return daemonName }

func (app) Configure(args, environ []string) (service.Settings[*state], error) {
	return configure(args, environ)
}

// headerShare is the part of the memory limit that large headers may fill. What is made of
// a header while a mail is judged can have the same size again.
const headerShare = 8

// Start connects the server to the state in force. The first state sets how long the
// server drains; a reload does not change that.
func (app) Start(r service.Runtime, inForce *service.Current[*state]) service.Traffic {
	c := &current{inForce}
	c.register(r.Metrics)
	commands := service.Commands(c, rooms())
	commands[api.Reload] = lastgood.Command(inForce, r)
	first, release := c.Acquire()
	defer release()
	server := milter.New(milter.Options{
		Log:          r.Log,
		Records:      r.Records,
		Limited:      limited(r.Metrics),
		Count:        counted(r.Metrics),
		DrainTimeout: first.settings.milterDrain(),
		HeaderRoom:   min(debug.SetMemoryLimit(-1)/headerShare, wire.DefaultHeaderRoom),
	}, c)
	return service.Traffic{
		Ask: askSelf,
		Handler: func(ctx context.Context, conn *daemon.Conn) {
			server.ServeConn(ctx, conn, kind(conn.Socket.Flag))
		},
		Commands: commands,
		Sessions: true,
	}
}

// register adds the metrics of the state in force.
func (c *current) register(m *metrics.Metrics) {
	each := tables.InForce(c.Current, func(s *state) []postmap.Table { return s.tables })
	service.Register(m, c, rooms(), dns.NewCollector(c.resolverStats), tables.NewCollector(each))
}

// limited returns a function that counts SMTP sessions of MTAs with an old milter
// protocol:
//
//	postern_milter_old_protocol_sessions_total{version}
func limited(m *metrics.Metrics) func(version uint32) {
	sessions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_milter_old_protocol_sessions_total",
		Help: "SMTP sessions of MTAs that offer less of the milter protocol than version 6.",
	}, []string{"version"})
	m.Registerer().MustRegister(sessions)
	for version := uint32(2); version <= 5; version++ {
		sessions.WithLabelValues(versionLabel(version))
	}
	return func(version uint32) { sessions.WithLabelValues(versionLabel(version)).Inc() }
}

// counted returns a function that counts messages:
//
//	postern_milter_messages_total{whose}
//	postern_milter_dkim2_messages_total{role}
func counted(m *metrics.Metrics) func(milter.Whose, bool) {
	messages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_milter_messages_total",
		Help: "Messages whose header has come, by the row that says whose mail they are.",
	}, []string{"whose"})
	dkim2 := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_milter_dkim2_messages_total",
		Help: "Messages with DKIM2-Signature or Message-Instance fields, by role.",
	}, []string{"role"})
	m.Registerer().MustRegister(messages, dkim2)
	for _, row := range milter.WhoseRows() {
		messages.WithLabelValues(string(row.Whose))
		dkim2.WithLabelValues(row.Role.String())
	}
	return func(whose milter.Whose, hasDKIM2 bool) {
		messages.WithLabelValues(string(whose)).Inc()
		if hasDKIM2 {
			dkim2.WithLabelValues(whose.Role().String()).Inc()
		}
	}
}

// versionLabel bounds the values of the label, because the MTA chooses the number.
func versionLabel(version uint32) string {
	if version < 2 || version > 6 {
		return "other"
	}
	return strconv.Itoa(int(version))
}
