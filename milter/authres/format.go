package authres

import "strings"

// Bounds of what is written.
const (
	maxText    = 200 // bytes of a comment or a reason
	maxWord    = 60  // bytes of one word in them
	maxValue   = 320 // bytes of a property's value: an address with the longest local part and domain
	maxResults = 20  // results in one field; further ones are left out
	columns    = 78  // RFC 5322 section 2.1.1
	nameWidth  = 24  // "Authentication-Results: "
	tabWidth   = 8   // of a fold between words
	fold       = "\n\t"
	textFold   = "\n " // inside quotes or a comment: the blank is the text's own
)

// Format returns the value of the field. Lines end in "\n", as the milter protocol
// has it, and go on with white space. No line is longer than 78 columns, except for a
// single value that is longer itself (RFC 8601 allows no fold inside it). Without
// results the value says "none".
func Format(authservID string, results ...Result) string {
	w := writer{column: nameWidth}
	w.raw(value(authservID))
	if len(results) == 0 {
		w.raw("; none")
	}
	for _, r := range results[:min(len(results), maxResults)] {
		w.raw(";")
		w.result(r.info())
	}
	return w.b.String()
}

// writer keeps track of the column, and folds before a line gets too long.
type writer struct {
	b      strings.Builder
	column int
}

func (w *writer) raw(s string) {
	w.b.WriteString(s)
	w.column += len(s)
}

// result begins a line.
func (w *writer) result(i info) {
	w.b.WriteString(fold)
	w.column = tabWidth
	w.raw(i.method + "=" + i.spelled())
	if c := clean(i.text.Comment); c != "" {
		w.text("(", escape(c, `\()`), ")")
	}
	if r := clean(i.text.Reason); r != "" {
		w.text(`reason="`, escape(r, `\"`), `"`)
	}
	for _, p := range i.props {
		if p.value != "" {
			w.word(p.name + "=" + value(p.value))
		}
	}
}

// word writes s after a blank, or on a new line. It keeps one byte free for the ";"
// before the next result.
func (w *writer) word(s string) {
	if w.column+1+len(s)+1 > columns {
		w.b.WriteString(fold)
		w.column = tabWidth
	} else {
		w.raw(" ")
	}
	w.raw(s)
}

// text writes words between begin and end, folding between them.
func (w *writer) text(begin, body, end string) {
	for n, word := range strings.Split(begin+body+end, " ") {
		switch {
		case n == 0:
			w.word(word)
			continue
		case w.column+1+len(word)+1 > columns:
			w.b.WriteString(textFold)
			w.column = 1
		default:
			w.raw(" ")
		}
		w.raw(word)
	}
}

// clean makes free text safe for the field: printable, with one blank between words,
// cut, and without anything that a careless reader takes for a result.
func clean(s string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(printable(s, maxText)) {
		if b.Len() > 0 {
			b.WriteByte(' ')
			width = 0
		}
		for i := range len(word) {
			w := 1
			if strings.IndexByte(`\"()`, word[i]) >= 0 {
				w = 2 // will be escaped
			}
			if width += w; width > maxWord {
				b.WriteByte(' ')
				width = w
			}
			b.WriteByte(word[i])
		}
	}
	return disarm(b.String())
}

// printable cuts s and replaces characters that are not printable US-ASCII. White
// space becomes a blank.
func printable(s string, limit int) string {
	s = s[:min(len(s), limit)]
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, s)
}

// disarm replaces the separators on which some readers split or search instead of
// parsing: every ";", and the "=" after the name of a method.
func disarm(s string) string {
	if !strings.ContainsAny(s, ";=") {
		return s
	}
	out := []byte(s)
	for i, c := range out {
		if c == ';' {
			out[i] = ','
		}
		if c == '=' && endsInMethod(s[:i]) {
			out[i] = ':'
		}
	}
	return string(out)
}

// endsInMethod reports whether s ends like the text before "=" in a result: the name
// of a registered method, perhaps with a version ("dkim/1"). The text before the name
// does not matter.
func endsInMethod(s string) bool {
	s = strings.TrimRight(s, ` "\()`)
	if version := strings.TrimRight(s, "0123456789"); version != s {
		if name, ok := strings.CutSuffix(strings.TrimRight(version, " "), "/"); ok {
			s = strings.TrimRight(name, " ")
		}
	}
	s = strings.ToLower(s[max(0, len(s)-maxMethod):])
	for _, m := range []string{"dkim", "spf", "dmarc", "arc", "auth", "iprev", "domainkeys", "sender-id", "dkim-adsp",
		"dkim-atps", "dnswl", "rrvs", "smime", "vbr"} {
		if strings.HasSuffix(s, m) {
			return true
		}
	}
	return false
}

const maxMethod = 10 // bytes of the longest method name

// value returns a pvalue or authserv-id: unchanged if every reader takes it for one
// word, otherwise quoted.
func value(s string) string {
	s = disarm(printable(s, maxValue))
	if isPlain(s) && !isResult(s) {
		return s
	}
	return `"` + escape(s, `\"`) + `"`
}

// isResult reports whether s is the word of a result, which is then quoted:
// "smtp.auth=pass" without quotes would contain "auth=pass".
func isResult(s string) bool {
	for _, v := range []Value{None, Pass, Fail, SoftFail, Policy, Neutral, TempError, PermError} {
		if strings.EqualFold(s, string(v)) {
			return true
		}
	}
	return false
}

// isPlain reports whether s is a word of letters, digits and "-_.+", or two such
// words around an "@", the first of which may be missing. RFC 8601 section 2.2 allows
// more characters.
func isPlain(s string) bool {
	local, domain, isAddress := strings.Cut(s, "@")
	if isAddress {
		return isWord(domain) && (local == "" || isWord(local))
	}
	return isWord(s)
}

func isWord(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("-_.+", c) < 0 {
			return false
		}
	}
	return s != ""
}

// escape puts a backslash before each of the special characters.
func escape(s, special string) string {
	if !strings.ContainsAny(s, special) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(special, s[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
