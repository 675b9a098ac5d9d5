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
	// BatchRows is how many different rows a batch has at most.
	BatchRows = 200
)

// Counted is a row as stores keep it, with the number of its messages.
type Counted struct {
	Row   string
	Count int64
	// Plain is false for rows of DMARC reports.
	Plain bool
}

// Batch is what was counted for one domain and day.
type Batch struct {
	ID     string // of this batch: a batch that comes twice counts once
	Day    Day
	Domain string
	Policy Policy
	Rows   []Counted
}

// Domain is one Policy Domain of a day.
type Domain struct {
	Name     string
	Policy   Policy
	Messages int64
	Plain    int64 // of them, those that are no DMARC reports
	Rows     int64
}

// ErrBusy is the error of a store that takes no more at the moment.
var ErrBusy = errors.New("too much waits to be written")

// Store keeps rows, and notes about reports.
type Store interface {
	// Add counts a batch up and returns how many messages had no room.
	Add(ctx context.Context, b *Batch) (dropped int64, err error)
	// Flush returns when all that was added can be read.
	Flush(ctx context.Context) error
	// Days returns the days that there are rows of, in order.
	Days(ctx context.Context) ([]Day, error)
	// Domains returns the domains of a day, by name.
	Domains(ctx context.Context, day Day) ([]Domain, error)
	// Rows calls yield for each row, once, in an order that stays the same.
	Rows(ctx context.Context, day Day, domain string, yield func(Counted) error) error
	// Purge forgets days before a day, and notes that have expired.
	Purge(ctx context.Context, before Day, now time.Time) error

	Notes
}

// Notes are short texts under names. One under a name that begins with LeasePrefix
// need not outlive the process when no other process uses the store.
type Notes interface {
	// Note returns a note, "" for none.
	Note(ctx context.Context, name string, now time.Time) (string, error)
	// SwapNote replaces old by new, which is kept until a time, and reports
	// whether old was the note. "" stands for no note.
	SwapNote(ctx context.Context, name, old, new string, now, until time.Time) (bool, error)
	// EachNote calls yield for each note whose name has a prefix.
	EachNote(ctx context.Context, prefix string, now time.Time, yield func(name, text string) error) error
}

// LeasePrefix begins the names of leases.
const LeasePrefix = "lease/"
