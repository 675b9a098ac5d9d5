// Package doctor finds what is wrong with a Postern that is attached to a Postfix:
// in the settings of both, in what they need, and between them.
//
// Facts are gathered once (facts.go): what postconf prints, what the daemons or
// their settings say, units, DNS, queues. A check (checks.go) is one function in one
// ordered list: it judges facts and returns findings. A finding is one line: a
// level, what was looked at, the problem, and what to do.
//
// Nothing is changed, and no mail is asked about: no check leaves a trace in the
// greylist or a record in the log. The daemons may be down; their settings are then
// read from the files.
package doctor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Level is how good or bad a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// rank is the exit status of the command.
func (l Level) rank() int { return slices.Index([]Level{OK, Warn, Fail}, l) }

// Finding is what one check found of one thing.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // what to do; always there unless Level is ok
}

// Report is the outcome of all checks.
type Report struct {
	Level    Level     `json:"level"` // the worst of all
	Findings []Finding `json:"findings"`
}

// Status is 0 when everything is well, 1 for warnings, 2 for failures.
func (r Report) Status() int { return r.Level.rank() }

// Options say what to look at.
type Options struct {
	ConfigDirectory string // of Postfix; "" is what postconf says
	Policyd         DaemonOptions
	Milterd         DaemonOptions
	Root            string   // folder below which the files of other programs are; "" for the whole system
	MailLog         string   // Postfix's log; "" looks where Postfix and the system keep it
	Only            []string // names of checks; empty for all
	Skip            []string // names of checks that are left out
	Version         string   // of the command

	paths  paths            // where other programs keep their things; set by tests
	now    func() time.Time // nil: time.Now
	bounds bounds           // likewise
	// dnsPort is that of the servers of zones; 0: 53. Set by tests.
	dnsPort uint16
}

// bounds are how long may be waited, and from when on something is slow.
type bounds struct {
	ask   time.Duration // a daemon, a socket, a small program
	check time.Duration // a daemon's check of its settings, a store, a queue
	dns   time.Duration // one question
	lists time.Duration // the test of all DNS lists, the records of all domains

	slowDNS, slowStore time.Duration
}

func defaultBounds() bounds {
	return bounds{
		ask: 5 * time.Second, check: 30 * time.Second, dns: 10 * time.Second, lists: 30 * time.Second,
		slowDNS: 500 * time.Millisecond, slowStore: 50 * time.Millisecond,
	}
}

// DaemonOptions say where a daemon is found.
type DaemonOptions struct {
	Admin  string // endpoint of the admin socket; "" is the default one
	Config string // configuration file; "" is that of the running daemon, of its unit, or the default one
	Binary string // "" looks beside the command and in /usr/sbin
}

// Run gathers the facts and makes the checks.
func Run(ctx context.Context, o Options) Report {
	f := gather(ctx, o)
	defer f.close()
	all := slices.DeleteFunc(allChecks(), func(c check) bool { return !o.wants(c.name) })
	found := make([][]Finding, len(all))
	var running sync.WaitGroup
	for i, c := range all {
		running.Go(func() { found[i] = c.run(ctx, f) })
	}
	running.Wait()
	report := Report{Level: OK, Findings: []Finding{}}
	for i, c := range all {
		report.add(c.name, found[i])
	}
	return report
}

// wants reports whether a check is to be made.
func (o *Options) wants(check string) bool {
	return (len(o.Only) == 0 || slices.Contains(o.Only, check)) && !slices.Contains(o.Skip, check)
}

// add adds what a check found.
func (r *Report) add(check string, found []Finding) {
	for _, f := range found {
		f.Check, f.Text, f.Fix = check, oneLine(f.Text), oneLine(f.Fix)
		if f.Level.rank() > r.Level.rank() {
			r.Level = f.Level
		}
		r.Findings = append(r.Findings, f)
	}
}

// Names are the names of all checks, in their order.
func Names() []string {
	var names []string
	for _, c := range allChecks() {
		names = append(names, c.name)
	}
	return names
}
