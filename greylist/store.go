// Package greylist answers one question: has this mail waited long enough?
//
// Greylisting (RFC 6647) turns a mail from an unknown source away for a few
// minutes. A mail server comes back, most spam software does not. What came
// back is known by its key: where the mail came from, its envelope sender and
// its recipient. Sources that have come back several times are allowed from
// then on.
//
// Invariants:
//
//   - Stores keep facts: when a key was first and last seen, when it first
//     passed, how often a client has. Only [Decide] judges them, with the
//     [Limits] of the moment, so that a changed delay or life time applies to
//     what is stored already.
//   - The beginning of a wait in the future, after a clock has jumped, counts as
//     now: no one is delayed by more than one delay for it. The time of the latest
//     sighting never goes back.
//   - All stores make of one sighting what [Record.Advance] makes of it; the
//     suite in storetest holds them to it.
//   - Keys are made of bounded, printable strings. This package knows no mail
//     server, reads no clock, logs nothing.
package greylist

import (
	"context"
	"errors"
	"time"
)

// Stamp is a time in milliseconds since 1970, 0 for never: small, and exact
// in every store.
type Stamp int64

// At turns a time into a Stamp.
func At(t time.Time) Stamp {
	if t.IsZero() {
		return 0
	}
	return Stamp(t.UnixMilli())
}

// Time is the zero time for never.
func (s Stamp) Time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(s))
}

// Sub is the time from o to s.
func (s Stamp) Sub(o Stamp) time.Duration { return time.Duration(s-o) * time.Millisecond }

// Triplet is what is known of a client, sender and recipient. Its zero value
// means nothing.
type Triplet struct {
	First  Stamp // start of the wait that counts
	Last   Stamp // latest sighting
	Passed Stamp // when it had first waited long enough; 0 if not yet
}

// Client is the credit of a client.
type Client struct {
	Passes int   // first passes counted, at most one an hour
	Last   Stamp // when the latest was counted, or the credit was used after an hour
	Manual bool  // allowed by hand: needs no passes and never expires
}

// Refusal is why a new triplet was not recorded.
type Refusal uint8

// The refusals.
const (
	Recorded       Refusal = iota
	NetworkFlooded         // its Window has Limits.NetworkCap new ones in FloodWindow
	DaemonFlooded          // Limits.Full
)

// Record is all that a store knows about a key, as it was before a sighting.
type Record struct {
	ByDomain      Triplet // of the SPF domain, from any network
	ByNetwork     Triplet
	DomainClient  Client // of the domain at this network
	NetworkClient Client
	Refused       Refusal
	FloodEnds     Stamp // when new triplets of its Window are recorded again, if NetworkFlooded
	// At is the time by the store's own clock, which Decide takes; 0: that of
	// the caller.
	At Stamp
}

// Store keeps what has been seen. Implementations are safe for concurrent use;
// an error means that nothing can be said about the key.
type Store interface {
	// Seen records a sighting, atomically for each key, and returns the state
	// before it.
	Seen(ctx context.Context, key Key, now time.Time, limits Limits) (Record, error)
	// Credit counts the first pass of a client, as Key.Creditor spells it, at
	// most one in CreditInterval.
	Credit(ctx context.Context, client string, now time.Time) error
	// Peek reads and records nothing.
	Peek(ctx context.Context, key Key) (Record, error)
}

// Browser is a store that an administrator can look into.
type Browser interface {
	// Walk calls yield for every entry, in no order, until it returns an
	// error. Entries that change meanwhile may be seen before or after the change.
	Walk(ctx context.Context, yield func(Entry) error) error
	// Put adds entries: where one exists already, the older first time, the
	// later last time and the greater credit win.
	Put(ctx context.Context, entries []Entry) error
	// Delete forgets entries and returns how many there were.
	Delete(ctx context.Context, ids []ID) (int, error)
}

// Entry is one thing in a store: a triplet or, when ID.IsClient, a client.
type Entry struct {
	ID      ID
	Triplet Triplet
	Client  Client
}

// Merge joins what two sources say about one entry.
func (e Entry) Merge(o Entry) Entry {
	e.Triplet = e.Triplet.merge(o.Triplet)
	e.Client = Client{
		Passes: max(e.Client.Passes, o.Client.Passes),
		Last:   max(e.Client.Last, o.Client.Last),
		Manual: e.Client.Manual || o.Client.Manual,
	}
	return e
}

// Expired reports whether no one needs the entry any more.
func (e Entry) Expired(now Stamp, l Limits) bool {
	if e.ID.IsClient() {
		return e.Client.Expired(now, l)
	}
	return e.Triplet.Expired(now, l)
}

// Expired reports whether no one needs the triplet any more.
func (t Triplet) Expired(now Stamp, l Limits) bool { return !t.live(now, l) }

// Expired reports whether no one needs the credit any more.
func (c Client) Expired(now Stamp, l Limits) bool { return !c.live(now, l) }

// ErrFull is the error of a store that takes nothing new. It still answers for
// what has passed before.
var ErrFull = errors.New("greylist store takes nothing new")

// ErrDenied marks the error of a store that will not answer until a person has
// set something right, such as its password.
var ErrDenied = errors.New("greylist store denies access")

// ErrUnavailable is the error of a store that is known to be down, given
// without asking it.
var ErrUnavailable = errors.New("greylist store is unavailable")
