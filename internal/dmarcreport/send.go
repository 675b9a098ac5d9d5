package dmarcreport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long after midnight a day counts as complete. Hosts write every
	// second, so this is long enough.
	settle = 10 * time.Minute
	// leaseFor bounds the work on one report.
	leaseFor = 30 * time.Minute
	// MaxTries is how often a report is passed to the server at most.
	MaxTries  = 8
	firstWait = time.Hour // until the second try; later waits double
	lastWait  = 24 * time.Hour
	// markTimeout bounds the write of the result for one address.
	markTimeout = 10 * time.Second
	// maxError is how much of an error is kept.
	maxError = 300
)

// Sender sends reports.
type Sender struct {
	Reporter
	Store    Store
	Resolver Resolver
	// Sign returns the signatures of a mail for the top of its header.
	Sign func(ctx context.Context, header []Field, body func(io.Writer) error) ([]Field, error)
	// Deliver passes a mail to the server.
	Deliver func(ctx context.Context, e Envelope, write func(io.Writer) error) error
	Now     func() time.Time
	// Event is called for each event of a report; it may be nil.
	Event func(Event)
	// Step, if set, is called before each step. Tests end the process there.
	Step func(name string)
}

// Event is the result for a report, or for its delivery to one address.
type Event struct {
	Day    Day
	Domain string
	File   string
	To     string // "" if the event is about the whole report
	State  string
	Error  string
}

// Selection selects reports.
type Selection struct {
	Day    Day    // 0: every day that is over
	Domain string // "" for all
	// Again also tries reports that wait for their next try or were given up.
	Again bool
	// After, if set, skips reports up to and including this one.
	After Place
}

// Place is the place of a report in the order of all reports.
type Place struct {
	Day    Day
	Domain string
}

func (p Place) before(day Day, domain string) bool {
	return p.Day < day || p.Day == day && p.Domain < domain
}

// Closed reports whether a day is complete.
func (s *Sender) Closed(d Day) bool { return s.Now().After(d.End().Add(settle)) }

// Each calls f for the selected reports, in the order of day and domain.
func (s *Sender) Each(ctx context.Context, sel Selection, f func(*Report) error) error {
	days, err := s.Store.Days(ctx)
	if err != nil {
		return err
	}
	oldest := DayOf(s.Now().Add(-Retention)) // earlier days wait for a purge, and their states have expired
	for _, day := range days {
		if sel.Day != 0 && day != sel.Day || day < sel.After.Day || day < oldest {
			continue
		}
		domains, err := s.Store.Domains(ctx, day)
		if err != nil {
			return err
		}
		for _, d := range domains {
			if sel.Domain != "" && d.Name != sel.Domain || !sel.After.before(day, d.Name) {
				continue
			}
			if err := f(&Report{Reporter: s.Reporter, Day: day, Domain: d}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Send sends the selected reports that are due. If a report fails, the others are still
// sent. The error says how many failed.
func (s *Sender) Send(ctx context.Context, sel Selection) error {
	failed := 0
	err := s.Each(ctx, sel, func(r *Report) error {
		if !s.SendOne(ctx, r, sel.Again) {
			failed++
		}
		return ctx.Err()
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d reports wait for another try", failed)
	}
	return err
}

// SendOne sends a report if it is due, and reports whether there was no failure.
func (s *Sender) SendOne(ctx context.Context, r *Report, again bool) bool {
	if !s.Closed(r.Day) {
		return true
	}
	err := s.report(ctx, r, again)
	if err != nil {
		s.event(Event{Day: r.Day, Domain: r.Domain.Name, File: r.FileName(), State: Waiting, Error: err.Error()})
	}
	return err == nil
}

func (s *Sender) event(e Event) {
	if s.Event != nil {
		s.Event(e)
	}
}

func (s *Sender) step(name string) {
	if s.Step != nil {
		s.Step(name)
	}
}

// report sends one report to all who want it, unless another host is sending it.
func (s *Sender) report(ctx context.Context, r *Report, again bool) error {
	lease, owner, now := LeasePrefix+StateName(r.Day, r.Domain.Name), rand.Text(), s.Now()
	free, err := s.Store.SwapNote(ctx, lease, "", owner, now, now.Add(leaseFor))
	if err != nil || !free {
		return err // another host sends it
	}
	defer func() {
		_, _ = s.Store.SwapNote(context.WithoutCancel(ctx), lease, owner, "", s.Now(), s.Now()) // if this fails, the lease expires
	}()
	ctx, cancel := context.WithTimeout(ctx, leaseFor-time.Minute)
	defer cancel()
	h, err := s.load(ctx, r)
	if err != nil || h.Done && !(again && h.unsent()) {
		return err
	}
	if err := s.seal(ctx, r, h); err != nil {
		return err
	}
	s.step("discover")
	if err := s.plan(ctx, r, h); err != nil {
		return err
	}
	return errors.Join(s.deliverAll(ctx, r, h, again), h.undecided)
}

// unsent reports whether some address has not got the report.
func (h *held) unsent() bool {
	return slices.ContainsFunc(h.To, func(d Delivery) bool { return d.State == Failed || d.State == Waiting || d.State == TooLarge })
}

// plan updates the addresses. Addresses that have got the report stay, and those that
// were given up while the DNS does not say whether they still agree.
func (s *Sender) plan(ctx context.Context, r *Report, h *held) error {
	if r.Domain.Plain == 0 {
		return s.none(ctx, r, h, "only DMARC reports came from it")
	}
	wanted, err := Find(ctx, s.Resolver, r.Domain.Name)
	if err == nil && len(wanted.Destinations) == 0 {
		err = wanted.Undecided
	}
	if err != nil {
		return fmt.Errorf("who wants the reports: %w", err)
	}
	h.undecided = wanted.Undecided
	var to []Delivery
	for _, d := range wanted.Destinations {
		one := Delivery{Address: d.Address, State: Waiting}
		if i := slices.IndexFunc(h.To, func(one Delivery) bool { return one.Address == d.Address }); i >= 0 {
			one = h.To[i]
		}
		one.maxSize = d.MaxSize
		to = append(to, one)
	}
	for _, d := range h.To {
		kept := d.State == Sent || d.State == Bounced || d.State == Failed && h.undecided != nil
		if kept && !slices.ContainsFunc(to, func(one Delivery) bool { return one.Address == d.Address }) {
			to = append(to, d)
		}
	}
	if h.To = to; len(to) > 0 {
		return nil
	}
	why := "it asks for none"
	if len(wanted.Refused) > 0 {
		why = wanted.Refused[0].URI + ": " + wanted.Refused[0].Why
	}
	return s.none(ctx, r, h, why)
}

// none records that no one gets the report.
func (s *Sender) none(ctx context.Context, r *Report, h *held, why string) error {
	h.Done, h.Why, h.To = true, why, nil
	s.event(Event{Day: r.Day, Domain: r.Domain.Name, File: h.File, State: "none", Error: why})
	return s.merge(ctx, r, h)
}

// deliverAll passes the report to the server for each address that is due.
func (s *Sender) deliverAll(ctx context.Context, r *Report, h *held, again bool) error {
	var file *os.File
	defer func() {
		if file != nil {
			_ = file.Close()
		}
	}()
	for i := range h.To {
		d := &h.To[i]
		if !d.due(s.Now(), again) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err() // this is no failure of the address
		}
		if file == nil {
			var err error
			s.step("write")
			if file, err = s.spool(ctx, r); err != nil {
				return err
			}
		}
		if err := s.deliver(ctx, r, h, d, file); err != nil {
			return err
		}
	}
	done := h.undecided == nil && !slices.ContainsFunc(h.To, func(d Delivery) bool { return d.State == Waiting })
	if done == h.Done {
		return nil
	}
	h.Done = done
	s.step("done")
	return s.merge(ctx, r, h)
}

func (d *Delivery) due(now time.Time, again bool) bool {
	switch d.State {
	case Waiting:
		// A time that is further away than any wait was set while the clock was ahead.
		return again || !now.Before(d.Next) || d.Next.Sub(now) > lastWait
	case Failed, TooLarge:
		return again
	}
	return false
}

// spool writes the attachment to a file, because it is read twice: for the signature
// and for the server. The file has no name, so it ends with the process.
func (s *Sender) spool(ctx context.Context, r *Report) (*os.File, error) {
	file, err := os.CreateTemp("", "dmarc-report-*.xml.gz")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(file.Name()), r.WriteGzip(ctx, file, s.Store)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// deliver passes the report to the server for one address. The state is written before
// and after. A host that crashes in between sends the same mail again.
func (s *Sender) deliver(ctx context.Context, r *Report, h *held, d *Delivery, file *os.File) error {
	dead, _, err := s.suppressed(ctx, d.Address)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	switch {
	case s.Now().Before(dead.Until):
		d.State, d.Error = Dead, dead.Why
	case d.maxSize > 0 && info.Size() > d.maxSize:
		d.State, d.Error = TooLarge, fmt.Sprintf("it has %d octets, the address takes %d", info.Size(), d.maxSize)
	default:
		if err := s.try(ctx, r, h, d, file, info.Size()); err != nil {
			return err
		}
	}
	s.event(Event{Day: r.Day, Domain: r.Domain.Name, File: h.File, To: d.Address, State: d.State, Error: d.Error})
	s.step("mark")
	// The server may have the mail although ctx has ended. Without the mark it would get
	// it again.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	return s.merge(last, r, h)
}

// try makes one try. It records the try first.
func (s *Sender) try(ctx context.Context, r *Report, h *held, d *Delivery, file *os.File, size int64) error {
	if d.Token == "" {
		d.Token = strings.ToLower(rand.Text()[:16])
	}
	if err := s.noteToken(ctx, r, d); err != nil {
		return err
	}
	d.Tries++
	d.State, d.Error = Waiting, "the try has not ended"
	d.Next = s.Now().Add(min(firstWait<<min(d.Tries-1, 10), lastWait))
	s.step("note")
	if err := s.merge(ctx, r, h); err != nil || d.State == Bounced {
		return err
	}
	s.step("send")
	err := s.mail(ctx, &mail{report: r, to: d.Address, file: file, date: s.Now()}, d, size)
	s.step("sent")
	switch {
	case err == nil:
		d.State, d.Error, d.Next = Sent, "", time.Time{}
	case d.Tries >= MaxTries:
		d.State, d.Error, d.Next = Failed, shortened(err), time.Time{}
	default:
		d.Error = shortened(err)
	}
	return nil
}

func shortened(err error) string {
	text := strings.ToValidUTF8(err.Error(), "?")
	return strings.ToValidUTF8(text[:min(len(text), maxError)], "")
}

// mail signs a mail and passes it to the server.
func (s *Sender) mail(ctx context.Context, m *mail, d *Delivery, size int64) error {
	header := m.header()
	signatures, err := s.Sign(ctx, header, m.writeBody)
	if err != nil {
		return err
	}
	e := Envelope{From: returnPath(s.From, d.Token), To: d.Address, Size: size/3*4*78/76 + 8<<10}
	return s.Deliver(ctx, e, func(w io.Writer) error {
		for _, f := range slices.Concat(signatures, header) {
			if _, err := io.WriteString(w, f.Name+":"+f.Value+"\r\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, "\r\n"); err != nil {
			return err
		}
		return m.writeBody(w)
	})
}
