package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Code is an SMTP reply code with its enhanced status code (RFC 3463). Only
// this file makes values of it, so no other can be answered.
type Code struct{ reply, status string }

// The codes that checks may choose. The zero Code is not among them: it
// means the general code of a verdict's Kind.
var (
	CodePolicy       = Code{"550", "5.7.1"} // rejected for reasons of policy
	CodeSenderPolicy = Code{"553", "5.7.1"} // as Postfix answers for a sender that is not owned
	CodeTemporary    = Code{"451", "4.3.0"} // as Postfix answers for a map it cannot read
	CodeTooMuch      = Code{"450", "4.7.1"} // a limit is reached, for now
	CodeRefused      = Code{"554", "5.7.1"} // a limit is reached, or the login is blocked
)

// Action is what Postfix is told: one line in Postfix's spelling. Its zero
// value cannot be told apart from a mistake and is never sent; see dunno.
//
// Postfix accepts mail on an empty action and on a bare code, stalls on a CR,
// and answers 451 on bytes that are not UTF-8 and on verbs that it does not
// know. So an Action is only made here, from a fixed verb or code, and from
// text that clean has gone over.
type Action struct{ line string }

func (a Action) String() string { return a.line }

// dunno lets the restrictions that follow decide. OK would skip them.
var dunno = Action{"DUNNO"}

// maxText bounds a reply text, in octets: an SMTP reply line has 512
// (RFC 5321 section 4.5.3.1.5) and Postfix puts an address in front.
const maxText = 256

// Texts for a verdict that brought none: a code without a text is not safe
// to send.
const (
	rejectText = "Rejected by policy"
	holdText   = "Held by policy"
	deferText  = "Temporarily deferred by policy, please try again later"
)

// action spells a decision for Postfix. A shadowed check never gets here: the
// chain has already left its verdict out.
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

// prepend adds a header line. A text that is no "Name: value" would become
// part of the body or of another header, so it is left out.
func prepend(header string) Action {
	name, value, ok := strings.Cut(clean(header), ":")
	if !ok || !isFieldName(name) || strings.TrimSpace(value) == "" {
		return dunno
	}
	return Action{"PREPEND " + name + ":" + value}
}

// isFieldName follows RFC 5322 section 2.2.
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

// clean makes one line of valid UTF-8 without control characters, at most
// maxText octets long, cut between characters.
func clean(text string) string {
	if len(text) > 4*maxText { // what cannot survive is not worth mapping
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
