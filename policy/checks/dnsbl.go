package checks

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/policy"
)

// DNSBLName is the check's name in settings, records and metrics.
const DNSBLName = "dnsbl"

// The names in a request for which lists of domains may be asked. --dbl-names
// and the record use these words.
const (
	NameSender  = "sender"  // the domain of MAIL FROM
	NameHelo    = "helo"    // the HELO name
	NameClient  = "client"  // the client's confirmed name
	NameReverse = "reverse" // the client's unconfirmed name
)

// DNSBLNames returns all these words, in the order of the questions.
func DNSBLNames() []string { return []string{NameSender, NameHelo, NameClient, NameReverse} }

// Lists asks DNS lists; *dnsbl.Lists does.
type Lists interface {
	Check(ctx context.Context, q dnsbl.Query) (dnsbl.Result, error)
	Text(ctx context.Context, h *dnsbl.Hit) string
}

// textTimeout is the longest wait for the text of a list. A refusal without
// that text still names the list.
const textTimeout = time.Second

// DNSBL refuses clients and domains that are on DNS lists. Some recipients take
// all mail, so the check decides for one recipient at a time. It does not apply
// before a recipient is known, or when there are several.
type DNSBL struct {
	Lists  Lists
	Names  []string // the words of DNSBLNames that are switched on
	Reply  Template
	Relays allowlist.Networks // our own relays: the client is not the source of the mail
	// AllowClients and AllowRecipients are exempt. Postmaster and abuse are
	// always exempt.
	AllowClients    *allowlist.Clients
	AllowRecipients *allowlist.Recipients
	Delimiters      string // between user and extension of a recipient, as in recipient_delimiter
}

// Name implements policy.Check.
func (*DNSBL) Name() string { return DNSBLName }

// Check implements policy.Check.
func (d *DNSBL) Check(ctx context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	if !r.State.HasSender() || r.Recipient.Raw == "" {
		return policy.Verdict{Reason: record.NotApplicable}, nil
	}
	if reason := d.exempt(r); reason != "" {
		return policy.Verdict{Reason: reason}, nil
	}
	ctx = resolver.For(ctx, resolver.NewAsker(r.Client.Address))
	result, err := d.Lists.Check(ctx, d.query(r))
	v := policy.Verdict{Signals: signals(&result), Detail: dnsblDetail(&result)}
	switch {
	case err != nil:
		v.Reason = record.DNSBLUnavailable
		return v, err
	case result.Outcome == dnsbl.Listed:
		d.reject(ctx, &v, &result)
	case result.Asked == 0 && len(result.Failures) == 0:
		v.Reason = record.DNSBLNothingToAsk
	default:
		v.Kind, v.Reason = policy.Pass, passReason(result.Score)
	}
	return v, nil
}

func passReason(score int) record.Reason {
	switch {
	case score > 0:
		return record.DNSBLBelowThreshold
	case score < 0:
		return record.DNSBLAllowed
	}
	return record.DNSBLClean
}

// exempt returns the reason why lists do not apply, or "". Clients that log in
// are exempt because most of them have dynamic addresses, which are listed.
func (d *DNSBL) exempt(r *policy.Request) record.Reason {
	switch {
	case r.Authenticated():
		return record.DNSBLAuthenticated
	case d.Relays.Has(r.Client.Address):
		return record.DNSBLTrustedRelay
	case isComplaintsDesk(r.Recipient, d.Delimiters) || d.AllowRecipients.Has(r.Recipient, d.Delimiters):
		return record.DNSBLRecipientExempt
	case d.AllowClients.Has(r.Client.Address, r.Client.Name):
		return record.DNSBLClientExempt
	}
	return ""
}

// isComplaintsDesk reports whether a recipient is a mailbox where a listed
// sender can complain (RFC 2142 section 4, RFC 5321 section 4.5.1).
func isComplaintsDesk(recipient mailaddr.Address, delimiters string) bool {
	base, _, _ := recipient.SplitExtension(delimiters)
	return strings.EqualFold(base.Local, "postmaster") || strings.EqualFold(base.Local, "abuse")
}

func (d *DNSBL) query(r *policy.Request) dnsbl.Query {
	q := dnsbl.Query{Address: r.Client.Address, Names: make([]dnsbl.Subject, 0, len(d.Names))}
	for _, role := range d.Names {
		if name := nameOf(r, role); name != "" {
			q.Names = append(q.Names, dnsbl.Subject{Role: role, Name: name})
		}
	}
	return q
}

// nameOf returns a name as A-labels, or "" when it cannot be a name in DNS.
func nameOf(r *policy.Request, role string) string {
	text := r.Client.Name
	switch role {
	case NameSender:
		return r.Sender.Domain
	case NameHelo:
		text = r.Helo
	case NameReverse:
		text = r.Client.ReverseName
	}
	name, err := mailaddr.ParseDomain(text)
	if err != nil {
		return ""
	}
	return name
}

func (d *DNSBL) reject(ctx context.Context, v *policy.Verdict, result *dnsbl.Result) {
	best := result.Best()
	ctx, cancel := context.WithTimeout(ctx, textTimeout)
	defer cancel()
	v.Kind, v.Code, v.Reason = policy.Reject, policy.CodePolicy, listedReason(best)
	v.Text = d.Reply.fill(best, result.Score, d.Lists.Text(ctx, best))
}

func listedReason(h *dnsbl.Hit) record.Reason {
	if h.Kind == dnsbl.KindAddress || len(h.Roles) == 0 {
		return record.DNSBLClientListed
	}
	switch h.Roles[0] {
	case NameSender:
		return record.DNSBLSenderListed
	case NameHelo:
		return record.DNSBLHeloListed
	}
	return record.DNSBLNameListed
}

func signals(result *dnsbl.Result) policy.Signals {
	var s policy.Signals
	set := func(name policy.Signal, value int) {
		if value == 0 {
			return
		}
		if s == nil {
			s = make(policy.Signals)
		}
		s[name] = value
	}
	set(policy.DNSBLScore, result.Score)
	set(policy.ZRDFresh, result.FreshHours)
	if result.Abused {
		set(policy.DBLAbused, 1)
	}
	return s
}

// dnsblDetail returns the answer of each list, and the lists that did not
// answer.
func dnsblDetail(result *dnsbl.Result) string {
	if len(result.Hits)+len(result.Failures) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "score=%d", result.Score)
	for i := range result.Hits {
		h := &result.Hits[i]
		fmt.Fprintf(&b, "; %s=%s (%s) %s weight=%d", h.Zone, codes(h.Codes), h.Meaning(), h.Subject, h.Weight)
		if len(h.Roles) > 0 {
			b.WriteString(" as " + strings.Join(h.Roles, "+"))
		}
	}
	for i := range result.Failures {
		b.WriteString("; " + result.Failures[i].Error())
	}
	return b.String()
}

func codes(all []dnsbl.Code) string {
	var out []string
	for _, c := range all {
		out = append(out, c.Addr.String())
	}
	return strings.Join(out, ",")
}

// Template is the text of a refusal with its placeholders.
type Template struct{ text string }

// DefaultDNSBLReply contains the subject, the list, its meaning and where to
// read more.
const DefaultDNSBLReply = "{what} is listed by {zone} ({meaning}): {text}"

// placeholders returns those of a Template. They are replaced by the address or
// name, the list, the meaning of its codes, its text, and the sum of all lists.
// The text is the list's own, or the page where the subject can be looked up.
func placeholders() []string { return []string{"{what}", "{zone}", "{meaning}", "{text}", "{score}"} }

// ParseTemplate parses the text of a reply. The error says what to fix.
func ParseTemplate(text string) (Template, error) {
	rest := text
	for _, p := range placeholders() {
		rest = strings.ReplaceAll(rest, p, "")
	}
	switch {
	case strings.TrimSpace(text) == "":
		return Template{}, fmt.Errorf("the text is empty: %q is the default", DefaultDNSBLReply)
	case strings.ContainsAny(rest, "{}"):
		return Template{}, fmt.Errorf("%q holds a brace that belongs to none of %s", text, strings.Join(placeholders(), " "))
	}
	return Template{text}, nil
}

// fill replaces the placeholders. The meaning of a list is used when it has no
// text.
func (t Template) fill(h *dnsbl.Hit, score int, text string) string {
	if text == "" {
		text = h.Meaning()
	}
	return strings.NewReplacer(
		"{what}", h.Subject,
		"{zone}", h.Zone,
		"{meaning}", h.Meaning(),
		"{text}", text,
		"{score}", fmt.Sprint(score),
	).Replace(t.text)
}
