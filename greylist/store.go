// Package greylist answers one question: has this mail waited long enough?
//
// Greylisting (RFC 6647) rejects a mail from an unknown source for a few
// minutes. A mail server tries again, most spam software does not. The retry is
// recognised by its key: where the mail came from, its envelope sender and its
// recipient. A source that has passed several times does not wait any more.
//
// Invariants:
//
//   - Stores keep facts: when a key was first and last seen, when it first
//     passed, how often a client has passed. Only [Decide] decides, with the
//     current [Limits]. So a changed delay or lifetime also applies to entries
//     that are already stored.
//   - After a clock has jumped, a wait may begin in the future. It then counts as
//     beginning now, so it costs one more delay at most. The time of the latest
//     sighting never goes back.
//   - Every store handles a sighting as [Record.Advance] does. The suite in
//     storetest tests this.
//   - Keys are made of bounded, printable strings. This package does not depend
//     on a mail server, reads no clock and logs nothing.
package greylist

import (
	"context"
	"errors"
	"math"
	"time"
)

// Stamp is a time in milliseconds since 1970, 0 for never: small, and exact
// in every store.
type Stamp int64

// At converts a time to a Stamp.
func At(t time.Time) Stamp {
	if t.IsZero() {
		return 0
	}
	return Stamp(t.UnixMilli())
}

// Time returns the time of a Stamp; never is the zero time.
func (s Stamp) Time() time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(s))
}

// Sub returns the time from o to s. If it is longer than a Duration can be, the result is
// the longest.
func (s Stamp) Sub(o Stamp) time.Duration {
	const most = Stamp(math.MaxInt64 / time.Millisecond)
	switch d := s - o; { // which may be too long for a Stamp too
	case s >= o && (d < 0 || d > most):
		return math.MaxInt64
	case s < o && (d > 0 || d < -most):
		return math.MinInt64
	default:
		return time.Duration(d) * time.Millisecond
	}
}

// Triplet is what is known about one client, sender and recipient. The zero value
// means that nothing is known.
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
	NetworkFlooded         // its Window already has Limits.NetworkCap new triplets in FloodWindow
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
	// At is the time of the store's own clock, which Decide uses; 0: it uses the
	// caller's time.
	At Stamp
}

// Store keeps what has been seen. Implementations are safe for concurrent use.
// After an error nothing is known about the key.
type Store interface {
	// Seen records a sighting, atomically for each key, and returns what was
	// known before it.
	Seen(ctx context.Context, key Key, now time.Time, limits Limits) (Record, error)
	// Credit counts a first pass for a client, which is named as Key.Creditor
	// returns it. It counts at most one in CreditInterval.
	Credit(ctx context.Context, client string, now time.Time) error
	// Peek returns what is known, and records nothing.
	Peek(ctx context.Context, key Key) (Record, error)
}

// Browser is a store whose entries an administrator can list and change.
type Browser interface {
	// Walk calls yield for every entry, in any order, and stops when yield returns
	// an error. An entry that changes meanwhile may be seen before or after the change.
	Walk(ctx context.Context, yield func(Entry) error) error
	// Put adds entries. Where one exists already, the result has the older first
	// time, the later last time and the greater credit.
	Put(ctx context.Context, entries []Entry) error
	// Delete removes entries and returns how many existed.
	Delete(ctx context.Context, ids []ID) (int, error)
}

// Entry is one thing in a store: a triplet or, when ID.IsClient, a client.
type Entry struct {
	ID      ID
	Triplet Triplet
	Client  Client
}

// Merge combines what two sources know about one entry.
func (e Entry) Merge(o Entry) Entry {
	e.Triplet = e.Triplet.merge(o.Triplet)
	e.Client = Client{
		Passes: max(e.Client.Passes, o.Client.Passes),
		Last:   max(e.Client.Last, o.Client.Last),
		Manual: e.Client.Manual || o.Client.Manual,
	}
	return e
}

// Expired reports whether the entry is not needed any more.
func (e Entry) Expired(now Stamp, l Limits) bool {
	if e.ID.IsClient() {
		return e.Client.Expired(now, l)
	}
	return e.Triplet.Expired(now, l)
}

// Expired reports whether the triplet is not needed any more.
func (t Triplet) Expired(now Stamp, l Limits) bool { return !t.live(now, l) }

// Expired reports whether the credit is not needed any more.
func (c Client) Expired(now Stamp, l Limits) bool { return !c.live(now, l) }

// ErrFull is the error of a store that cannot record anything new. It still
// answers for senders that have passed before.
var ErrFull = errors.New("greylist store takes nothing new")

// ErrDenied marks the error of a store that does not answer until a person fixes
// something, such as its password.
var ErrDenied = errors.New("greylist store denies access")

// ErrUnavailable is the error for a store that is known to be down. It is
// returned without asking the store.
var ErrUnavailable = errors.New("greylist store is unavailable")
