// Package dmarc evaluates DMARC (RFC 9989; with MethodPSL, the discovery of
// RFC 7489): did the domain that a reader sees as the author really send this
// mail, and if not, which policy does it ask for?
//
// A domain publishes its policy in a TXT record at _dmarc.<domain>. If it has
// no record, that of a domain above it applies. The mail passes if SPF or DKIM
// passed for a domain that is aligned with the author's domain: it is
// identical, or belongs to the same organization. A walk up the DNS tree finds
// the domain of the organization. The caller decides what happens to the mail.
//
// Invariants:
//
//   - Every From header has a result. Every domain that some reader could
//     take for the author's domain is judged, and the strictest result
//     counts. A From header that cannot be judged is PermError; it is never
//     ignored.
//   - The HELO identity cannot be used for alignment. Only a MailFromResult
//     is accepted; with a null sender this is postmaster at the HELO name.
//   - If the DNS does not answer, the result is TempError, never Fail, and no
//     policy applies. If there is an aligned pass already, it still counts.
//   - One walk asks at most MaxWalkQueries questions. One mail has at most
//     MaxDomains author domains, each compared with at most MaxIdentifiers
//     identifiers. For one mail, a name that was answered is not asked for
//     again.
//   - Each author domain has its share of the time, so that slow DNS for one
//     of them does not prevent the others from being judged.
//   - No panics, no goroutines, no state between mails, no logging.
package dmarc

import "github.com/postern-mail/postern/internal/author"

// Bounds on the work that one mail can cause.
const (
	MaxDomains     = author.MaxDomains // author domains in one From that are judged; a mail with more is PermError
	MaxIdentifiers = 32                // distinct authenticated domains that are compared
	MaxWalkQueries = 8                 // questions of one tree walk (RFC 9989 section 4.10)
)

// Status is a result of DMARC, as it is written in Authentication-Results.
type Status string

// The results.
const (
	None      Status = "none"      // no policy applies
	Pass      Status = "pass"      // an aligned identifier passed
	Fail      Status = "fail"      // a policy applies and nothing aligned passed
	TempError Status = "temperror" // the DNS did not answer; a later try may succeed
	PermError Status = "permerror" // the From header or the record cannot be used
)

// Reason is why a Result has its Status. It is a stable token.
type Reason string

// The reasons.
const (
	Aligned        Reason = "aligned"
	NotAligned     Reason = "not_aligned"
	NoRecord       Reason = "no_record"
	BadRecord      Reason = "bad_record"                  // neither a valid policy nor a valid rua (section 4.10.1)
	DNSPolicy      Reason = "dns_policy"                  // the DNS lookup of the policy failed
	DNSAlignment   Reason = "dns_alignment"               // the DNS lookup for an identifier that may be aligned failed
	FromMissing           = Reason(author.Missing)        // no From field, or an empty one
	FromNoDomain          = Reason(author.NoDomain)       // well-formed, but no address in it has a domain
	FromUnusable          = Reason(author.Unusable)       // an address whose domain cannot be judged
	TooManyDomains        = Reason(author.TooManyDomains) // more than MaxDomains in From
	FromSeveral    Reason = "from_several"                // several From fields, and all of their domains passed
)

// Policy is what a domain asks for if its mail fails. The zero value means
// that the domain does not say.
type Policy string

// The policies.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// lowered returns the policy one level lower, as t=y asks for (RFC 9989
// section 4.7).
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
