// Package dkim verifies DomainKeys Identified Mail signatures (RFC 6376, 8301,
// 8463) and holds the canonical forms that signing shares.
//
// A signer hashes the body and some header fields, and signs the hash. It puts
// the signature and its parameters into a DKIM-Signature field. The verifier
// reads the parameters, asks the DNS for the public key at
// selector._domainkey.domain, and computes the hashes again. Verifier.Start
// takes the whole header and begins the key lookups. The caller then writes
// the body once, in pieces of any size, while the lookups run.
// Verification.Finish returns the results.
//
// Invariants:
//
//   - The body is read once, whatever the number of signatures: there is at
//     most one hash for each body canonicalization. Memory does not depend on
//     the length of the body.
//   - Work is linear in the size of the message. Signatures, names in h=,
//     header fields, key records and key sizes are all bounded.
//   - A temporary DNS failure results in temperror, never in fail.
//   - A signature that cannot pass causes no DNS question and no hashing.
//   - Only pass means that the domain takes responsibility for the message.
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
//	temperror  the DNS did not answer; a later try may succeed
//	permerror  the signature or its key is missing, malformed, revoked, expired
//	           or not meant for this use (PERMFAIL in RFC 6376 section 6.1)
package dkim

import "time"

// Bounds on the work that a message or a key record can cause.
const (
	// DefaultMaxSignatures is how many signatures of a message are verified if
	// the Verifier does not set another number.
	DefaultMaxSignatures = 5
	// MaxFields is the most header fields of a message. If there are more, its
	// signatures are not verified.
	MaxFields = 10_000
	// MaxSignedNames bounds the names in h=.
	MaxSignedNames = 1_024
	// DefaultDNSBudget is the time for all key lookups of a message together.
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

// Status is the result for a signature, from RFC 8601 section 2.7.1.
type Status string

// The results, as they are written in Authentication-Results.
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

// Report is the result for all signatures of one message.
type Report struct {
	// Signatures are in the order of the header, beginning at the top.
	Signatures []Signature
	// Skipped is the number of signatures beyond the bound. They were not
	// verified.
	Skipped int
}

// Signature is the result for one signature. The values of tags are as the
// sender wrote them, without folding white space. They must be quoted before
// they are printed or written into a header.
type Signature struct {
	Status Status
	// Reason is a short explanation. It contains only our own text. It is empty
	// if the signature passed without anything to explain.
	Reason string
	// Err is the DNS error that caused a temperror or a missing key.
	Err error

	Index     int    // of the field in the header, counted from the top
	Domain    string // d=, lower case, A-labels: header.d
	Identity  string // i=, or "@" and d=: header.i
	Selector  string // s=, A-labels: header.s
	Algorithm string // a=: header.a
	// B is a beginning of b= that differs from those of the other signatures (RFC
	// 6008): header.b. It is as short as possible, but has at least 8 characters.
	B string

	KeyBits int  // size of the RSA key; 0 if no RSA key was used
	Testing bool // the key says t=y

	Limited bool      // there is an l=; if the status is pass, it is the length of the whole body
	Signed  []string  // h=
	Time    time.Time // t=, zero if absent
	Expires time.Time // x=, zero if absent
}

// Expired reports whether the time of x= plus skew is over.
func (s *Signature) Expired(now time.Time, skew time.Duration) bool {
	return !s.Expires.IsZero() && now.After(s.Expires.Add(skew))
}

// Status returns one result for the message: none without signatures, pass if
// one passes, else the status of the first signature.
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
