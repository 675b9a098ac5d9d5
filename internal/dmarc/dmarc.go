// Package dmarc answers one question: does the domain that a reader sees as
// the author really send this mail, and what does it ask for if not? (RFC
// 9989; with MethodPSL, the discovery of RFC 7489.)
//
// A domain publishes a policy in a TXT record at _dmarc.<domain>, or leaves it
// to a domain above. The mail passes when SPF or DKIM passed for a domain that
// is aligned with the author's: identical, or of one organization. Which
// domains are one organization is found by walking up the DNS tree. What happens
// to the mail then is decided by its caller.
//
// Invariants:
//
//   - Every From header has an outcome. Whatever some reader could take for
//     the author's domain is judged, and the strictest result counts; a From
//     that cannot be judged is PermError, never silence.
//   - The HELO identity cannot be used for alignment: only a MailFromResult
//     is taken, which under a null sender is postmaster at the HELO name.
//   - DNS that could not tell is TempError, never Fail, and never applies a
//     policy; an aligned pass in hand still counts.
//   - One walk costs at most MaxWalkQueries questions, one mail judges at most
//     MaxDomains author domains against at most MaxIdentifiers identifiers, and
//     no name that was answered is asked again for one mail.
//   - Each author domain has its share of the time: the DNS of one cannot keep
//     another from being judged.
//   - No panics, no goroutines, no state between mails, no logging.
package dmarc

import "github.com/postern-mail/postern/internal/author"

// Bounds on what one mail can cause.
const (
	MaxDomains     = author.MaxDomains // that are judged of one From; a mail with more is PermError
	MaxIdentifiers = 32                // distinct authenticated domains that are compared
	MaxWalkQueries = 8                 // questions of one tree walk (RFC 9989 section 4.10)
)

// Status is a result of DMARC, as Authentication-Results spells it.
type Status string

// The results.
const (
	None      Status = "none"      // no policy applies
	Pass      Status = "pass"      // an aligned identifier passed
	Fail      Status = "fail"      // a policy applies and nothing aligned passed
	TempError Status = "temperror" // DNS could not tell; a later try may
	PermError Status = "permerror" // the From header or the record cannot be used
)

// Reason says why a Result has its Status: a stable token.
type Reason string

// The reasons.
const (
	Aligned        Reason = "aligned"
	NotAligned     Reason = "not_aligned"
	NoRecord       Reason = "no_record"
	BadRecord      Reason = "bad_record"                  // neither a valid policy nor a valid rua (section 4.10.1)
	DNSPolicy      Reason = "dns_policy"                  // the policy could not be looked up
	DNSAlignment   Reason = "dns_alignment"               // an identifier that might align could not be settled
	FromMissing           = Reason(author.Missing)        // no From field, or an empty one
	FromNoDomain          = Reason(author.NoDomain)       // well-formed, but no one in it has a domain
	FromUnusable          = Reason(author.Unusable)       // an address whose domain cannot be judged
	TooManyDomains        = Reason(author.TooManyDomains) // more than MaxDomains in From
	FromSeveral    Reason = "from_several"                // several From fields, all of whose domains passed
)

// Policy is what a domain asks for mail that fails. The zero value is "not
// stated".
type Policy string

// The policies.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// lowered is the policy one level lower, as t=y asks (RFC 9989 section 4.7).
func (p Policy) lowered() Policy {
	if p == PolicyReject {
		return PolicyQuarantine
	}
	return PolicyNone
}

// Method is how organizational domains are found.
type Method string

// The methods; the zero Method is MethodTreeWalk.
const (
	MethodTreeWalk Method = "treewalk" // RFC 9989
	MethodPSL      Method = "psl"      // the Public Suffix List of RFC 7489, with pct=
)
