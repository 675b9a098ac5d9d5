package dmarcreport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// The states of a report to one address.
const (
	Waiting  = "waiting"   // for the next try
	Sent     = "sent"      // the server has accepted it
	Failed   = "failed"    // given up
	Dead     = "dead"      // not sent, because mail to the address bounces; see Suppressed
	TooLarge = "too_large" // larger than the limit of the address
	Bounced  = "bounced"   // it was sent, and bounced
)

// Delivery is the delivery of a report to one address.
type Delivery struct {
	Address string    `json:"to"`
	State   string    `json:"state"`
	Token   string    `json:"token,omitempty"` // of the envelope sender
	Tries   int       `json:"tries,omitempty"`
	Next    time.Time `json:"next,omitzero"`
	Error   string    `json:"error,omitempty"`

	maxSize int64 // see Destination; from the DNS, and not kept
}

// State is the state of a report.
type State struct {
	ID   string `json:"id"`
	File string `json:"file"`
	// Done means that nothing more is sent. Why is the reason if no one got it.
	Done bool       `json:"done,omitempty"`
	Why  string     `json:"why,omitempty"`
	To   []Delivery `json:"to,omitempty"`
}

// Suppressed is an address that gets no reports because of bounces.
type Suppressed struct {
	Bounces int       `json:"bounces"`
	Until   time.Time `json:"until"`
	Why     string    `json:"why"`
}

// Names of notes.
const (
	reportPrefix = "report/"
	tokenPrefix  = "token/"
	deadPrefix   = "dead/"
)

func stateName(day Day, domain string) string { return reportPrefix + day.String() + "/" + domain }

// keepNotes is how long the state of a report is kept.
const keepNotes = Retention + 7*24*time.Hour

var errMoved = errors.New("another host works on this report")

// held is the state of a report while a sender works on it.
type held struct {
	State
	name string
	text string // the text in the store
}

// load reads the state of a report.
func (s *Sender) load(ctx context.Context, r *Report) (*held, error) {
	h := &held{name: stateName(r.Day, r.Domain.Name)}
	var err error
	if h.text, err = s.Store.Note(ctx, h.name, s.Now()); err != nil {
		return nil, err
	}
	if h.text == "" {
		h.State = State{ID: r.ID(), File: r.FileName()}
		return h, nil
	}
	if err := json.Unmarshal([]byte(h.text), &h.State); err != nil {
		return nil, fmt.Errorf("the note %s cannot be read: %w", h.name, err)
	}
	return h, nil
}

// save writes the state. It fails if another host has changed the state.
func (s *Sender) save(ctx context.Context, h *held) error {
	text, err := json.Marshal(&h.State)
	if err != nil {
		return err
	}
	now := s.Now()
	ok, err := s.Store.SwapNote(ctx, h.name, h.text, string(text), now, now.Add(keepNotes))
	if err != nil {
		return err
	}
	if !ok {
		return errMoved
	}
	h.text = string(text)
	return nil
}

// suppressed returns the note about an address that gets no reports.
func (s *Sender) suppressed(ctx context.Context, address string) (d Suppressed, text string, err error) {
	text, err = s.Store.Note(ctx, deadPrefix+address, s.Now())
	if err != nil || text == "" {
		return d, text, err
	}
	return d, text, json.Unmarshal([]byte(text), &d)
}
