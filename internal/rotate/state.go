package rotate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Phase is what a rotation does next. Its steps can be repeated: if a process ends in the
// middle, the phase has not changed, and the next process repeats it.
type Phase string

// The phases in their order.
const (
	// Make makes the new keys, in a folder where they do not sign.
	Make Phase = "make"
	// Publish publishes their records, and waits until every authoritative server has
	// shown them for as long as an older answer may be cached.
	Publish Phase = "publish"
	// Sign moves the new keys beside the old ones, so that both sign.
	Sign Phase = "sign"
	// Retire takes the old keys away after [Overlap].
	Retire Phase = "retire"
	// Keep leaves the old records in the DNS for mail that is on its way.
	Keep Phase = "keep"
	// Revoke publishes the old records with an empty p=, and deletes the keys.
	Revoke Phase = "revoke"
	// Revoked keeps these records for [RevokedFor].
	Revoked Phase = "revoked"
	// Remove removes these records.
	Remove Phase = "remove"
	// Withdraw removes new keys that have never signed.
	Withdraw Phase = "withdraw"
	// Done is the end.
	Done Phase = "done"
)

// KeyRef is one key of a rotation, without its secret.
type KeyRef struct {
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Record    string `json:"record,omitempty"` // the text of its TXT record; "" until the key is made
}

// State is the state of a rotation on disk.
type State struct {
	Version int       `json:"version"`
	Domain  string    `json:"domain"`
	Phase   Phase     `json:"phase"`
	Started time.Time `json:"started"`
	Since   time.Time `json:"since"` // when the phase began
	// Incoming are the keys that will sign, Outgoing those that will stop.
	Incoming []KeyRef `json:"incoming"`
	Outgoing []KeyRef `json:"outgoing"`
	// Signed means that the incoming keys may have signed mail.
	Signed bool `json:"signed"`
	// Undone means that the old keys are the incoming ones again.
	Undone bool `json:"undone,omitempty"`
	// Handed is when the change was last passed to the publisher.
	Handed time.Time `json:"handed,omitzero"`
	// Seen is since when every server has shown the records of the incoming keys.
	Seen time.Time `json:"seen,omitzero"`
	// Switched is when the keys that sign now took over; [Due] counts from it.
	Switched time.Time `json:"switched,omitzero"`
	// Missing is what some name server does not show yet, of what the phase waits for.
	Missing string `json:"missing,omitempty"`
	// Problem is why the latest step failed.
	Problem string `json:"problem,omitempty"`
	// History are the latest steps, the oldest first.
	History []Entry `json:"history"`
}

// Entry is a step that was made.
type Entry struct {
	Time   time.Time `json:"ts"`
	Step   Step      `json:"step"`
	Detail string    `json:"detail"`
}

const (
	stateVersion = 1
	maxHistory   = 100
	maxState     = 1 << 20 // octets

	stateFile = "state.json"
	lockFile  = "lock"
	// lookedFile is empty. Its time is when a host last looked whether there is a step to
	// make, see [Rotator.Resume].
	lookedFile = "looked"
)

// note adds an entry to the history.
func (s *State) note(at time.Time, step Step, detail string) {
	s.History = append(s.History, Entry{at, step, detail})
	if extra := len(s.History) - maxHistory; extra > 0 {
		s.History = s.History[extra:]
	}
}

// active reports whether there is anything left to do.
func (s *State) active() bool { return s != nil && s.Phase != Done }

// to starts a phase.
func (s *State) to(p Phase, now time.Time) {
	s.Phase, s.Since, s.Missing, s.Problem = p, now, "", ""
	s.Handed, s.Seen = time.Time{}, time.Time{}
}

// move moves the times from which waits are counted.
func (s *State) move(by time.Duration) {
	for _, t := range []*time.Time{&s.Since, &s.Handed, &s.Seen} {
		if !t.IsZero() {
			*t = t.Add(by)
		}
	}
}

// parseState parses a state. It refuses an inconsistent state, because a guess could
// remove the record of a key that signs.
func parseState(data []byte, domain string) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	switch {
	case s.Version != stateVersion:
		return nil, fmt.Errorf("version %d of the state is not known; use the release of Postern that wrote it", s.Version)
	case s.Domain != domain:
		return nil, fmt.Errorf("the state is that of %q; the folder was copied, remove the state", s.Domain)
	case !s.known():
		return nil, fmt.Errorf("the phase %q is not known", s.Phase)
	case len(s.Incoming) == 0 || len(s.Outgoing) == 0:
		return nil, errors.New("the state names no new keys or no old ones; restore it from a backup")
	}
	for _, key := range append(s.Incoming[:len(s.Incoming):len(s.Incoming)], s.Outgoing...) {
		if !isSelector(key.Selector) {
			return nil, fmt.Errorf("%q is not a selector", key.Selector)
		}
	}
	return s, nil
}

func (s *State) known() bool { return s.Phase == Done || slices.Contains(Phases(), s.Phase) }

// Phases returns the phases in which something is left to do.
func Phases() []Phase {
	return []Phase{Make, Publish, Sign, Retire, Keep, Revoke, Revoked, Remove, Withdraw}
}

// load reads the state of a domain. It returns nil if there is none.
func (d *domainFolder) load() (*State, error) {
	data, err := d.readFile(hidden+"/"+stateFile, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s, err := parseState(data, d.domain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path(hidden, stateFile), err)
	}
	return s, nil
}

// save replaces the state atomically: a reader gets either the old or the new state.
func (d *domainFolder) save(s *State) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return d.replace(hidden+"/"+stateFile, append(data, '\n'))
}
