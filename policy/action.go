package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Code is an SMTP reply code with its enhanced status code (RFC 3463). Only
// this file creates Codes, so no other reply is possible.
type Code struct{ reply, status string }

// The codes that checks may choose. The zero Code is not one of them. It means
// the general code of the verdict's Kind.
var (
	CodePolicy       = Code{"550", "5.7.1"} // rejected by policy
	CodeSenderPolicy = Code{"553", "5.7.1"} // as Postfix answers for a sender that is not owned
	CodeTemporary    = Code{"451", "4.3.0"} // as Postfix answers for a table that it cannot read
	CodeTooMuch      = Code{"450", "4.7.1"} // a limit is reached, for now
	CodeRefused      = Code{"554", "5.7.1"} // a limit is reached, or the login is blocked
)

// Action is the answer to Postfix: one line in Postfix's spelling. The zero
// value could be a mistake, so it is never sent; see dunno.
//
// Postfix accepts mail on an empty action and on a code without text. It stalls
// on a CR. It answers 451 on bytes that are not UTF-8 and on unknown verbs. So
// only this file makes an Action, from a fixed verb or code and from text
// cleaned by clean.
type Action struct{ line string }

func (a Action) String() string { return a.line }

// dunno lets the restrictions that follow decide. OK would skip them.
var dunno = Action{"DUNNO"}

// maxText is the longest reply text, in octets. An SMTP reply line has 512 (RFC
// 5321 section 4.5.3.1.5), and Postfix puts an address before the text.
const maxText = 256

// Texts for a verdict without one. A code without text is not safe to send.
const (
	rejectText = "Rejected by policy"
	holdText   = "Held by policy"
	deferText  = "Temporarily deferred by policy, please try again later"
)

// action returns the answer to Postfix for a decision. The verdicts of shadowed
// checks do not get here: the chain has left them out.
func action(r *Request, d *Decision) Action {
	switch d.Kind {
	case Hold:
		return Action{"HOLD " + cleanOr(d.Text, holdText)}
	case Reject:
		return reply(d.Code, CodePolicy, d.Text, rejectText)
	case Defer:
		if d.Code == (Code{}) {
			return deferIfPermit(d.Text)
		}
		return reply(d.Code, CodeTemporary, d.Text, deferText)
	}
	if d.Header != "" && r.State != StateEndOfMessage { // PREPEND is invalid there
		return prepend(d.Header)
	}
	return dunno
}

func reply(code, general Code, text, otherwise string) Action {
	if code == (Code{}) {
		code = general
	}
	return Action{code.reply + " " + code.status + " " + cleanOr(text, otherwise)}
}

// deferIfPermit defers unless a later restriction rejects.
func deferIfPermit(text string) Action {
	return Action{"DEFER_IF_PERMIT " + cleanOr(text, deferText)}
}

// prepend adds a header line. A text that is not "Name: value" is left out,
// because it would become part of the body or of another header.
func prepend(header string) Action {
	name, value, ok := strings.Cut(clean(header), ":")
	if !ok || !isFieldName(name) || strings.TrimSpace(value) == "" {
		return dunno
	}
	return Action{"PREPEND " + name + ":" + value}
}

// isFieldName reports whether name may be a header name (RFC 5322 section 2.2).
func isFieldName(name string) bool {
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return false
		}
	}
	return name != ""
}

func cleanOr(text, otherwise string) string {
	if text = clean(text); text != "" {
		return text
	}
	return otherwise
}

// clean returns text as one line of valid UTF-8 without control characters. It
// is at most maxText octets long and never ends within a character.
func clean(text string) string {
	if len(text) > 4*maxText { // the rest would be cut off below
		text = text[:4*maxText]
	}
	text = strings.Map(func(c rune) rune {
		if c == utf8.RuneError || !unicode.IsGraphic(c) {
			return '?'
		}
		return c
	}, text)
	if len(text) > maxText {
		cut := maxText
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return strings.TrimSpace(text)
}
