// Package arc verifies the Authenticated Received Chain of a mail (RFC 8617):
// what did the servers on its way report about it, and is the chain of their
// seals intact?
//
// Each server that takes part adds a set of three fields with the next
// instance number: its results (ARC-Authentication-Results), a signature of
// the message at that point (ARC-Message-Signature), and a seal over all sets
// so far (ARC-Seal). Verifier.Start takes the header and begins to look up
// keys. The caller then writes the body once. Verification.Finish returns the
// result.
//
// Invariants:
//
//   - A chain passes only if there is no gap, no duplicate and no seal with
//     cv=fail, and if the last message signature and every seal verify.
//   - A pass means that the chain was not broken. It does not mean that the
//     reports of its servers are true. Vouched uses only the results of
//     servers that the caller trusts, and stops at the first server that is
//     not trusted.
//   - Work is linear in the size of the header, whatever the number of sets.
//     A chain whose last seal does not verify costs one DNS question.
//   - The body is read once. No panics, no logging, and no goroutine runs
//     after Finish or Close.
package arc

import (
	"time"
)

// Bounds on the work that a message can cause.
const (
	MaxSets          = 50 // a chain with more sets fails (RFC 8617 section 4.2.1)
	DefaultDNSBudget = 10 * time.Second

	maxLookups    = 8         // key lookups of one message at a time
	maxHeaderWork = 16 << 20  // octets hashed for message signatures before the last
	maxResults    = 128 << 10 // octets of one ARC-Authentication-Results field
	maxMethods    = 100       // results that are parsed in one of these fields
)

// Names of the fields of a set.
const (
	fieldResults = "ARC-Authentication-Results"
	fieldMessage = "ARC-Message-Signature"
	fieldSeal    = "ARC-Seal"
)

// Status is the state of a chain, as it is written in Authentication-Results.
type Status string

// The states.
const (
	None Status = "none" // the message has no set
	Pass Status = "pass"
	Fail Status = "fail"
)

// Result is the result for the chain of one message.
type Result struct {
	Status Status
	// Reason is a short explanation of why the chain fails. It contains only our
	// own text.
	Reason string
	// Temporary means that the chain fails because the DNS did not answer. Err is
	// its error.
	Temporary bool
	Err       error
	// Sets are in the order of their instances. There are none if the structure
	// of the chain is broken.
	Sets []Set
	// OldestPass is header.oldest-pass, for a chain that passes: the lowest
	// instance from which on all message signatures verify, or 0 if all message
	// signatures verify.
	OldestPass int
	// Sealer is the domain of the last seal.
	Sealer string
}

// Set is what one server added. Only Sealer and Signer are known to be domain
// names. The other texts come from outside and must be quoted before they are
// printed.
type Set struct {
	Instance   int
	Sealer     string // d= of the seal, A-labels in lower case
	Selector   string // s= of the seal
	Signer     string // d= of the message signature
	AuthServID string // the server that reports the Results
	Results    []MethodResult
	Bare       bool // the message signature covers no field, so the header could be any
}

// MethodResult is one result of ARC-Authentication-Results.
type MethodResult struct {
	Method, Value string            // in lower case
	Props         map[string]string // such as "header.from"; of equal names the first
}

// Vouched returns the trusted server that saw DMARC pass for the author
// domain, if there is one. The domain is in A-labels in lower case. The sets
// are checked from the last to the first, until a server is not trusted,
// because all sets before it may be invented. If a server reports several
// results for DMARC, all must agree. No server vouches for a mail if the last
// signature does not cover its header.
func (r *Result) Vouched(trusted func(sealer string) bool, author string) (sealer string, ok bool) {
	if r.Status != Pass || r.Sets[len(r.Sets)-1].Bare {
		return "", false
	}
	for i := len(r.Sets) - 1; i >= 0 && trusted(r.Sets[i].Sealer); i-- {
		if r.Sets[i].sawPass(author) {
			return r.Sets[i].Sealer, true
		}
	}
	return "", false
}
