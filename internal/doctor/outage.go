package doctor

import (
	"regexp"
	"slices"
	"strings"
)

// outage is one reason for which tables of the daemons cannot answer, such as a server
// that is down.
type outage struct {
	cause           string
	tables, daemons []string // each once
	first           Finding  // about the first table alone
	lines           int
}

// cannotAnswer is what --check-config --online says of such a table.
const cannotAnswer = " cannot answer: "

// ownAddress matches the address of our side in an error about a connection. Its port
// differs each time.
var ownAddress = regexp.MustCompile(`\S+:\d+->`)

// outageOf returns the outage of all that a line of a daemon's check of its settings
// belongs to, which may be a new one. It returns nil if the line is about something else.
func outageOf(all *[]*outage, d *Daemon, line string) *outage {
	before, cause, found := strings.Cut(strings.TrimSpace(line), cannotAnswer)
	if !found {
		return nil
	}
	cause = ownAddress.ReplaceAllString(cause, "")
	i := slices.IndexFunc(*all, func(o *outage) bool { return o.cause == cause })
	if i < 0 {
		i, *all = len(*all), append(*all, &outage{cause: cause, first: d.problem(line)})
	}
	o := (*all)[i]
	o.lines++
	const word = "table "
	if name := before[strings.LastIndex(before, word)+len(word):]; !slices.Contains(o.tables, name) {
		o.tables = append(o.tables, name)
	}
	if !slices.Contains(o.daemons, d.Name) {
		o.daemons = append(o.daemons, d.Name)
	}
	return o
}

// finding is one line, however many tables are concerned.
func (o *outage) finding() Finding {
	if o.lines == 1 {
		return o.first
	}
	cause, fix := splitFix(o.cause, "start that server, or correct how the tables name it; postern doctor --check settings looks again")
	return failf(fix, "%s: %s%s%s", strings.Join(o.daemons, " and "), strings.Join(o.tables, ", "), cannotAnswer, cause)
}
