// Package arc answers one question: what did the servers say that this mail
// came through, and is the chain of their seals intact? (RFC 8617.)
//
// Each server that takes part adds a set of three fields with the next
// instance number: what it found (ARC-Authentication-Results), a signature of
// the message as it was then (ARC-Message-Signature), and a seal over all sets
// so far (ARC-Seal). Verifier.Start takes the header and begins to look keys
// up; the body is then written once; Verification.Finish judges.
//
// Invariants:
//
//   - A chain passes only if it has no gap, no duplicate and no seal that says
//     fail, the last message signature verifies, and every seal does.
//   - A passing chain says that no one broke it, not that anyone in it says
//     the truth. Vouched asks the sealers that the caller trusts, and none
//     before the first that it does not.
//   - Work is linear in the size of the header, whatever the number of sets. A
//     chain whose last seal does not verify costs one DNS question.
//   - The body is read once. No panics, no logging, and no goroutine left
//     after Finish or Close.
package arc

import (
	"time"
)

// Bounds on what a message can cause.
const (
	MaxSets          = 50 // a chain with more fails (RFC 8617 section 4.2.1)
	DefaultDNSBudget = 10 * time.Second

	maxLookups    = 8         // key lookups of one message at a time
	maxHeaderWork = 16 << 20  // octets hashed for message signatures before the last
	maxResults    = 128 << 10 // octets of one ARC-Authentication-Results field
	maxMethods    = 100       // results that are read in one of those fields
)

// Names of the fields of a set.
const (
	fieldResults = "ARC-Authentication-Results"
	fieldMessage = "ARC-Message-Signature"
	fieldSeal    = "ARC-Seal"
)

// Status is the state of a chain, as Authentication-Results spells it.
type Status string

// The states.
const (
	None Status = "none" // the message has no set
	Pass Status = "pass"
	Fail Status = "fail"
)

// Result is the verdict on the chain of one message.
type Result struct {
	Status Status
	// Reason says in a few words of ours why the chain fails.
	Reason string
	// Temporary says that the chain fails because DNS could not tell; Err is
	// its error.
	Temporary bool
	Err       error
	// Sets are in the order of their instances. Those of a chain whose
	// structure is broken are left out.
	Sets []Set
	// OldestPass is the lowest instance from which on every message signature
	// verifies, 0 when all do: header.oldest-pass. Only for a pass.
	OldestPass int
	// Sealer is the domain of the last seal.
	Sealer string
}

// Set is what one server added. Only Sealer and Signer are known to be domain
// names; the rest is text from outside, not safe to print.
type Set struct {
	Instance   int
	Sealer     string // d= of the seal, A-labels in lower case
	Selector   string // s= of the seal
	Signer     string // d= of the message signature
	AuthServID string // who reports the Results
	Results    []MethodResult
	Bare       bool // the message signature covers no field: its header could be any
}

// MethodResult is one result of ARC-Authentication-Results.
type MethodResult struct {
	Method, Value string            // in lower case
	Props         map[string]string // such as "header.from"; the first of a name
}

// Vouched says which trusted server, if any, saw DMARC pass for the author
// domain, which is given in A-labels in lower case. Servers are asked from the
// last towards the first, until one is not trusted: what came before that may
// be invented. A server that reports several results for DMARC must mean the
// same by all. A mail whose header the last signature does not cover is not
// vouched for.
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
