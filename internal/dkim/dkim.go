// Package dkim verifies DomainKeys Identified Mail signatures (RFC 6376, 8301,
// 8463) and holds the canonical forms that signing shares.
//
// A signer hashes the body and some header fields, signs the hash, and puts the
// signature with its parameters into a DKIM-Signature field. The verifier reads
// the parameters, asks the DNS for the public key at
// selector._domainkey.domain, and repeats the hashing. Verifier.Start takes the
// whole header and begins the key lookups; the body is then written once, in
// any pieces, while the answers come; Verification.Finish judges.
//
// Invariants:
//
//   - The body is read once, whatever the number of signatures: there is at
//     most one hash for each body canonicalization. Memory does not depend on
//     the length of the body.
//   - Work is linear in the size of the message. Signatures, names in h=,
//     header fields, key records and key sizes are all capped.
//   - The DNS failing temporarily gives temperror, never fail.
//   - A signature that could not become pass costs neither DNS nor hashing.
//   - Only pass says that the domain took responsibility.
//
// How the results of RFC 8601 section 2.7.1 are used here:
//
//	none       the message carries no signature
//	pass       the signature verifies and is acceptable
//	fail       the signature or the body hash does not verify
//	policy     refused although it might verify: l= of a part of the body,
//	           rsa-sha1, RSA keys under 1024 or over 4096 bit
//	neutral    not judged: an algorithm, canonicalization or query method that
//	           is unknown here, or a failure under a testing key (t=y)
//	temperror  the DNS could not tell now
//	permerror  the signature or its key is missing, malformed, revoked, expired
//	           or not meant for this use (PERMFAIL in RFC 6376 section 6.1)
package dkim

import "time"

// Bounds on what a message or a key record can make the verifier do.
const (
	// DefaultMaxSignatures is how many signatures of a message are verified
	// unless the Verifier says otherwise.
	DefaultMaxSignatures = 5
	// MaxFields is the number of header fields beyond which signatures are
	// not verified.
	MaxFields = 10_000
	// MaxSignedNames bounds the names in h=.
	MaxSignedNames = 1_024
	// DefaultDNSBudget is the time all key lookups of a message share.
	DefaultDNSBudget = 10 * time.Second

	minRSABits    = 1024
	maxRSABits    = 4096
	maxTags       = 64
	maxKeyRecords = 16        // TXT records at one key name
	maxKeyRecord  = 8 << 10   // octets of one key record
	maxSignature  = 128 << 10 // octets of one DKIM-Signature field
	maxDomain     = 253       // octets of a domain name in text form
	maxLabel      = 63
)

// FieldName is the name of the header field that carries a signature.
const FieldName = "DKIM-Signature"

// Status is a result of RFC 8601 section 2.7.1.
type Status string

// The results, as Authentication-Results spells them.
const (
	None      Status = "none"
	Pass      Status = "pass"
	Fail      Status = "fail"
	Policy    Status = "policy"
	Neutral   Status = "neutral"
	TempError Status = "temperror"
	PermError Status = "permerror"
)

// Canonicalization is one of the two forms of RFC 6376 section 3.4.
type Canonicalization string

// The canonicalizations.
const (
	Simple  Canonicalization = "simple"
	Relaxed Canonicalization = "relaxed"
)

// Report is what the signatures of one message said.
type Report struct {
	// Signatures are in the order of the header, from the top.
	Signatures []Signature
	// Skipped is the number of signatures beyond the cap. They were not
	// looked at.
	Skipped int
}

// Signature is the verdict on one signature. The values of tags are as the
// sender wrote them, without folding white space: nothing in them is safe to
// print or to put into a header without quoting.
type Signature struct {
	Status Status
	// Reason says in a few words why, in text of ours alone. It is empty for a
	// plain pass.
	Reason string
	// Err is the DNS error behind a temperror or a missing key.
	Err error

	Index     int    // of the field in the header, from the top
	Domain    string // d=, lower case, A-labels: header.d
	Identity  string // i=, or "@" and d=: header.i
	Selector  string // s=: header.s
	Algorithm string // a=: header.a
	// B is the shortest beginning of b= that has 8 characters or more and
	// differs from those of the other signatures (RFC 6008): header.b.
	B string

	KeyBits int  // size of an RSA key, 0 when none was used
	Testing bool // the key says t=y

	Limited bool      // there is an l=; a pass covers the whole body all the same
	Signed  []string  // h=
	Time    time.Time // t=, zero when absent
	Expires time.Time // x=, zero when absent
}

// Expired reports whether x= is over, skew included.
func (s *Signature) Expired(now time.Time, skew time.Duration) bool {
	return !s.Expires.IsZero() && now.After(s.Expires.Add(skew))
}

// Status sums the report up: none without signatures, pass when one passes,
// otherwise the status of the first signature.
func (r Report) Status() Status {
	if len(r.Signatures) == 0 {
		return None
	}
	for i := range r.Signatures {
		if r.Signatures[i].Status == Pass {
			return Pass
		}
	}
	return r.Signatures[0].Status
}
