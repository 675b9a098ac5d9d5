package milterd

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service/owners"
	"github.com/postern-mail/postern/milter"
)

// Values of --from-ownership and --from-display.
const (
	wordOff     = "off"
	wordShadow  = "shadow"
	wordEnforce = "enforce"
	wordRecord  = "record"
	wordReject  = "reject"
	wordPass    = "pass"
)

// fromPart is the part for From ownership.
type fromPart struct {
	owners.Flags
	Mode      string
	Display   string
	ExemptMap []string

	check *milter.FromCheck // nil if it is off
}

func (o *fromPart) bind(fs *pflag.FlagSet) {
	config.Choice(fs, &o.Mode, "from-ownership", "every address in From, Sender and Resent-From of mail whose client has logged in must be owned by the login: not asked, only recorded, or refused", wordOff, wordShadow, wordEnforce)
	config.Choice(fs, &o.Display, "from-display", "mail of a login whose display name shows an address that the login does not own", wordRecord, wordReject)
	fs.StringArrayVar(&o.ExemptMap, "from-exempt", nil, "`type:table` of logins with what they may do beyond owners: any, redirect, display, or addresses; repeat for several")
	o.Bind(fs)
}

func (o *fromPart) validate(s *config.Set) error {
	switch {
	case o.Mode == wordOff:
		return nil
	case len(o.Owners)+len(o.Aliases) == 0:
		return s.Errorf("owners", "From ownership has no table: set owners or owner-aliases as in policyd.toml, or from-ownership to off")
	}
	return o.Validate(s)
}

func (o *fromPart) findIdle(i *idleSettings) {
	of := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(owners.Flags).Bind(of)
	of.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "owners-unauthenticated", "null-sender":
			i.addFlags(true, "it is about envelope senders, which postern-policyd judges; set it there and remove it here", f.Name)
		default:
			i.addFlags(o.Mode == wordOff, fixFromOff, f.Name)
		}
	})
	i.addFlags(o.Mode == wordOff, fixFromOff, "from-exempt", "from-display")
	i.watchesFrom = o.Mode == wordEnforce && i.shadowed(wordAll)
}

const fixFromOff = "no From is asked about; set --from-ownership shadow or enforce, or remove it"

func (o *fromPart) build(n *needs) error {
	counts, err := keepCounters(n, newFromCounts)
	if err != nil || o.Mode == wordOff {
		return err
	}
	deps := owners.Deps{Runtime: n.Runtime, Set: n.set, Life: n.life}
	opened, err := o.Open(deps)
	if err != nil {
		return err
	}
	tables, err := o.OpenTables("from-exempt", o.ExemptMap, deps)
	if err != nil {
		return err
	}
	n.tables = slices.Concat(n.tables, opened.Tables, tables)
	exempt := &exemptions{tables: tables, loginDomain: o.LoginDomain}
	for i := range tables {
		if err := checkExemptions(&tables[i]); err != nil {
			return n.set.ErrorfAt("from-exempt", i, "%w", err)
		}
		n.life.Watch(tables[i].Files...)
	}
	o.check = &milter.FromCheck{
		Owners: &milter.FromOwners{Judge: opened.Judge, Exempt: exempt.lookup, RefuseDisplay: o.Display == wordReject},
		Shadow: o.Mode == wordShadow || n.options.shadowed(wordAll), PassOnError: o.OnError == wordPass, Count: counts.count,
	}
	n.milter.From = o.check
	n.life.OnBegin(func() { n.Metrics.Prepare(record.Known(milter.FromOwnership, false)...) })
	return nil
}

// without implements secretive: perhaps only the daemon may read the tables.
func (*fromPart) without() string {
	return "the tables of owners cannot be read"
}

// fromCounts count mail that was judged:
//
//	postern_from_ownership_total{verdict,reason,mode}
type fromCounts struct{ judged *prometheus.CounterVec }

// newFromCounts returns counters with a series for each decision that is possible.
func newFromCounts() *fromCounts {
	c := &fromCounts{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "postern_from_ownership_total",
		Help: "Mails of logins whose From was judged, by verdict, reason and mode.",
	}, []string{"verdict", "reason", "mode"})}
	labels := append(record.Known(milter.FromOwnership, false), record.Labels{Verdict: "error", Reason: record.OwnerLookupFailed})
	for _, reason := range milter.FromPasses() {
		labels = append(labels, record.Labels{Verdict: "pass", Reason: reason})
	}
	for _, l := range labels {
		for _, mode := range []string{record.ModeEnforce, record.ModeShadow} {
			c.judged.WithLabelValues(l.Verdict, string(l.Reason), mode)
		}
	}
	return c
}

func (c *fromCounts) collectors() []prometheus.Collector { return []prometheus.Collector{c.judged} }

func (c *fromCounts) count(verdict string, reason record.Reason, mode string) {
	c.judged.WithLabelValues(verdict, string(reason), mode).Inc()
}
