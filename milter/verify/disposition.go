package verify

import (
	"github.com/postern-mail/postern/internal/record"
)

// Quarantine is what is done with mail that is to be quarantined.
type Quarantine string

// The values of --dmarc-quarantine.
const (
	Mark      Quarantine = "mark"   // delivered with a QuarantineField
	Hold      Quarantine = "hold"   // put into the MTA's hold queue, for all recipients
	RejectAll Quarantine = "reject" // refused, unless it looks like a list's or a forwarder's
)

// QuarantineField is the name of the field that marks mail, and its value. The program
// that delivers the mail (Sieve) looks for it.
const (
	QuarantineField = "X-Postern-Quarantine"
	quarantineValue = "dmarc"
)

// holdReason is the text before the domain in the MTA's log of mail that is held.
const holdReason = "DMARC policy of "

// Disposition is the decision of the table in rules.go about a mail, and how it is
// carried out.
type Disposition struct {
	Action Action
	Rule   string // the name of the row, a stable token
	// Override and Comment say why Action is less than the published policy. Both are
	// "" if it is not less.
	Override Override
	Comment  string
	// How is what quarantine means for this mail; "" when it is not quarantined.
	How Quarantine
	// Shadow is set when the decision is only recorded.
	Shadow bool
}

// Done returns what happens to the mail in the end, as reports and records name it.
func (d *Disposition) Done() Action {
	switch {
	case d.Shadow && d.Action != ActionPass:
		return ActionNone
	case d.refuses():
		return ActionReject
	}
	return d.Action
}

// refuses reports whether the disposition refuses the mail.
func (d *Disposition) refuses() bool {
	return d.Action == ActionReject || d.How == RejectAll
}

// reason returns the reason of a disposition for the record, "" when nothing is done.
func (d *Disposition) reason() record.Reason {
	switch {
	case d.refuses():
		return record.DMARCRejected
	case d.How != "":
		return record.DMARCQuarantined
	}
	return ""
}

// dispose returns the disposition of a mail by the table.
func (v *Verifier) dispose(f *Findings) Disposition {
	o, e := &v.options.DMARC, &f.Evidence
	s := Situation{
		Enforce:          o.Enforce,
		Verdict:          f.DMARC.Verdict,
		Authenticated:    f.Envelope.Authenticated,
		Marked:           e.Marked,
		LocalAllow:       e.Allowed != "",
		TrustedForwarder: e.Forwarder,
		TrustedSealer:    e.Sealer != "",
		ListTraits:       e.Traits.List != "",
		ForwarderTraits:  e.Traits.Forwarder != "",
	}
	for _, signal := range e.Signals {
		s.Signals = append(s.Signals, signal.Kind)
	}
	d := Decide(s)
	d.Shadow = o.Shadow
	if d.Action == ActionReject && f.Envelope.Relayed {
		d.Action, d.Override, d.Comment = ActionQuarantine, OverrideLocalPolicy, "relayed"
	}
	if d.Action == ActionQuarantine {
		d.How = o.Quarantine
		// Mail that was marked before is not held or refused now: a person who
		// released it from the hold queue has decided. Mail of a list or a relay is
		// not refused: a list that gets its mail back removes the subscriber, and a
		// relay returns it to a sender that may be forged.
		if e.Marked || d.How == RejectAll && (s.ListTraits || s.ForwarderTraits || f.Envelope.Relayed) {
			d.How = Mark
		}
	}
	return d
}
