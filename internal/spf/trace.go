package spf

// EventKind is the kind of an Event.
type EventKind string

// The kinds of events, in the order in which they come: the query for a
// record, the record, then each term, after the queries it caused.
const (
	EventQuery  EventKind = "query"  // Type, Name, and Answers or Err
	EventRecord EventKind = "record" // Text is the selected record
	EventTerm   EventKind = "term"   // Text is the term, Outcome its result
)

// Event is one step of a check. A trace shows why a check has its result.
type Event struct {
	Kind    EventKind
	Depth   int      // 0 in the record of the asked domain, one more in each include or redirect
	Domain  string   // the domain whose record is being evaluated
	Text    string   // as published; surely printable only if the record has no syntax error
	Outcome string   // "match", "no match", or the status that ended the check there
	Type    string   // TXT, A, AAAA, MX, PTR
	Name    string   // absolute name, or for PTR the address
	Answers []string // empty when there are no records
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
