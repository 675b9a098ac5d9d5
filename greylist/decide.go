package greylist

import "time"

const (
	// CreditInterval is the shortest time between two passes that count as credit,
	// and between two records of the use of a credit.
	CreditInterval = time.Hour
	// FloodWindow is the period to which Limits.NetworkCap applies.
	FloodWindow = time.Hour
	// longestNote bounds Limits.NoteInterval.
	longestNote = time.Minute
)

// Limits are the settings with which Decide decides.
type Limits struct {
	Delay       time.Duration // from the first sighting to the first pass
	RetryWindow time.Duration // from the first sighting until a triplet that has not passed is forgotten
	PassTTL     time.Duration // from the last sighting until a triplet that has passed is forgotten
	AllowAfter  int           // passes after which a client does not wait any more; 0: it always waits
	AllowTTL    time.Duration // from the last use of its credit until a client is forgotten
	NetworkCap  int           // most new triplets of one network, or of one domain that SPF authorised, in FloodWindow; 0: no bound
	Full        bool          // no new triplets are recorded now
}

// NoteInterval is the shortest time between two writes of the latest sighting of a
// triplet that has passed. So a sender of much mail costs a store few writes, and its
// triplet is forgotten at most one part in a hundred too early.
func (l Limits) NoteInterval() time.Duration { return min(longestNote, l.PassTTL/100) }

// Why is the reason for an Outcome.
type Why uint8

// The reasons. With the first four the mail passes.
const (
	AllowedByHand Why = iota
	AutoAllowed       // the client has passed often enough
	Known             // has passed before
	Waited            // passes for the first time
	New               // never seen, or forgotten
	Early             // seen, but has not waited long enough
	FloodNetwork      // new, and not recorded: too many of its network or domain
	FloodDaemon       // new, and not recorded: too many in all
)

// Outcome is the decision on one sighting.
type Outcome struct {
	Why Why
	// Wait is how much longer the sender must wait, if the mail does not pass. After
	// FloodNetwork it is the time until the triplet can be recorded.
	Wait time.Duration
	// Waited is how long ago the first sighting was.
	Waited time.Duration
}

// Pass reports whether the mail is accepted.
func (o Outcome) Pass() bool { return o.Why <= Waited }

// Decide decides on a sighting at now, from what was known before it.
func Decide(r Record, now time.Time, l Limits) Outcome {
	at := At(now)
	if r.At != 0 {
		at = r.At
	}
	if why, ok := r.allowed(at, l); ok {
		return Outcome{Why: why}
	}
	t := r.prior(at, l)
	switch {
	case t == Triplet{} && r.FloodEnds > at:
		return Outcome{Why: FloodNetwork, Wait: r.FloodEnds.Sub(at)}
	case t == Triplet{}:
		return Outcome{Why: refusals[r.Refused], Wait: l.Delay}
	case t.Passed != 0:
		return Outcome{Why: Known, Waited: at.Sub(t.First)}
	case at.Sub(t.First) >= l.Delay:
		return Outcome{Why: Waited, Waited: at.Sub(t.First)}
	}
	waited := at.Sub(t.First)
	return Outcome{Why: Early, Wait: l.Delay - waited, Waited: waited}
}

var refusals = [...]Why{Recorded: New, NetworkFlooded: FloodNetwork, DaemonFlooded: FloodDaemon}

// Change is what a store has to write after a sighting.
type Change struct {
	Triplet      Triplet // for all triplet keys, if WriteTriplet
	WriteTriplet bool
	IsNew        bool // the triplet counts toward the cap, if there is one
	TouchDomain  bool // the credit of the domain's client was used: record it, see Client.Touched
	TouchNetwork bool
	Refused      Refusal
}

// Advance returns what a sighting of k at now changes. recent is how many new triplets
// the key's Window has in the current FloodWindow. A clock that is behind does not
// move Last back, because others would then consider the entry expired too early.
func (r Record) Advance(k Key, now Stamp, recent int, l Limits) Change {
	if _, ok := r.allowed(now, l); ok {
		return Change{
			TouchDomain:  r.DomainClient.usedAgain(now, l),
			TouchNetwork: r.NetworkClient.usedAgain(now, l),
		}
	}
	t := r.prior(now, l)
	if t == (Triplet{}) {
		if refused := l.refuse(recent); refused != Recorded {
			return Change{Refused: refused}
		}
		return Change{Triplet: Triplet{First: now, Last: now}.pass(now, l), WriteTriplet: true, IsNew: true}
	}
	if t.Passed != 0 && now.Sub(t.Last) < l.NoteInterval() && r.ByNetwork == t && (k.Domain == "" || r.ByDomain == t) {
		return Change{}
	}
	t.Last = max(t.Last, now)
	return Change{Triplet: t.pass(now, l), WriteTriplet: true}
}

func (l Limits) refuse(recent int) Refusal {
	switch {
	case l.NetworkCap > 0 && recent >= l.NetworkCap:
		return NetworkFlooded
	case l.Full:
		return DaemonFlooded
	}
	return Recorded
}

// prior returns the triplet that counts: of those that have not expired, the one
// whose wait began first.
func (r Record) prior(now Stamp, l Limits) Triplet {
	d, n := r.ByDomain.clamp(now), r.ByNetwork.clamp(now)
	switch {
	case !d.live(now, l) && !n.live(now, l):
		return Triplet{}
	case !d.live(now, l):
		return n
	case !n.live(now, l):
		return d
	}
	return d.merge(n)
}

func (r Record) allowed(now Stamp, l Limits) (Why, bool) {
	if r.DomainClient.Manual || r.NetworkClient.Manual {
		return AllowedByHand, true
	}
	return AutoAllowed, r.DomainClient.allowed(now, l) || r.NetworkClient.allowed(now, l)
}

// clamp replaces a beginning in the future by now.
func (t Triplet) clamp(now Stamp) Triplet {
	return Triplet{min(t.First, now), t.Last, min(t.Passed, now)}
}

func (t Triplet) live(now Stamp, l Limits) bool {
	t = t.clamp(now)
	switch {
	case t.Last == 0:
		return false
	case t.Passed != 0:
		return now.Sub(t.Last) <= l.PassTTL
	}
	return now.Sub(t.First) <= l.RetryWindow
}

func (t Triplet) merge(o Triplet) Triplet {
	if t.Last == 0 {
		return o
	}
	if o.Last == 0 {
		return t
	}
	passed := min(t.Passed, o.Passed)
	if passed == 0 {
		passed = max(t.Passed, o.Passed)
	}
	return Triplet{min(t.First, o.First), max(t.Last, o.Last), passed}
}

// pass sets the time of the first pass, if the wait was long enough.
func (t Triplet) pass(now Stamp, l Limits) Triplet {
	if t.Passed == 0 && now.Sub(t.First) >= l.Delay {
		t.Passed = now
	}
	return t
}

func (c Client) live(now Stamp, l Limits) bool {
	return c.Manual || c.Last != 0 && now.Sub(c.Last) <= l.AllowTTL
}

func (c Client) allowed(now Stamp, l Limits) bool {
	return c.Manual || l.AllowAfter > 0 && c.Passes >= l.AllowAfter && c.live(now, l)
}

func (c Client) usedAgain(now Stamp, l Limits) bool {
	return c.allowed(now, l) && now.Sub(c.Last) >= CreditInterval
}

// due reports whether an hour has passed since the last count. A last count in the
// future is ignored, because the clock must have been set back.
func (c Client) due(now Stamp) bool {
	return c.Last > now || now.Sub(c.Last) >= CreditInterval
}

// Credited counts a pass. It returns false if the last one is too recent.
func (c Client) Credited(now Stamp) (Client, bool) {
	if c.Last != 0 && !c.due(now) {
		return c, false
	}
	c.Passes = min(c.Passes+1, MaxPasses)
	c.Last = max(c.Last, now)
	return c, true
}

// Touched records the use of a credit.
func (c Client) Touched(now Stamp) Client {
	c.Last = max(c.Last, now)
	return c
}

// MaxPasses is the highest count of a client's passes.
const MaxPasses = 1 << 20
