package spf

// EventKind says what an Event reports.
type EventKind string

// The kinds of events, in the order in which they come: the query for a
// record, the record, then each term, after the queries it caused.
const (
	EventQuery  EventKind = "query"  // Type, Name, and Answers or Err
	EventRecord EventKind = "record" // Text is the selected record
	EventTerm   EventKind = "term"   // Text is the term, Outcome what came of it
)

// Event is one step of a check, for a person who wants to see why.
type Event struct {
	Kind    EventKind
	Depth   int      // 0 in the record of the asked domain, one more in each include or redirect
	Domain  string   // whose record is being evaluated
	Text    string   // as published: printable only when the record's syntax is good
	Outcome string   // "match", "no match", or the status that ended the check there
	Type    string   // TXT, A, AAAA, MX, PTR
	Name    string   // absolute name, or for PTR the address
	Answers []string // empty when DNS said that there is nothing
	Err     error
}

// emit sends e to the trace, if there is one.
func (c *check) emit(e Event) {
	if c.trace == nil {
		return
	}
	e.Depth, e.Domain = c.depth, c.domain
	c.trace(e)
}
