package checks

import (
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/policy"
)

// Attached remembers whether Postfix asks for the limits of logins where it asks about
// users. The zero value is ready, and nil remembers nothing. It is safe for concurrent use.
type Attached struct {
	last  atomic.Int64 // when limits of a login were last asked for
	named atomic.Int64 // recipients that users named since, in hooks without the limit check
	told  atomic.Int64
}

const (
	// attachedFor is how long after a question about limits the hooks are assumed to ask.
	attachedFor = time.Hour
	// unattachedPatience is how many recipients users name before the hooks are assumed not
	// to ask. Postfix may ask at the end of a mail only, and takes 1000 recipients in one.
	unattachedPatience = 1000
)

// asked notes that the limits of a login are asked for.
func (a *Attached) asked(r *policy.Request) {
	if a != nil && r.Authenticated() {
		a.last.Store(r.Received.UnixNano())
		a.named.Store(0)
	}
}

// missed counts a recipient in a hook that does not ask for limits, and reports whether
// the administrator has to know.
func (a *Attached) missed(r *policy.Request) bool {
	if a == nil || !r.Authenticated() || r.State != policy.StateRcpt || a.named.Add(1) < unattachedPatience || a.recent(r.Received) {
		return false
	}
	told := a.told.Load()
	return (told == 0 || r.Received.Sub(time.Unix(0, told)) >= attachedFor) && a.told.CompareAndSwap(told, r.Received.UnixNano())
}

func (a *Attached) recent(now time.Time) bool {
	last := a.last.Load()
	return last != 0 && now.Sub(time.Unix(0, last)).Abs() < attachedFor
}

// Missing reports whether Postfix asks about users, and not for their limits.
func (a *Attached) Missing(now time.Time) bool {
	return a != nil && a.named.Load() > 0 && !a.recent(now)
}
