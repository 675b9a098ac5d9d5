package milter

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/ownership"
	"github.com/postern-mail/postern/internal/record"
)

// FromOwnership is the name of the check in records and metrics.
const FromOwnership = "from_ownership"

// FromOwners decides whether a login may use the author addresses in the header of
// its mail. The login must own every address in From, Sender, Resent-From and
// Resent-Sender, by the same tables that are used for envelope senders.
//
// Addresses are read as package author reads them. Text that only some readers take
// for an address has to be owned as well. A field that cannot be read is refused.
type FromOwners struct {
	Judge *ownership.Judge
	// Exempt returns what a login may do beyond that; nil for nothing.
	Exempt func(ctx context.Context, login string) (Exemption, error)
	// RefuseDisplay refuses mail whose display names show an address that is not the
	// login's.
	RefuseDisplay bool
}

// Exemption is what a login may do that others may not.
type Exemption struct {
	Any       bool     // everything
	Redirect  bool     // resend mail of others under its own Resent-From
	Display   bool     // show addresses of others in display names
	Addresses []string // that it may use, as mailaddr.FoldKey has them
	Domains   []string // of addresses that it may use, as A-labels
	// Problem is an entry of the table that cannot be parsed. It allows nothing.
	Problem error
}

// names reports whether the exemption lists the address or its domain.
func (e *Exemption) names(a mailaddr.Address) bool {
	return slices.Contains(e.Domains, a.Domain) || slices.Contains(e.Addresses, mailaddr.FoldKey(a.String()))
}

// FromRuling is what FromOwners decides.
type FromRuling struct {
	Refused bool
	Reason  record.Reason
	Field   string // the field that decided, "" for all
	Address string // the address that decided, "" if the field as a whole did
	Text    string // for the client, when refused
	// Ruling is the owners' ruling on the address.
	Ruling ownership.Ruling
	// Display are addresses in display names that are not the login's.
	Display []string
	// Problem is the Problem of the exemption.
	Problem error
}

// maxAsked bounds the addresses of one mail that are looked up.
const maxAsked = 100

// The fields that say who wrote or resent a mail.
const (
	fieldFrom = iota
	fieldSender
	fieldResentFrom
	fieldResentSender
	fieldCount
)

// fromField is the name of such a field, as it is written and as it compares.
type fromField struct{ name, lower string }

func fromFields() [fieldCount]fromField {
	return [fieldCount]fromField{{"From", "from"}, {"Sender", "sender"}, {"Resent-From", "resent-from"}, {"Resent-Sender", "resent-sender"}}
}

// IsFromField reports whether a field of this name is judged.
func IsFromField(name string) bool {
	fields := fromFields()
	return slices.ContainsFunc(fields[:], func(f fromField) bool { return author.Named(name, f.lower) })
}

// FromPasses are the reasons of mail that FromOwners lets pass.
func FromPasses() []record.Reason {
	return []record.Reason{
		record.OwnerOwned, record.OwnerOwnedByAlias, record.OwnerSelf, record.OwnerExempt, record.OwnerUnlisted, record.OwnerNullSender, record.FromExempt,
	}
}

// fromValues are the values of these fields; those of one name keep their order.
type fromValues [fieldCount][]string

func readFromFields(header []Field) (values fromValues) {
	fields := fromFields()
	for i := range header {
		for n := range fields {
			if author.Named(header[i].Name, fields[n].lower) {
				values[n] = append(values[n], header[i].Value)
			}
		}
	}
	return values
}

// Decide decides about a mail. sender is the envelope sender, which is judged when
// the header has no From. An error means that a table could not be read.
func (f *FromOwners) Decide(ctx context.Context, login string, sender mailaddr.Address, header []Field) (FromRuling, error) {
	if f.Judge.Exempt.Has(login) {
		return FromRuling{Reason: record.OwnerExempt}, nil
	}
	q := fromQuestion{FromOwners: f, ctx: ctx, login: login}
	r, err := q.decide(sender, header)
	if err == nil && r.Refused {
		err = q.exempt(&r)
	}
	r.Display, r.Problem = q.display, q.exemption.Problem
	return r, err
}

// fromQuestion is one mail being judged.
type fromQuestion struct {
	*FromOwners
	ctx   context.Context
	login string

	asked     []askedOwner
	display   []string
	crowded   bool // a display name shows more addresses than are looked up
	looked    bool // exemption is known
	exemption Exemption
}

// askedOwner is an address with its ruling.
type askedOwner struct {
	address string
	ruling  ownership.Ruling
}

// decide judges field by field; the first refusal counts.
func (q *fromQuestion) decide(sender mailaddr.Address, header []Field) (FromRuling, error) {
	values := readFromFields(header)
	if len(values[fieldFrom]) > 1 {
		return FromRuling{Refused: true, Reason: record.FromSeveral, Field: "From", Text: "message rejected: it has several From fields; send it with one"}, nil
	}
	var first FromRuling
	for n, field := range fromFields() {
		r, err := q.fields(field.name, values[n])
		switch {
		case err != nil:
			return r, err
		case r.Refused && n <= fieldSender:
			return q.redirected(r, &values)
		case r.Refused:
			return r, nil
		case first.Reason == "":
			first = r
		}
	}
	if len(values[fieldFrom]) == 0 {
		r, err := q.withoutFrom(sender)
		if err != nil || r.Refused {
			return r, err
		}
		first = r
	}
	return q.shown(first), nil
}

// redirected names the refusal of a mail that was written by another and is resent
// by the login.
func (q *fromQuestion) redirected(r FromRuling, values *fromValues) (FromRuling, error) {
	if r.Reason != record.FromNotOwned || len(values[fieldResentFrom]) == 0 {
		return r, nil
	}
	for n := fieldResentFrom; n < fieldCount; n++ {
		if resent, err := q.fields(fromFields()[n].name, values[n]); err != nil || resent.Refused {
			return r, err
		}
	}
	r.Reason = record.FromRedirected
	r.Text += "; redirected mail keeps the address of its author: forward the message instead"
	return r, nil
}

// withoutFrom judges the envelope sender, because servers on the way put it into
// From.
func (q *fromQuestion) withoutFrom(sender mailaddr.Address) (FromRuling, error) {
	if sender.IsNull() {
		return FromRuling{Reason: record.OwnerNullSender}, nil
	}
	r, err := q.address("From", sender.String())
	if r.Refused {
		r.Text += " (the message has no From field: its envelope sender counts)"
	}
	return r, err
}

// shown judges the display names, when everything else is allowed.
func (q *fromQuestion) shown(r FromRuling) FromRuling {
	const rejected = "name in From, Sender or Resent-From rejected: "
	refused := FromRuling{Refused: true, Reason: record.FromDisplay, Field: "From"}
	switch {
	case !q.RefuseDisplay:
		return r
	case len(q.display) > 0:
		refused.Address = q.display[0]
		refused.Text = "<" + refused.Address + ">: " + rejected + "it shows an address not owned by user " + q.login
	case q.crowded:
		refused.Text = rejected + "it shows too many addresses"
	default:
		return r
	}
	return refused
}

// fields judges the fields of one name; the ruling is that of the first address, or
// the first refusal.
func (q *fromQuestion) fields(name string, values []string) (first FromRuling, err error) {
	for _, value := range values {
		r, err := q.field(name, value)
		if err != nil || r.Refused {
			return r, err
		}
		if first.Reason == "" {
			first = r
		}
	}
	return first, nil
}

func (q *fromQuestion) field(name, value string) (first FromRuling, err error) {
	a := author.ParseField(value)
	if a.Defect == author.Missing && name != "From" {
		return first, nil // it has no address
	}
	if a.Unclear || a.Defect != "" || len(a.Mailboxes) == 0 {
		return unreadable(name), nil
	}
	domains := make([]string, 0, 1)
	for _, m := range a.Mailboxes {
		r, err := q.address(name, m.Address())
		if err != nil || r.Refused {
			return r, err
		}
		if first.Reason == "" {
			first = r
		}
		domains = append(domains, m.Domain)
	}
	switch plain := author.IsPlain(value, len(a.Mailboxes)); {
	case a.Malformed, !plain && author.HasBrackets(value):
		r, err := q.careless(name, value, a.Domains, domains)
		if err != nil || r.Refused {
			return r, err
		}
	case !plain:
		err = q.look(value)
	}
	return first, err
}

// careless judges a field that different readers parse differently. Every text that
// one of them could take for an address has to be owned, and no domain may be left
// over. judged are the domains of addresses that have been judged.
func (q *fromQuestion) careless(name, value string, all, judged []string) (FromRuling, error) {
	addresses, more := author.Shown(value)
	if more {
		return unreadable(name), nil
	}
	for _, address := range addresses {
		r, err := q.address(name, address)
		if err != nil || r.Refused {
			return r, err
		}
		judged = append(judged, address[strings.LastIndexByte(address, '@')+1:])
	}
	for _, domain := range all {
		if !slices.Contains(judged, domain) {
			return unreadable(name), nil
		}
	}
	return FromRuling{}, nil
}

// look collects the addresses that the display names of a field show.
func (q *fromQuestion) look(value string) error {
	addresses, more := author.Shown(value)
	q.crowded = q.crowded || more
	for _, address := range addresses {
		r, err := q.address("", address)
		if err != nil {
			return err
		}
		if r.Refused && !slices.Contains(q.display, address) {
			q.display = append(q.display, address)
		}
	}
	return nil
}

// address judges one address.
func (q *fromQuestion) address(field, address string) (FromRuling, error) {
	r := FromRuling{Field: field, Address: address}
	ruling, err := q.owners(address)
	r.Ruling, r.Reason = ruling, ruling.Reason
	if err != nil || ruling.Kind != ownership.Refused {
		return r, err
	}
	e, err := q.exemptions()
	if err != nil {
		return r, err
	}
	if e.Any || e.names(mailaddr.Parse(address)) {
		r.Reason = record.FromExempt
		return r, nil
	}
	r.Refused, r.Reason = true, record.FromNotOwned
	r.Text = "<" + address + ">: " + field + " address rejected: " + ruling.Text
	return r, nil
}

// owners looks up the owners of an address, once for each address.
func (q *fromQuestion) owners(address string) (ownership.Ruling, error) {
	for i := range q.asked {
		if q.asked[i].address == address {
			return q.asked[i].ruling, nil
		}
	}
	if len(q.asked) == maxAsked {
		return ownership.Ruling{Kind: ownership.Refused, Reason: record.FromNotOwned, Text: "too many addresses"}, nil
	}
	ruling, err := q.Judge.Decide(q.ctx, mailaddr.Parse(address), q.login)
	if err == nil {
		q.asked = append(q.asked, askedOwner{address, ruling})
	}
	return ruling, err
}

// exemptions looks up what the login may do, once.
func (q *fromQuestion) exemptions() (*Exemption, error) {
	if q.looked || q.Exempt == nil {
		return &q.exemption, nil
	}
	var err error
	q.exemption, err = q.Exempt(q.ctx, q.login)
	q.looked = err == nil
	return &q.exemption, err
}

// exempt turns a refusal into a pass if the login may do what it did.
func (q *fromQuestion) exempt(r *FromRuling) error {
	e, err := q.exemptions()
	if err != nil {
		return err
	}
	if e.Any || e.Redirect && r.Reason == record.FromRedirected || e.Display && r.Reason == record.FromDisplay {
		*r = FromRuling{Reason: record.FromExempt, Field: r.Field, Address: r.Address, Ruling: r.Ruling}
	}
	return nil
}

// unreadable refuses a field.
func unreadable(field string) FromRuling {
	return FromRuling{
		Refused: true, Reason: record.FromUnreadable, Field: field,
		Text: field + " field rejected: not every reader takes its addresses for the same; write it as Name <user@domain>",
	}
}

// Detail returns what the decision rests on, for the record.
func (r *FromRuling) Detail() string {
	var room [256]byte
	b := room[:0]
	for _, part := range []struct{ key, value string }{
		{"field=", r.Field}, {"address=", r.Address}, {"", r.Ruling.Detail()}, {"display=", strings.Join(r.Display, ",")},
	} {
		if part.value == "" {
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(append(b, part.key...), part.value...)
	}
	return string(b)
}

// errNoLogin is why the owners cannot be asked.
var errNoLogin = errors.New("the client has logged in, and Postfix does not say as whom: add {auth_authen} to milter_mail_macros, or remove that setting")
