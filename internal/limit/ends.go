package limit

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Ends remembers whether the mail server asks at the end of mails. It remembers this for
// each service, and for mail with and without a login, because different hooks ask about
// them.
type Ends struct {
	sides atomic.Pointer[map[side]*ended] // replaced, never changed
	grow  sync.Mutex
	told  atomic.Int64
}

// side is what one hook asks about.
type side struct {
	service string
	login   bool
}

// ended is what is known about a side.
type ended struct {
	last  atomic.Int64 // when the mail server last asked at an end
	named atomic.Int64 // recipients since
}

const (
	// maxSides bounds the sides. Services beyond it share one.
	maxSides = 64
	// patience is how many recipients are named without an end before NoEnds is called.
	patience = 100
	// endsFor is how long after an end the mail server is assumed to ask at ends. After
	// that, named recipients count at once until the next end is seen.
	endsFor = time.Hour
)

// of returns the side of an event.
func (n *Ends) of(e *Event) *ended {
	key := side{e.Service, e.Login != ""}
	if sides := n.sides.Load(); sides != nil {
		if s, ok := (*sides)[key]; ok {
			return s
		}
	}
	n.grow.Lock()
	defer n.grow.Unlock()
	all := make(map[side]*ended)
	if sides := n.sides.Load(); sides != nil {
		all = maps.Clone(*sides)
	}
	if len(all) >= maxSides {
		key.service = ""
	}
	s, ok := all[key]
	if !ok {
		s = new(ended)
		key.service = strings.Clone(key.service) // it may be a part of a whole request
		all[key] = s
		n.sides.Store(&all)
	}
	return s
}

func (n *Ends) seen(e *Event) {
	s := n.of(e)
	s.last.Store(e.Time.UnixNano())
	s.named.Store(0)
}

// missed counts a recipient, and reports whether NoEnds has to be called.
func (n *Ends) missed(e *Event) bool {
	if n.of(e).named.Add(1) < patience || n.asked(e) {
		return false
	}
	told := n.told.Load()
	return (told == 0 || e.Time.Sub(time.Unix(0, told)) >= endsFor) && n.told.CompareAndSwap(told, e.Time.UnixNano())
}

func (n *Ends) asked(e *Event) bool {
	at := n.of(e).last.Load()
	return at != 0 && e.Time.Sub(time.Unix(0, at)).Abs() < endsFor
}
