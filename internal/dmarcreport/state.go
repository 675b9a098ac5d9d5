package dmarcreport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// StateName returns the name of the note with the state of a report.
func StateName(day Day, domain string) string { return reportPrefix + day.String() + "/" + domain }

const (
	// keepStates is how long after its day the state of a report is kept: longer than
	// the rows, so that no report is sent twice.
	keepStates = Retention + 3*24*time.Hour
	// keepTokens is how long a bounce is awaited. Postfix gives up after five days.
	keepTokens = 10 * 24 * time.Hour
	// keepSilence is how long after its end a silence is remembered.
	keepSilence = 21 * 24 * time.Hour
)

var errMoved = errors.New("another host works on this report")

// maxMoved is how often a state that has moved is tried to be saved.
const maxMoved = 10

// held is the state of a report while a sender works on it.
type held struct {
	State
	name  string
	until time.Time // it is kept
	text  string    // the text in the store
	// undecided is not nil if someone else perhaps wants the report, see Wanted.
	undecided error
}

// bounced records that the mail came back, so nothing more is sent.
func (d *Delivery) bounced(why string) { d.State, d.Error, d.Next = Bounced, why, time.Time{} }

// load reads the state of a report.
func (s *Sender) load(ctx context.Context, r *Report) (*held, error) {
	h := &held{name: StateName(r.Day, r.Domain.Name), until: r.Day.End().Add(keepStates)}
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
	ok, err := s.Store.SwapNote(ctx, h.name, h.text, string(text), now, h.until)
	if err != nil {
		return err
	}
	if !ok {
		return errMoved
	}
	h.text = string(text)
	return nil
}

// seal saves the first state of a report. From then on its rows do not change. Then seal
// reads again what the report covers, because rows may have come since it was listed.
func (s *Sender) seal(ctx context.Context, r *Report, h *held) error {
	if h.text == "" {
		if err := s.merge(ctx, r, h); err != nil {
			return err
		}
	}
	domain, err := s.Store.Domain(ctx, r.Day, r.Domain.Name)
	if err != nil {
		return err
	}
	r.Domain = domain
	h.ID, h.File = r.ID(), r.FileName()
	return nil
}

// merge saves the state of a report that a sender works on. Bounces that were recorded
// meanwhile stay.
func (s *Sender) merge(ctx context.Context, r *Report, h *held) error {
	for tries := 1; ; tries++ {
		err := s.save(ctx, h)
		if !errors.Is(err, errMoved) || tries == maxMoved {
			return err
		}
		now, loadErr := s.load(ctx, r)
		if loadErr != nil {
			return loadErr
		}
		if !h.takeBounces(now) {
			return err
		}
	}
}

// takeBounces takes the bounces of the stored state. It reports whether they are all
// that has changed in it.
func (h *held) takeBounces(stored *held) bool {
	var before State
	if json.Unmarshal([]byte(h.text), &before) != nil || len(before.To) != len(stored.To) {
		return false
	}
	for i, d := range stored.To {
		if d.State != Bounced || d.Token == "" {
			continue
		}
		before.To[i] = d
		if at := slices.IndexFunc(h.To, func(one Delivery) bool { return one.Token == d.Token }); at >= 0 {
			h.To[at].bounced(d.Error)
		}
	}
	if text, err := json.Marshal(&before); err != nil || string(text) != stored.text {
		return false
	}
	h.text = stored.text
	return true
}

// suppressed returns the note about an address that gets no reports.
func (s *Sender) suppressed(ctx context.Context, address string) (d Suppressed, text string, err error) {
	text, err = s.Store.Note(ctx, deadPrefix+address, s.Now())
	if err != nil || text == "" {
		return d, text, err
	}
	return d, text, json.Unmarshal([]byte(text), &d)
}
