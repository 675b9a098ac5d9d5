package spf

import "strings"

// Limits of a Received-SPF field.
const (
	maxHeaderValue = 256 // bytes of one value; a longer one is cut
	headerColumns  = 78
)

// ReceivedSPF returns the value of a Received-SPF field (RFC 7208 section 9.1) for
// the HELO identity. a is the argument of the check.
func (r HeloResult) ReceivedSPF(a Args) string { return r.receivedSPF(a, "helo") }

// ReceivedSPF returns the value of a Received-SPF field (RFC 7208 section 9.1) for
// the MAIL FROM identity. a is the argument of the check.
func (r MailFromResult) ReceivedSPF(a Args) string { return r.receivedSPF(a, "mailfrom") }

// receivedSPF writes the keys. Each value from outside goes through headerValue, so
// that it cannot end its pair, its line or the field. The result is printable
// US-ASCII, folded with "\n\t" at 78 columns where possible.
func (r Result) receivedSPF(a Args, identity string) string {
	receiver := a.Receiver
	if receiver == "" {
		receiver = unknownName
	}
	ip := a.IP.Unmap().WithZone("").String()
	// A comment may be folded at its blanks, a value may not.
	pairs := append([]string{string(r.Status)}, strings.Fields("("+headerComment(receiver+": "+r.reason(ip))+")")...)
	pairs = append(pairs,
		"receiver="+headerValue(receiver)+";",
		"identity="+identity+";",
		"client-ip="+headerValue(ip)+";",
		"envelope-from="+quoted(a.Sender.path())+";",
		"helo="+headerValue(a.Helo)+";",
	)
	switch {
	case r.Status == TempError || r.Status == PermError:
		pairs = append(pairs, "problem="+headerValue(r.problem())+";")
	case r.Mechanism != "":
		pairs = append(pairs, "mechanism="+headerValue(r.Mechanism)+";")
	case r.Status == Neutral:
		pairs = append(pairs, "mechanism=default;")
	}
	return fold(pairs, len("Received-SPF: "))
}

// path returns the reverse path without its angle brackets.
func (s Sender) path() string {
	if s == (Sender{}) {
		return ""
	}
	return s.Local + "@" + s.Domain
}

func (r Result) problem() string {
	if r.Err == nil {
		return ""
	}
	return r.Err.Error()
}

// reason returns the status in words, as RFC 7208 section 9.1 suggests.
func (r Result) reason(ip string) string {
	who := "domain of " + r.Sender
	switch r.Status {
	case Pass:
		return who + " designates " + ip + " as permitted sender"
	case Fail:
		return who + " does not designate " + ip + " as permitted sender"
	case SoftFail:
		return "transitioning " + who + " does not designate " + ip + " as permitted sender"
	case Neutral:
		return ip + " is neither permitted nor denied by " + who
	case TempError:
		return "error in DNS while checking " + who
	case PermError:
		return "permanent error in processing " + who
	}
	return who + " does not designate permitted sender hosts"
}

// headerValue returns a value as a dot-atom if it is one, otherwise as a
// quoted-string.
func headerValue(s string) string {
	if s == "" || len(s) > maxHeaderValue || strings.Contains("."+s+".", "..") {
		return quoted(s)
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", s[i]) < 0 {
			return quoted(s)
		}
	}
	return s
}

// quoted returns a quoted-string (RFC 5322 section 3.2.4).
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(s)) + `"`
}

// headerComment returns text for a comment: characters that could end or nest it
// are replaced.
func headerComment(s string) string {
	return strings.NewReplacer(`\`, "?", "(", "?", ")", "?").Replace(printable(s))
}

// printable replaces all characters except printable US-ASCII, and cuts a text that
// is too long.
func printable(s string) string {
	s = s[:min(len(s), maxHeaderValue)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// fold joins words. It starts a new line before each word that would pass the 78th
// column, and never breaks inside a word.
func fold(words []string, column int) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case column+1+len(w) > headerColumns:
			b.WriteString("\n\t")
			column = 8 // a tab's width
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	return b.String()
}
