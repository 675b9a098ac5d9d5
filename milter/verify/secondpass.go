package verify

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/milter/authres"
	"github.com/postern-mail/postern/milter/mark"
)

// Position is one header field: the Index-th of its name, from 1.
type Position struct {
	Name  string
	Index int
}

// resultsField is the name of the field that carries results (RFC 8601).
const resultsField = "Authentication-Results"

// MaxRemoved is how many fields of one mail are removed. The MTA searches for each
// from the top, so the cost grows with the square of their number. No honest mail has
// more than a few.
const MaxRemoved = 100

// ownField is a field that only we may write: results in our name, our marks.
type ownField struct {
	Position
	value  string
	inside bool // one of our relays put it there
}

// before is what we know about an earlier pass of the mail through our hosts.
type before struct {
	fields []ownField
	sealed *mark.Sealed // nil without a genuine mark
	at     int          // the index of the field of sealed among those of its name
	from   string       // hash of the From fields
	locals string       // hash of the local parts in them
	body   *mark.Hash
}

// look finds the fields that claim to be ours (RFC 8601 section 5). Results of
// other servers stay.
func (b *before) look(o *Options, fields []Field, authservID string, inside int) {
	seen := map[string]int{}
	var from []string
	for i, f := range fields {
		name := ""
		switch {
		case f.Is(resultsField):
			name = resultsField
		case f.Is(QuarantineField):
			name = QuarantineField
		case f.Is(mark.Field):
			name = mark.Field
		case f.Is("From"):
			from = append(from, f.Value)
			continue
		default:
			continue
		}
		seen[name]++
		if name != resultsField || authres.Claims(f.Value, authservID) {
			b.fields = append(b.fields, ownField{Position{name, seen[name]}, f.Value, i < inside})
		}
	}
	if o.Marks == nil {
		return
	}
	b.from, b.body = mark.HashOf(from...), mark.NewHash()
	b.sealed, b.at = o.Marks.Find(func(yield func(string, string) bool) {
		for _, f := range fields {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	}, o.Now())
}

// write adds a part of the body.
func (b *before) write(p []byte) {
	if b.body != nil {
		_, _ = b.body.Write(p)
	}
}

// content returns the hashes for a mark of the mail with these results.
func (b *before) content(results string) mark.Content {
	return mark.Content{From: b.from, Locals: b.locals, Results: mark.HashOf(results), Body: b.body.Sum()}
}

// whole reports whether this is the same mail that was judged, with the same results.
func (b *before) whole() bool {
	return b.sealed != nil && slices.ContainsFunc(b.fields, func(f ownField) bool {
		return f.Name == resultsField && b.sealed.Whole(b.content(f.value))
	})
}

// inside reports whether one of our relays put the genuine mark there.
func (b *before) inside() bool {
	return slices.ContainsFunc(b.fields, func(f ownField) bool { return f.Name == mark.Field && f.Index == b.at && f.inside })
}

// brought reports whether a stranger brought the genuine mark: a relay of ours says that it
// got the mail from outside, and the mark was in it then. The stranger may have got the mail
// from us, and may have changed all that the mark does not cover, such as the Subject.
func (m *Mail) brought() bool {
	return m.envelope.Relayed && m.envelope.Client.IsValid() && !m.before.inside()
}

// quarantined reports whether an earlier pass marked the mail as one to quarantine.
func (b *before) quarantined() bool { return b.sealed != nil && b.sealed.Done == mark.Quarantined }

// failed reports whether an earlier pass found that the mail is not its author's.
func (b *before) failed() bool { return b.sealed != nil && b.sealed.Forged() }

// keep decides which of our fields stay.
type keep struct{ verdict, mark bool }

// remove returns the fields to remove, from the highest index of a name to the
// lowest. In this order no removal shifts the index of another field.
func (b *before) remove(k keep) []Position {
	var gone []Position
	results, marks := 0, 0
	for _, f := range b.fields {
		stays := f.inside && f.Name != mark.Field
		switch {
		case f.Name == mark.Field:
			stays = k.mark && f.Index == b.at
		case stays || !k.verdict:
		case f.Name == QuarantineField:
			marks++
			stays = b.quarantined() && marks == 1
		case mark.HashOf(f.value) == b.sealed.Results:
			results++
			stays = results == 1
		}
		if !stays {
			gone = append(gone, f.Position)
		}
	}
	slices.Reverse(gone)
	return gone
}

// stays reports whether a field that says quarantine is among those that stay.
func (b *before) stays(gone []Position) bool {
	return slices.ContainsFunc(b.fields, func(f ownField) bool {
		return f.Name == QuarantineField && !slices.Contains(gone, f.Position)
	})
}

// tooMany returns the refusal of a mail with more fields in our name than are removed.
func (b *before) tooMany() *Refusal {
	if len(b.fields) <= MaxRemoved {
		return nil
	}
	return tooMany()
}

func tooMany() *Refusal {
	return &Refusal{
		Code: 552, Status: "5.3.4", Reason: record.TooManyResults,
		Text: "Message has too many header fields that only this server may write (Authentication-Results)",
	}
}

// Claims returns the fields of a mail that claim to be results of ours, in the order in
// which they are removed, or the refusal of a mail that has too many. mta is the name of
// the MTA. It is for mail that cannot have passed here before: that of a login (RFC 8601
// section 5).
func (v *Verifier) Claims(fields []Field, mta string) ([]Position, *Refusal) {
	var found []Position
	seen, name := 0, v.options.authservID(mta)
	for _, f := range fields {
		if !f.Is(resultsField) {
			continue
		}
		seen++
		if authres.Claims(f.Value, name) {
			found = append(found, Position{resultsField, seen})
		}
	}
	if len(found) > MaxRemoved {
		return nil, tooMany()
	}
	slices.Reverse(found)
	return found, nil
}

// seal adds a mark to the result of the first pass. Mail of our own users, and mail
// from this machine, gets none, because a verdict on it means nothing. Mail of a
// relay comes from outside, even if the relay does not name the client. Then an
// earlier bad mark stays; an earlier good mark is replaced, because it may be
// replayed.
func (m *Mail) seal(r *Result, f *Findings) {
	o := &m.verifier.options
	if o.Marks == nil || r.Refusal != nil || f.Envelope.Authenticated || anonymous(f.Envelope.Client) && (!f.Envelope.Relayed || m.before.failed()) {
		return
	}
	v := mark.Verdict{DMARC: string(f.DMARC.Verdict.Status), Done: mark.Delivered, At: o.Now()}
	switch {
	case r.Quarantine != "":
		v.Done = mark.Held
	case slices.ContainsFunc(r.Fields, func(f Field) bool { return f.Name == QuarantineField }):
		v.Done = mark.Quarantined
	}
	value := o.Marks.Seal(v, m.before.content(r.Fields[0].Value))
	r.Fields = slices.Insert(r.Fields, 1, Field{Name: mark.Field, Value: " " + value})
}

// kept returns the result for a mail that comes back unchanged from a host of ours:
// it is not changed.
func (m *Mail) kept() Result {
	b := &m.before
	r := Result{Kept: b.sealed, Remove: b.remove(keep{verdict: true, mark: true}), Reason: record.VerdictKept}
	if b.quarantined() && !b.stays(r.Remove) {
		r.Fields = []Field{{Name: QuarantineField, Value: " " + quarantineValue}}
	}
	r.Steps = []record.Step{b.step()}
	return r
}

// step returns the step that shows the mark in the record.
func (b *before) step() record.Step {
	return record.Step{Check: "mark", Verdict: b.sealed.DMARC, Detail: strings.Join([]string{
		"judged before", b.sealed.At.UTC().Format("2006-01-02T15:04:05Z"), "dis=" + string(b.sealed.Done),
	}, " ")}
}
