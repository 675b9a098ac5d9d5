// Package spf checks whether a domain authorises a client to send mail in its name
// (RFC 7208, with RFC 8616 for internationalised mail).
//
// A domain publishes a TXT record of terms: mechanisms, tried from left to right
// until one matches the client's address, and modifiers. Terms may ask DNS for
// further names and for further records. The result is one of seven statuses. Here
// it also names the term that matched, the domain of its record, and the network.
//
// Invariants:
//   - A result for the HELO name and a result for MAIL FROM are different
//     types, so that one cannot replace the other.
//   - A record is parsed whole before any of it is evaluated: a syntax error
//     anywhere is a permerror, even after a term that would match.
//   - If DNS answers that a name or record does not exist, that is an answer. Any
//     other error of DNS, and a time-out, is a temperror. An expired context never
//     becomes a definite status.
//   - Named constants limit the work: DNS terms, void terms, names per term, the
//     size of a record, the length of all expansions.
//   - No panics, no goroutines, no state between calls, no logging.
package spf

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"
)

// Status is the outcome of a check (RFC 7208 section 2.6), spelled as in
// Authentication-Results and Received-SPF.
type Status string

// The seven statuses.
const (
	None      Status = "none"      // no domain to ask, or no record published
	Neutral   Status = "neutral"   // the domain makes no statement about the client
	Pass      Status = "pass"      // authorised
	Fail      Status = "fail"      // not authorised
	SoftFail  Status = "softfail"  // probably not authorised
	TempError Status = "temperror" // DNS gave no answer; a later try may get one
	PermError Status = "permerror" // the published records cannot be used
)

// Kind is the kind of mechanism that matched; its value is the mechanism's name.
type Kind string

// The eight mechanisms. A Result never has KindInclude: it names the directive
// inside the included record.
const (
	KindAll     Kind = "all"
	KindInclude Kind = "include"
	KindA       Kind = "a"
	KindMX      Kind = "mx"
	KindPTR     Kind = "ptr"
	KindIP4     Kind = "ip4"
	KindIP6     Kind = "ip6"
	KindExists  Kind = "exists"
)

// Limits of RFC 7208 section 4.6.4 and of this implementation.
const (
	MaxLookups      = 10 // terms that ask DNS, per check
	DefaultMaxVoids = 2  // terms whose DNS answer was empty, per check
	MaxNames        = 10 // names looked up for one mx (more: permerror) or one ptr (more: ignored)

	maxRecord      = 16 << 10 // bytes of one record; RFC 7208 section 3.4 advises under 450
	maxExplanation = 1024     // bytes of an expanded explanation
	maxMacroValue  = 1024     // bytes of a macro letter's value before it is split into parts
	maxMacroWork   = 64 << 10 // bytes of such values, per check: ten terms with 25 names each
)

// Sender is the reverse path of the mail.
type Sender struct {
	Local  string // without quotes and backslashes; may be UTF-8
	Domain string // A-labels or U-labels
}

// Args describes the client and its mail.
type Args struct {
	IP       netip.Addr // the client; an IPv4-mapped address counts as IPv4
	Helo     string     // the HELO or EHLO argument as given
	Sender   Sender     // the zero value is the null reverse path
	Receiver string     // our host name, for %{r}; "" gives "unknown"
	Now      time.Time  // for %{t}

	// MaxVoids is how many terms may find nothing in DNS. 0 means DefaultMaxVoids,
	// a negative number means none.
	MaxVoids int
	// NoExplanation suppresses the queries for exp= after a fail. Set it when the
	// explanation is not used.
	NoExplanation bool
	// Trace, when set, is called in the calling goroutine for each query,
	// record and term, in order.
	Trace func(Event)
}

// Result is the common part of HeloResult and MailFromResult. Functions for one
// identity should take the type of that identity, not this one.
type Result struct {
	Status Status
	Domain string // the domain asked, in lower-case A-labels; "" when there was none
	Sender string // the identity evaluated, such as "postmaster@mx.example.com"

	// The directive that matched. All fields are zero when none matched: for the
	// default neutral, none, temperror and permerror.
	Kind      Kind
	Mechanism string       // its text as published, such as "ip4:192.0.2.0/24"
	Network   netip.Prefix // of a, mx, ip4, ip6: the network that contains the client
	Path      []string     // the domains whose records led to it: first the asked one, then each redirect or include

	// Explanation is the domain's own text for a fail, or "". It is printable
	// US-ASCII of at most 1024 bytes. A stranger chose it: do not trust it.
	Explanation string

	Lookups int   // terms that asked DNS
	Voids   int   // terms that found nothing in DNS
	Queries int   // DNS questions asked
	Err     error // why the status is none, temperror or permerror; wraps the *net.DNSError of a temperror

	variable bool // the matching term's names depend on the client or the local part
}

// HeloResult is the answer for the HELO identity.
type HeloResult struct{ Result }

// MailFromResult is the answer for the MAIL FROM identity.
type MailFromResult struct {
	Result
	// NullSender is true when the reverse path was null. The identity is then
	// postmaster at the HELO name (RFC 7208 section 2.4).
	NullSender bool
}

// Networks wider than these prefix lengths are Broad.
const (
	BroadBits4 = 16
	BroadBits6 = 32
)

// Broad reports whether strangers could match as well as the client. That is so
// when no directive matched, or when all, ptr or exists matched, or a network wider
// than /16 (IPv6: /32). It is also so when a name in any record on the path depends
// on the client or its mail (%{h}, %{p}, %{i}, %{l}, %{s}).
func (r Result) Broad() bool {
	switch r.Kind {
	case KindA, KindMX, KindIP4, KindIP6:
	default:
		return true
	}
	widest := BroadBits6
	if r.Network.Addr().Is4() {
		widest = BroadBits4
	}
	return r.variable || !r.Network.IsValid() || r.Network.Bits() < widest
}

// errNoAddress is the Err of a check without a client address.
var errNoAddress = errors.New("no client address")

// CheckHelo evaluates the HELO identity: postmaster at the HELO name
// (RFC 7208 section 2.3). It returns when done or when ctx is.
func CheckHelo(ctx context.Context, r Resolver, a Args) HeloResult {
	return HeloResult{run(ctx, r, a, Sender{Domain: a.Helo})}
}

// CheckMailFrom evaluates the MAIL FROM identity (RFC 7208 section 2.4): the
// reverse path, or postmaster at the HELO name when that is null. It returns
// when done or when ctx is.
func CheckMailFrom(ctx context.Context, r Resolver, a Args) MailFromResult {
	if a.Sender == (Sender{}) {
		return MailFromResult{run(ctx, r, a, Sender{Domain: a.Helo}), true}
	}
	return MailFromResult{run(ctx, r, a, a.Sender), false}
}

// run evaluates one identity.
func run(ctx context.Context, r Resolver, a Args, s Sender) Result {
	if s.Local == "" {
		s.Local = "postmaster" // RFC 7208 section 4.3
	}
	res := Result{Status: None, Sender: s.Local + "@" + s.Domain}
	domain, err := identityDomain(s.Domain)
	if err != nil {
		res.Err = err
		return res
	}
	res.Domain, res.Sender = domain, s.Local+"@"+domain
	if !a.IP.IsValid() {
		res.Err = errNoAddress
		return res
	}
	c := newCheck(r, a, Sender{s.Local, domain})
	o := c.host(ctx, domain)
	if o.status == Fail && o.exp != nil && !a.NoExplanation {
		res.Explanation = c.explain(ctx, o.exp, o.expDomain)
	}
	res.Status, res.Err = o.status, o.err
	res.Kind, res.Mechanism, res.Network = o.kind, o.term, o.network
	res.Path, res.variable = o.path, o.variable
	res.Lookups, res.Voids, res.Queries = c.lookups, c.voids, c.queries
	return res
}

func newCheck(r Resolver, a Args, s Sender) *check {
	c := &check{
		resolver: r,
		ip:       a.IP.Unmap().WithZone(""),
		sender:   s,
		helo:     heloName(a.Helo),
		receiver: a.Receiver,
		now:      a.Now,
		maxVoids: a.MaxVoids,
		trace:    a.Trace,
	}
	if c.maxVoids == 0 {
		c.maxVoids = DefaultMaxVoids
	}
	if c.receiver == "" {
		c.receiver = unknownName
	}
	return c
}

// heloName returns the HELO argument in the form of %{h}: U-labels as A-labels,
// without a trailing dot, otherwise as the client sent it.
func heloName(helo string) string {
	if ascii, err := toALabels(helo); err == nil {
		helo = ascii
	}
	return strings.TrimSuffix(helo, ".")
}
