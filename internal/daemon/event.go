package daemon

import (
	"fmt"
	"net"
	"time"
)

// EventKind is what an [Event] reports.
type EventKind int

// Events of [Serve] and of [Run].
const (
	AcceptFailing   EventKind = iota + 1 // Accept fails and is tried again; repeated once a minute
	AcceptRecovered                      // Accept works again
	ConnsFull                            // MaxConns handlers run; repeated at most once a minute
	HostFull                             // MaxHostConns handlers of one host run; likewise
	HandlerPanicked                      // one connection was closed; Stack has the stack trace
	CloseFailed                          // a listener did not close or its path was not removed
	DrainTimedOut                        // Conns connections were cut

	SignalReceived   // Cause is the signal's name
	Reloaded         // the new configuration is in force
	ReloadFailed     // the old one stays
	Replaced         // a successor has taken over
	RestartFailed    // there is no successor; this process goes on
	LogsReopenFailed // the log is still written to the old file
	NotifyFailed     // the service manager did not get a message
	Unresponsive     // the daemon does not answer itself
	Responsive       // it answers itself again
	ServeFailed      // serving ended without being asked, or did not end well
	Drained          // everything ended in time
	StoppedBySecond  // a second signal ended the process while it drained
	eventKindsEnd    // one past the last kind
)

var eventTexts = [eventKindsEnd]string{
	AcceptFailing:    "cannot accept connections, trying again",
	AcceptRecovered:  "connections are accepted again",
	ConnsFull:        "connection limit reached, unused and idle connections are closed or new ones refused; raise --max-connections, or lower Postfix's process limits; if most are unused, stop the client that opens them",
	HostFull:         "connection limit of one host reached; raise --max-connections-per-host if the host is yours",
	HandlerPanicked:  "panic while serving a connection, it was closed",
	CloseFailed:      "closing a listener failed",
	DrainTimedOut:    "drain time-out, open connections are cut",
	SignalReceived:   "signal received",
	Reloaded:         "reloaded",
	ReloadFailed:     "reload failed, the old configuration stays",
	Replaced:         "restarted, a successor serves; sessions that are open come to their end here",
	RestartFailed:    "restart failed, this process goes on",
	LogsReopenFailed: "reopening the log failed",
	NotifyFailed:     "notifying the service manager failed",
	Unresponsive:     "the daemon does not answer itself; if this goes on, the service manager starts it again",
	Responsive:       "the daemon answers itself again",
	ServeFailed:      "serving failed",
	Drained:          "drained",
	StoppedBySecond:  "second signal, stopping at once",
}

// String returns the message for the log.
func (k EventKind) String() string {
	if k <= 0 || k >= eventKindsEnd {
		return fmt.Sprintf("event %d", int(k))
	}
	return eventTexts[k]
}

// Trouble reports whether the event is a problem. It decides the level of the log
// line.
func (k EventKind) Trouble() bool {
	switch k {
	case AcceptRecovered, SignalReceived, Reloaded, Replaced, Responsive, Drained:
		return false
	}
	return true
}

// Event is something that the log must show. Fields that do not apply are zero.
type Event struct {
	Kind   EventKind
	Socket Socket   // of Serve's events
	Remote net.Addr // the client, after a panic
	Conns  int
	Unused int    // of ConnsFull and HostFull: connections whose client has asked for nothing
	Cause  string // of Run's events: the signal or the changed file
	Err    error
	Stack  []byte // after a panic
}

// reminder lets one report pass, and then at most one in each remindEvery. Only
// one goroutine may use it at a time.
type reminder struct{ last time.Time }

func (r *reminder) due(now time.Time) bool {
	if !r.last.IsZero() && now.Sub(r.last) < remindEvery {
		return false
	}
	r.last = now
	return true
}

// backoff doubles the wait after each failure. The zero value is ready to use.
type backoff struct {
	wait time.Duration
	tell reminder
	told bool // this series of failures was reported
}

func (b *backoff) next(now time.Time) (wait time.Duration, tell bool) {
	b.wait = min(max(2*b.wait, minBackoff), maxBackoff)
	tell = b.tell.due(now)
	b.told = b.told || tell
	return b.wait, tell
}

// over ends a series of failures and returns whether the series was reported. The
// reminder is kept, so that failures that come and go are not reported each time.
func (b *backoff) over() bool {
	told := b.told
	b.wait, b.told = 0, false
	return told
}
