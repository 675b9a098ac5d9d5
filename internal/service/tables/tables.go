// Package tables shows whether the servers of Postfix tables answer: in the log, as the
// metric postern_table_up, and with --check-config --online.
package tables

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postmap"
	"github.com/postern-mail/postern/internal/postmap/remote"
	"github.com/postern-mail/postern/internal/service"
)

// State returns a function that logs, once for each change, that the servers of a
// table are down or up again.
func State(log *zap.Logger) func(table string, c remote.Change) {
	return func(table string, c remote.Change) {
		if c.Up {
			log.Info("the servers of a table answer again", zap.String("table", table), zap.Duration("down", c.Down))
			return
		}
		log.Error("the servers of a table do not answer", zap.String("table", table), zap.Error(c.Err))
	}
}

// Probe asks each table of a flag once, for --check-config --online.
func Probe(ctx context.Context, s *config.Set, flag string, all []postmap.Table) error {
	var errs []error
	for i, table := range all {
		if err := table.Probe(ctx); err != nil {
			errs = append(errs, s.ErrorfAt(flag, i, "table %.80s cannot answer: %w", table.Spec, err))
		}
	}
	return errors.Join(errs...)
}

// Collector shows the tables in force that have servers:
//
//	postern_table_up{table}   1, or 0 while its breaker is open
type Collector struct {
	each func(visit func(postmap.Table))
	up   *prometheus.Desc
}

// InForce returns the argument of NewCollector for the state in force. of returns the
// tables of a state.
func InForce[T any](current *service.Current[*T], of func(*T) []postmap.Table) func(visit func(postmap.Table)) {
	return func(visit func(postmap.Table)) {
		state, release := current.Acquire()
		defer release()
		if state == nil {
			return
		}
		for _, t := range of(state) {
			visit(t)
		}
	}
}

// NewCollector returns a collector. each must call visit for each table in force, and
// keep the tables open meanwhile.
func NewCollector(each func(visit func(postmap.Table))) Collector {
	return Collector{each, prometheus.NewDesc("postern_table_up",
		"1 while the servers of a table (mysql, pgsql, ldap, sqlite or socketmap) answer, 0 while its breaker is open.", []string{"table"}, nil)}
}

// Describe implements prometheus.Collector.
func (c Collector) Describe(out chan<- *prometheus.Desc) { out <- c.up }

// Collect implements prometheus.Collector. A table that several settings name is down
// while one of them cannot ask it.
func (c Collector) Collect(out chan<- prometheus.Metric) {
	up := make(map[string]float64)
	c.each(func(t postmap.Table) {
		t.EachServer(func(table string, down error) {
			// Labels are UTF-8.
			table = strings.ToValidUTF8(table, "?")
			if _, known := up[table]; !known {
				up[table] = 1
			}
			if down != nil {
				up[table] = 0
			}
		})
	})
	for _, table := range slices.Sorted(maps.Keys(up)) {
		out <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up[table], table)
	}
}
