// Package doctor finds what is wrong with a Postern that is attached to a Postfix. It
// looks at the settings of both, at the services that they need, and at the sockets
// between them.
//
// Facts are gathered once (facts.go): the output of postconf, the settings and states
// of the daemons, units, DNS, queues. A check (checks.go) is a function that judges
// facts and returns findings. All checks are in one ordered list. A finding is one
// line: a level, what was looked at, the problem, and what to do.
//
// Doctor changes nothing. It asks the daemons about no mail, so it leaves no trace in
// the greylist and no record in the log. The daemons may be down; their settings are
// then read from the files.
package doctor

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Level is the severity of a finding.
type Level string

// The levels.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// rank returns the exit status of the command for a level.
func (l Level) rank() int { return slices.Index([]Level{OK, Warn, Fail}, l) }

// Finding is one result of a check.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"` // what to do; never empty unless Level is ok
}

// Report is the result of all checks.
type Report struct {
	Level    Level     `json:"level"` // the worst of all
	Findings []Finding `json:"findings"`
}

// Status returns the exit status: 0 if everything is well, 1 for warnings, 2 for
// failures.
func (r Report) Status() int { return r.Level.rank() }

// Options select what to look at.
type Options struct {
	ConfigDirectory string // of Postfix; "" for postconf's own
	Policyd         DaemonOptions
	Milterd         DaemonOptions
	Root            string   // folder above the files of other programs; "" for the whole system
	MailLog         string   // Postfix's log; "" looks where Postfix and the system keep it
	Only            []string // names of the checks to run; empty for all
	Skip            []string // names of checks to leave out
	Version         string   // version of the command

	paths  paths            // files of other programs; set by tests
	now    func() time.Time // nil for time.Now
	bounds bounds           // zero values are replaced by defaults
	// dnsPort is the port of the zones' servers; 0 for 53. Set by tests.
	dnsPort uint16
}

// bounds are the time limits, and the time from which something counts as slow.
type bounds struct {
	ask   time.Duration // for a daemon, a socket, a small program
	check time.Duration // for a daemon's check of its settings, a store, a queue
	dns   time.Duration // for one question
	lists time.Duration // for the test of all DNS lists, for the records of all domains

	slowDNS, slowStore time.Duration
}

func defaultBounds() bounds {
	return bounds{
		ask: 5 * time.Second, check: 30 * time.Second, dns: 10 * time.Second, lists: 30 * time.Second,
		slowDNS: 500 * time.Millisecond, slowStore: 50 * time.Millisecond,
	}
}

// DaemonOptions are where a daemon is found.
type DaemonOptions struct {
	Admin  string // endpoint of the admin socket; "" for the default
	Config string // settings file; "" for that of the running daemon, of its unit, or the default
	Binary string // path of the program; "" looks beside the command and in /usr/sbin
}

// Run gathers the facts and runs the checks.
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
		report.addFindings(c.name, found[i])
	}
	return report
}

// wants reports whether a check is to run.
func (o *Options) wants(check string) bool {
	return (len(o.Only) == 0 || slices.Contains(o.Only, check)) && !slices.Contains(o.Skip, check)
}

// addFindings adds the findings of a check.
func (r *Report) addFindings(check string, found []Finding) {
	r.Findings, r.Level = note(r.Findings, r.Level, check, found)
}

// Names returns the names of all checks, in their order.
func Names() []string {
	var names []string
	for _, c := range allChecks() {
		names = append(names, c.name)
	}
	return names
}
