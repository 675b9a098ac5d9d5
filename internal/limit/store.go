package limit

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
)

// HoldFor is how long a transaction may keep what it has reserved without going on.
const HoldFor = 5 * time.Minute

// Bounds of stores.
const (
	// DefaultLogins and DefaultStrangers bound the counters of each budget.
	DefaultLogins    = 300_000
	DefaultStrangers = 200_000
	// MaxTransactions bounds the transactions that are remembered.
	MaxTransactions = 100_000
	// MaxBlocks bounds the logins that are blocked.
	MaxBlocks = 10_000
	// keepPeaks is how long the counters of a login are kept at least, for suggestions.
	keepPeaks = 8 * 24 * time.Hour
)

// Step says what an Op is about.
type Step uint8

// The steps of a mail.
const (
	Name Step = iota // a recipient is named
	End              // the whole mail is there
)

// Op is one request to a store.
type Op struct {
	Step Step
	// Txn names the transaction; it is never empty. Part names the recipient in it: a
	// part that has been counted is not counted again.
	Txn, Part string
	// Reserve keeps what is named for the transaction until its End, and does not
	// count it yet.
	Reserve bool
	// Look judges and leaves nothing behind.
	Look  bool
	Items []Item
	Now   time.Time
	Block string // a login that may be blocked; "" for none
}

// Item is one counter that an Op touches.
type Item struct {
	ID     string // of the counter
	Value  string // of the rule's key
	Rule   *Rule
	Text   string // the rule, for people
	Amount int64  // what the step adds; of the whole mail at its End
	// Need is what must be free although less is added.
	Need int64
	// Once counts Amount with the first part of a transaction only.
	Once bool
	// Direct counts at once, whatever the transaction becomes.
	Direct bool
	// Missing counts, at the End, the parts of the transaction beyond Amount.
	Missing bool
	// Member is what is seen, of a rule that counts networks.
	Member string
	// Lenient lets the mail pass although the count is reached.
	Lenient bool
}

// Use is what a store says about an Item.
type Use struct {
	Used  int64 // with this mail, if it was counted
	Over  bool  // the rule's count does not allow it
	Wait  time.Duration
	Alarm int // 80 or 100 percent, reached for the first time in this window; 0 for none
}

// Answer is what a store says about an Op.
type Answer struct {
	Uses    []Use
	Refused bool // nothing was counted
	Repeat  bool // the part was counted before
	Blocked *Block
}

// Block is a login whose mail is refused.
type Block struct {
	Login string
	Since time.Time
	Until time.Time // zero: until it is lifted
}

// BlockOf is a block as stores keep it: until is 0 for one that has to be lifted.
func BlockOf(login string, since, until Millis) Block {
	b := Block{Login: login, Since: time.UnixMilli(since)}
	if until != 0 {
		b.Until = time.UnixMilli(until)
	}
	return b
}

// Stored are the times of a block as BlockOf takes them.
func (b Block) Stored() (since, until Millis) {
	if !b.Until.IsZero() {
		until = b.Until.UnixMilli()
	}
	return b.Since.UnixMilli(), until
}

// Active reports whether the block holds.
func (b Block) Active(now time.Time) bool { return b.Until.IsZero() || now.Before(b.Until) }

// Counter is what a store knows of one key.
type Counter struct {
	ID       string
	Used     int64 // counted and reserved
	Reserved int64
	Peak     int64 // the most that was ever used, as far as is remembered
	Last     time.Time
	Wait     time.Duration // until the first of it is forgotten
	Members  []string      // of networks
}

// Store counts. Implementations are safe for concurrent use, and keep no Op when they
// return. An error means that nothing was counted, as far as is known.
type Store interface {
	// Take judges and counts in one atomic step.
	Take(ctx context.Context, op *Op) (Answer, error)
	// Undo takes back what Take has counted for the same Op.
	Undo(ctx context.Context, op *Op) error
	// Add counts without judging, for refusals.
	Add(ctx context.Context, op *Op) error

	// Counters calls yield for counters whose ID begins with a prefix, in no order,
	// until it returns an error.
	Counters(ctx context.Context, prefix string, now time.Time, yield func(Counter) error) error
	// Reset forgets counters and returns how many there were.
	Reset(ctx context.Context, ids []string) (int, error)
	// SetBlock blocks a login, or lifts its block.
	SetBlock(ctx context.Context, b Block, lift bool) error
	Blocks(ctx context.Context) ([]Block, error)
}

// Errors of stores.
var (
	ErrUnavailable = errors.New("limit store is unavailable")
	ErrDenied      = errors.New("limit store denies access")
	ErrFull        = errors.New("limit store takes nothing new")
)

// Separators of an ID: "login.recipients/3600 alice@example.org".
const (
	windowMark = "/"
	valueMark  = " "
)

// KeepFor is how long a counter is kept after its last use, in milliseconds.
func KeepFor(ofLogins bool, window Millis) Millis {
	window += window/Cells + 1
	if ofLogins {
		return max(window, keepPeaks.Milliseconds())
	}
	return window
}

// CounterID names the counter of a rule and a value.
func CounterID(r *Rule, value string) string { return counterBase(r) + value }

// counterBase is what the IDs of all counters of a rule begin with.
func counterBase(r *Rule) string {
	return r.Name() + windowMark + strconv.FormatInt(int64(r.Window/time.Second), 10) + valueMark
}

// WindowOf returns the window in the ID of a counter, at least a second.
func WindowOf(id string) time.Duration {
	name, _, _ := strings.Cut(id, valueMark)
	_, seconds, _ := strings.Cut(name, windowMark)
	n, _ := strconv.ParseInt(seconds, 10, 32)
	return max(time.Duration(n)*time.Second, time.Second)
}

// SplitID returns the name of the rule, the window and the value in the ID of a counter.
func SplitID(id string) (name string, window time.Duration, value string) {
	rule, value, _ := strings.Cut(id, valueMark)
	name, _, _ = strings.Cut(rule, windowMark)
	return name, WindowOf(id), value
}
