package arc

import (
	"errors"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

var errInstance = errors.New("i= is not a number from 1 to 50")

// parseInstance parses an instance number.
func parseInstance(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || len(text) > 2 || n < 1 || n > MaxSets {
		return 0, errInstance
	}
	return int(n), nil
}

// parseResults parses ARC-Authentication-Results: an instance, an authserv-id
// and results (RFC 8617 section 4.1.1, RFC 8601 section 2.2).
func parseResults(value string) (Set, error) {
	var s Set
	if len(value) > maxResults {
		return s, errors.New("field too long")
	}
	parts, err := splitResults(value)
	if err != nil {
		return s, err
	}
	name, number, _ := strings.Cut(strings.Join(parts[0], ""), "=")
	if name != "i" {
		return s, errors.New("does not begin with i=")
	}
	if s.Instance, err = parseInstance(number); err != nil {
		return s, err
	}
	if len(parts) < 2 || len(parts[1]) == 0 {
		return s, errors.New("no authserv-id")
	}
	s.AuthServID = strings.ToLower(parts[1][0])
	for _, words := range parts[2:min(len(parts), 2+maxMethods)] {
		if m, ok := methodResult(words); ok {
			s.Results = append(s.Results, m)
		}
	}
	return s, nil
}

// methodResult parses "method/version=value" and the properties after it.
func methodResult(words []string) (MethodResult, bool) {
	m := MethodResult{Props: map[string]string{}}
	for i, word := range words {
		key, value, ok := strings.Cut(word, "=")
		key = strings.ToLower(key)
		switch {
		case !ok && i == 0:
			return m, false
		case !ok:
		case i == 0:
			m.Method, _, _ = strings.Cut(key, "/")
			m.Value = strings.ToLower(value)
		default:
			if _, ok := m.Props[key]; !ok {
				m.Props[key] = value
			}
		}
	}
	return m, m.Method != ""
}

// splitResults splits a field at its semicolons, and each part into words. It
// removes comments, the quotes of quoted strings, and white space around "="
// and "/" outside of quotes.
func splitResults(value string) ([][]string, error) {
	w := words{parts: [][]string{nil}}
	for i := 0; i < len(value); {
		n := 1
		switch b := value[i]; {
		case b == ' ' || b == '\t' || b == '\r' || b == '\n':
			w.space = true
		case b == '(':
			if n = mailaddr.CommentEnd(value[i:]); n < 0 {
				return nil, errors.New("comment without an end")
			}
			w.space = true
		case b == ';':
			w.endWord()
			w.parts = append(w.parts, nil)
		case b == '"':
			var text string
			if text, n = mailaddr.Unquote(value[i:]); n < 0 {
				return nil, errors.New("quoted string without an end")
			}
			w.addText(text, false)
		case b < ' ' || b == 0x7f:
			return nil, errors.New("control character")
		default:
			w.addText(value[i:i+1], b == '=' || b == '/')
		}
		i += n
	}
	w.endWord()
	return w.parts, nil
}

// words collects the words of a field, part by part.
type words struct {
	parts [][]string
	word  strings.Builder
	open  bool // a word is being collected
	glued bool // it ends in "=" or "/", so the next text belongs to it
	space bool // white space followed it
}

// addText adds text to the current word. It begins a new word if there was space
// in between, unless there is "=" or "/" on one side of the space.
func (w *words) addText(text string, glue bool) {
	if w.space && !w.glued && !glue {
		w.endWord()
	}
	w.word.WriteString(text)
	w.open, w.glued, w.space = true, glue, false
}

func (w *words) endWord() {
	if w.open {
		last := len(w.parts) - 1
		w.parts[last] = append(w.parts[last], w.word.String())
		w.word.Reset()
	}
	w.open, w.glued, w.space = false, false, false
}

// sawPass reports whether the set reports that DMARC passed for a domain.
func (s *Set) sawPass(author string) bool {
	passed := false
	for _, m := range s.Results {
		if m.Method != "dmarc" {
			continue
		}
		from, err := mailaddr.ParseDomain(m.Props["header.from"])
		if m.Value != string(Pass) || err != nil || from != author {
			return false
		}
		passed = true
	}
	return passed
}
