// Package authres writes our Authentication-Results field and recognises the
// fields that claim to be ours (RFC 8601).
//
// The field names who judged (the authserv-id), then for each method a result
// and the properties it was judged by. Programs behind us believe it because of
// the name alone, so two things must never happen: that a stranger's text in
// our field reads as a result, and that a stranger's field bears our name.
//
// Invariants:
//   - Only methods, results and properties of the IANA registry can be
//     spelled. Everything else is text, and text is cut, stripped of what is
//     not printable US-ASCII, quoted and escaped.
//   - A method's name before "=" is nowhere but at a real result, not
//     even in quotes or in a comment, for readers that search instead of parse.
//   - When in doubt whether a field claims our name, it does.
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

// Text is what a result may say to a person. Both are optional, may come from
// outside, are cut to 200 bytes, and lose what reads as a result.
type Text struct {
	Comment string // in brackets, behind the result
	Reason  string // as reason="…"
}

// DKIM is the result for one signature, or none (RFC 8601 section 2.7.1).
type DKIM struct {
	Value     Value
	Domain    string // d=
	Identity  string // i=
	Selector  string // s=
	Algorithm string // a=
	Signature string // the first bytes of b=; at least 8 tell two signatures apart
	Text
}

// SPF is the result for one identity (RFC 8601 section 2.7.2).
type SPF struct {
	Value    Value
	MailFrom string // the domain; of an address only what is behind the last "@" is written
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

// registered lists the results of a method, blank-separated.
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

// spelled is the result as written: one that the method does not have is
// permerror, or for arc fail, so that it is never taken for a pass.
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
