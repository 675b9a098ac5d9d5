package limit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// HoldFor is how long a transaction keeps its reservations without a further step.
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

// Step is the step of a mail that an Op is about.
type Step uint8

// The steps of a mail.
const (
	Name Step = iota // a recipient is named
	End              // the whole mail was received
)

// Op is one request to a store.
type Op struct {
	Step Step
	// Txn names the transaction, and Part the recipient in it. A part that was counted is
	// not counted again.
	Txn, Part Digest
	// Reserve makes a Name reserve its amount until the End, which then counts it.
	Reserve bool
	// Look judges and changes nothing.
	Look  bool
	Items []Item
	Now   time.Time
	Block string // the login whose block is looked up; may be ""

	uses [usualItems]Use // the memory of an Answer
}

// usualItems is how many items most ops have at most.
const usualItems = 4

// Answer returns an empty answer, with a Use for each item. It is valid as long as op.
func (op *Op) Answer() Answer {
	clear(op.uses[:])
	if len(op.Items) <= len(op.uses) {
		return Answer{Uses: op.uses[:len(op.Items)]}
	}
	return Answer{Uses: make([]Use, len(op.Items))}
}

// Item is one counter that an Op touches.
type Item struct {
	ID     ID // of the counter
	Rule   *Rule
	Text   string // the rule, for people
	Amount int64  // what the step adds; of the whole mail at its End
	// Need is how much must be free, although less is added.
	Need int64
	// Once counts Amount only with the first part of a transaction.
	Once bool
	// Direct counts at once, independently of the rest of the transaction.
	Direct bool
	// Missing counts at the End by how many the parts of the transaction exceed Amount.
	Missing bool
	// Member is the network, for a rule that counts networks.
	Member string
	// Lenient lets the mail pass although the count is reached.
	Lenient bool
}

// Use is the result for an Item.
type Use struct {
	Used  int64 // including this mail, if it was counted
	Over  bool  // the rule's count does not allow it
	Wait  time.Duration
	Alarm int // 80 or 100 percent, reached for the first time in this window; 0 for none
}

// Answer is the answer of a store to an Op.
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

// BlockOf returns a block from the values that stores keep. until is 0 for a block
// without an end.
func BlockOf(login string, since, until Millis) Block {
	b := Block{Login: login, Since: time.UnixMilli(since)}
	if until != 0 {
		b.Until = time.UnixMilli(until)
	}
	return b
}

// Stored returns the times of a block in the form for BlockOf.
func (b Block) Stored() (since, until Millis) {
	if !b.Until.IsZero() {
		until = b.Until.UnixMilli()
	}
	return b.Since.UnixMilli(), until
}

// Active reports whether the block is in effect.
func (b Block) Active(now time.Time) bool { return b.Until.IsZero() || now.Before(b.Until) }

// Counter is what a store knows about one value of a key.
type Counter struct {
	ID       string
	Used     int64 // counted and reserved
	Reserved int64
	Peak     int64 // the greatest Used, as far as it is remembered
	Last     time.Time
	Wait     time.Duration // until the oldest count is forgotten
	Members  []string      // the networks, for rules that count networks
}

// Store counts. Implementations are safe for concurrent use, and keep no reference to
// an Op. An error means that nothing was counted, as far as is known.
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
	// ErrUnsaved is the error for a change that is in effect, and lost if the daemon ends
	// before it can be written.
	ErrUnsaved = errors.New("limit store cannot be written")
)

// Digest names a transaction or a recipient: it is the start of a SHA-256, which is
// collision-resistant. The zero Digest is none.
type Digest [12]byte

// DigestOf returns the digest of a text.
func DigestOf(text []byte) Digest {
	sum := sha256.Sum256(text)
	return Digest(sum[:len(Digest{})])
}

// String returns the digest as a word; "" for the zero Digest.
func (d Digest) String() string {
	if d == (Digest{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(d[:])
}

// ID is the name of a counter. Its parts are apart, because the counters of one value
// are together in a store.
type ID struct {
	Rule  string // the name of the rule and its window, such as "login.recipients/3600"
	Value string // of the rule's key
}

// ParseID is the reverse of ID.String.
func ParseID(text string) ID {
	rule, value, _ := strings.Cut(text, valueMark)
	return ID{rule, value}
}

func (id ID) String() string { return id.Rule + valueMark + id.Value }

// Append appends the ID to b, in the form of String.
func (id ID) Append(b []byte) []byte {
	return append(append(append(b, id.Rule...), valueMark...), id.Value...)
}

// Compare orders IDs as their texts.
func (id ID) Compare(o ID) int {
	return cmp.Or(strings.Compare(id.Rule, o.Rule), strings.Compare(id.Value, o.Value))
}

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

// CounterID returns the ID of the counter of a rule and a value.
func CounterID(r *Rule, value string) ID {
	return ID{r.Name() + windowMark + strconv.FormatInt(int64(r.Window/time.Second), 10), value}
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
