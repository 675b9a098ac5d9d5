package replay

import (
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/maillog"
)

// maxWays bounds the mails that are followed at a time.
const maxWays = 1 << 20

// way is the history of a mail from its first deferral until it passes.
type way struct {
	since     time.Time // of the first try
	last      time.Time
	wasIn     bool
	wouldIn   bool
	wouldFrom time.Time // when it is assumed to return; zero if it returns with a record
	was       bool      // deferred by the daemon; would is the same for the other side
	would     bool
}

// ways follows mails by their keys.
type ways struct {
	open       map[greylist.ID]*way
	was, would sideCounter
}

func newWays() *ways { return &ways{open: make(map[greylist.ID]*way)} }

// sideCounter counts for a Side.
type sideCounter struct {
	side    Side
	waits   maillog.Values
	senders map[string]bool
}

func (c *sideCounter) deferred(sender string) {
	c.side.Deferred++
	if c.senders == nil {
		c.senders = make(map[string]bool)
	}
	if len(c.senders) < maxWays {
		c.senders[sender] = true
	}
}

func (c *sideCounter) letIn(waited time.Duration, exact bool) {
	c.side.Delayed++
	c.waits.Add(waited.Seconds())
	if !exact {
		c.side.AtLeast++
	}
}

func (c *sideCounter) result() Side {
	c.side.Senders = len(c.senders)
	c.side.Waits = c.waits.Spread()
	return c.side
}

// at returns the way of a mail, or nil if the mail is not deferred. It ends a way whose
// mail has not returned in time.
func (w *ways) at(id greylist.ID, now time.Time, window time.Duration) *way {
	found := w.open[id]
	if found != nil && now.Sub(found.last) > window {
		w.end(id)
		return nil
	}
	return found
}

// begin follows a mail that was deferred for the first time.
func (w *ways) begin(id greylist.ID, now time.Time) *way {
	if len(w.open) >= maxWays {
		for old := range w.open { // drops any one: there are too many
			w.end(old)
			break
		}
	}
	fresh := &way{since: now, last: now}
	w.open[id] = fresh
	return fresh
}

// end stops following a mail.
func (w *ways) end(id greylist.ID) {
	m := w.open[id]
	delete(w.open, id)
	if m.was && !m.wasIn {
		w.was.side.Gone++
	}
	if m.would && !m.wouldIn {
		w.would.side.Gone++
	}
}

// endAll stops following all mails.
func (w *ways) endAll() {
	for id := range w.open {
		w.end(id)
	}
}
