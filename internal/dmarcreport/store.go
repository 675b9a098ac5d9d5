package dmarcreport

import (
	"context"
	"errors"
	"time"
)

// Bounds of a store.
const (
	MaxRows    = 1 << 21 // different rows of one day
	MaxDomains = 100_000 // Policy Domains of one day
	MaxNotes   = 200_000
	// BatchRows is the most different rows of a batch.
	BatchRows = 200
)

// Counted is a row in the form for stores, with the number of its messages.
type Counted struct {
	Row   string
	Count int64
	// Plain is false for rows of DMARC reports.
	Plain bool
}

// Batch is what was counted for one domain and day.
type Batch struct {
	ID     string // of the batch: a batch that is added twice counts once
	Day    Day    // of the report that it belongs to
	Domain string
	Policy Policy
	Rows   []Counted
	// Since is the day of the messages, if they came too late for its report. 0 means
	// that they are of Day.
	Since Day
}

// messages returns the number of messages.
func (b *Batch) messages() (n int64) {
	for i := range b.Rows {
		n += b.Rows[i].Count
	}
	return n
}

// Domain is one Policy Domain of a day.
type Domain struct {
	Name     string
	Policy   Policy
	Messages int64
	Plain    int64 // messages that are no DMARC reports
	Rows     int64
	Since    Day // the first day of late messages; 0 if all are of the day itself
}

// ErrBusy is the error of a store that accepts no more rows at the moment.
var ErrBusy = errors.New("too much waits to be written")

// ErrSealed is the error for a batch whose report has been begun. Nothing was counted.
var ErrSealed = errors.New("the report of this day was begun")

// ErrNotYet is the error of a store whose file the process that this one replaces still has.
var ErrNotYet = errors.New("the process that this one replaces has the file until its sessions end")

// Store keeps rows, and notes about reports.
type Store interface {
	// Add adds a batch and returns how many messages had no room. The error is
	// ErrSealed if there is a note StateName(b.Day, b.Domain): after that note is
	// saved, the rows of the day and domain do not change. A late batch (b.Since) does
	// not replace the policy.
	Add(ctx context.Context, b *Batch) (dropped int64, err error)
	// Flush returns when everything that was added can be read.
	Flush(ctx context.Context) error
	// Days returns the days that have rows, in order.
	Days(ctx context.Context) ([]Day, error)
	// Domains returns the domains of a day, by name.
	Domains(ctx context.Context, day Day) ([]Domain, error)
	// Domain returns one domain of a day. It has no messages if nothing was counted.
	Domain(ctx context.Context, day Day, name string) (Domain, error)
	// Rows calls yield for each row, once, in an order that stays the same.
	Rows(ctx context.Context, day Day, domain string, yield func(Counted) error) error
	// Purge removes days before a day, and expired notes.
	Purge(ctx context.Context, before Day, now time.Time) error

	Notes
}

// Notes are short texts with names. A note whose name begins with LeasePrefix can be lost
// at the end of the process, if no other process uses the store.
type Notes interface {
	// Note returns a note, or "" if there is none.
	Note(ctx context.Context, name string, now time.Time) (string, error)
	// SwapNote replaces old by new, which is kept until the time until. It returns
	// false and changes nothing if the note was not old. "" means no note.
	SwapNote(ctx context.Context, name, old, new string, now, until time.Time) (bool, error)
	// EachNote calls yield for each note whose name has a prefix.
	EachNote(ctx context.Context, prefix string, now time.Time, yield func(name, text string) error) error
}

// LeasePrefix begins the names of leases.
const LeasePrefix = "lease/"
