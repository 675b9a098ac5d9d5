// Package authres writes our Authentication-Results field, and finds the fields that
// claim to be ours (RFC 8601).
//
// The field names the server that judged (the authserv-id), then for each method a
// result and the properties that were judged. Programs behind us trust the field
// because of the name alone. So two things must never happen: text of a stranger in
// our field is read as a result, or a field of a stranger has our name.
//
// Invariants:
//   - Only methods, results and properties of the IANA registry can be
//     written. Everything else is text. Text is cut, quoted and escaped, and
//     loses what is not printable US-ASCII.
//   - The name of a method comes before "=" only in a real result, not even
//     in quotes or in a comment, because some readers search instead of parse.
//   - In doubt, a field counts as one that claims our name.
package authres

import "strings"

// Value is the result of a method (RFC 8601 section 2.7).
type Value string

// All results that some method may have.
const (
	None      Value = "none"
	Pass      Value = "pass"
	Fail      Value = "fail"
	SoftFail  Value = "softfail"
	Policy    Value = "policy"
	Neutral   Value = "neutral"
	TempError Value = "temperror"
	PermError Value = "permerror"
)

// Result is the result of one method: one of the types below.
type Result interface {
	info() info
}

// Text is the part of a result for people. Both fields are optional and may come from
// outside. They are cut to 200 bytes, and text that reads as a result is altered.
type Text struct {
	Comment string // in brackets, after the result
	Reason  string // as reason="…"
}

// DKIM is the result for one signature, or none (RFC 8601 section 2.7.1).
type DKIM struct {
	Value     Value
	Domain    string // d=
	Identity  string // i=
	Selector  string // s=
	Algorithm string // a=
	Signature string // the first bytes of b=; at least 8 distinguish two signatures
	Text
}

// SPF is the result for one identity (RFC 8601 section 2.7.2).
type SPF struct {
	Value    Value
	MailFrom string // the domain; of an address only the part after the last "@" is written
	Helo     string
	Text
}

// DMARC is the result for the author's domain.
type DMARC struct {
	Value  Value
	From   string // the author's domain
	Policy string // "none", "quarantine" or "reject": the policy that applies; others are left out
	Text
}

// IPRev is the result of the client's reverse name (RFC 8601 section 3).
type IPRev struct {
	Value Value
	IP    string
	Text
}

// ARC is the result for the chain of seals (RFC 8617 section 10.2).
type ARC struct {
	Value      Value
	RemoteIP   string
	OldestPass string // a number; "" when it does not apply
	Text
}

// info is a result in the form in which it is written.
type info struct {
	method string
	value  Value
	text   Text
	props  []prop
}

type prop struct{ name, value string }

func (r DKIM) info() info {
	return info{"dkim", r.Value, r.Text, []prop{{"header.d", r.Domain}, {"header.i", r.Identity},
		{"header.s", r.Selector}, {"header.a", r.Algorithm}, {"header.b", r.Signature}}}
}

func (r SPF) info() info {
	domain := r.MailFrom[strings.LastIndexByte(r.MailFrom, '@')+1:]
	return info{"spf", r.Value, r.Text, []prop{{"smtp.mailfrom", domain}, {"smtp.helo", r.Helo}}}
}

func (r DMARC) info() info {
	switch r.Policy {
	case "none", "quarantine", "reject":
	default:
		r.Policy = ""
	}
	return info{"dmarc", r.Value, r.Text, []prop{{"header.from", r.From}, {"policy.dmarc", r.Policy}}}
}

func (r IPRev) info() info {
	return info{"iprev", r.Value, r.Text, []prop{{"policy.iprev", r.IP}}}
}

func (r ARC) info() info {
	return info{"arc", r.Value, r.Text, []prop{{"smtp.remote-ip", r.RemoteIP}, {"header.oldest-pass", r.OldestPass}}}
}

// registered returns the results of a method, separated by blanks.
func registered(method string) string {
	switch method {
	case "dkim":
		return "none pass fail policy neutral temperror permerror"
	case "spf":
		return "none pass fail softfail policy neutral temperror permerror"
	case "dmarc":
		return "none pass fail temperror permerror"
	case "iprev":
		return "pass fail temperror permerror"
	case "arc":
		return "none pass fail"
	}
	return ""
}

// spelled returns the result as it is written. A result that the method does not have
// becomes permerror, or fail for arc, so that it is never read as a pass.
func (i info) spelled() string {
	for v := range strings.FieldsSeq(registered(i.method)) {
		if v == string(i.value) {
			return v
		}
	}
	if i.method == "arc" {
		return string(Fail)
	}
	return string(PermError)
}
