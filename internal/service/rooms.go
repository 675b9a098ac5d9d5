package service

import (
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/metrics"
)

// Room is a part of a daemon: its commands and its metrics, which reach the part
// in force through C. Either may be nil.
type Room[C any] interface {
	Commands() func(C) map[string]admin.Handler
	Metrics() func(C) []prometheus.Collector
}

// Commands returns what the postern command may ask of the parts of a daemon.
func Commands[C any, R Room[C]](current C, rooms []R) map[string]admin.Handler {
	all := make(map[string]admin.Handler)
	for _, room := range rooms {
		if commands := room.Commands(); commands != nil {
			maps.Copy(all, commands(current))
		}
	}
	return all
}

// Register adds the metrics of the parts of a daemon, and those that all parts
// share.
func Register[C any, R Room[C]](m *metrics.Metrics, current C, rooms []R, shared ...prometheus.Collector) {
	m.Registerer().MustRegister(shared...)
	for _, room := range rooms {
		if collectors := room.Metrics(); collectors != nil {
			m.Registerer().MustRegister(collectors(current)...)
		}
	}
}
