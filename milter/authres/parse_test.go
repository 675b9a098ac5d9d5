package authres

import (
	"fmt"
	"strings"
)

// parsed is one result as a strict reader of RFC 8601 section 2.2 has it.
type parsed struct {
	method, value, reason string
	props                 map[string]string
}

// reader is that strict reader. It knows comments and quotes, and refuses everything
// that the grammar does not allow.
type reader struct {
	s   string
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format+" at %q", append(args, r.s)...)
	}
	r.s = ""
}

// parseField reads a whole value, unfolding it first.
func parseField(field string) (id string, results []parsed, err error) {
	for line := range strings.SplitSeq(field, "\n") {
		if line != field && strings.Trim(line, " \t") == "" {
			return "", nil, fmt.Errorf("an empty line in %q", field)
		}
	}
	flat := strings.NewReplacer("\n\t", " ", "\n ", " ").Replace(field)
	for i := range len(flat) {
		if flat[i] < ' ' || flat[i] > '~' {
			return "", nil, fmt.Errorf("byte %#x in %q", flat[i], field)
		}
	}
	r := &reader{s: flat}
	r.cfws()
	id = r.value()
	r.cfws()
	for r.err == nil && r.s != "" {
		r.expect(';')
		r.cfws()
		if results == nil && r.s == "none" {
			return id, nil, r.err
		}
		results = append(results, r.result())
	}
	return id, results, r.err
}

func (r *reader) expect(c byte) {
	if r.s == "" || r.s[0] != c {
		r.fail("no %q", c)
		return
	}
	r.s = r.s[1:]
}

func (r *reader) cfws() {
	for r.s != "" {
		switch r.s[0] {
		case ' ':
			r.s = r.s[1:]
		case '(':
			r.comment()
		default:
			return
		}
	}
}

func (r *reader) comment() {
	depth := 0
	for i := 0; i < len(r.s); i++ {
		switch r.s[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				r.s = r.s[i+1:]
				return
			}
		}
	}
	r.fail("open comment")
}

func (r *reader) word(more string) string {
	i := 0
	for i < len(r.s) && (r.s[i]|0x20 >= 'a' && r.s[i]|0x20 <= 'z' || r.s[i] >= '0' && r.s[i] <= '9' || strings.IndexByte(more, r.s[i]) >= 0) {
		i++
	}
	w := r.s[:i]
	if r.s = r.s[i:]; w == "" {
		r.fail("no word")
	}
	return w
}

// value is a token, a quoted-string, or [local] "@" domain.
func (r *reader) value() string {
	if r.s == "" || r.s[0] != '"' {
		return r.word("-_.+@")
	}
	var b strings.Builder
	for i := 1; i < len(r.s); i++ {
		switch r.s[i] {
		case '"':
			r.s = r.s[i+1:]
			return b.String()
		case '\\':
			if i++; i == len(r.s) {
				break
			}
			b.WriteByte(r.s[i])
		default:
			b.WriteByte(r.s[i])
		}
	}
	r.fail("open string")
	return ""
}

func (r *reader) result() parsed {
	p := parsed{method: r.word("-"), props: map[string]string{}}
	r.expect('=')
	p.value = r.word("")
	r.cfws()
	for r.err == nil && r.s != "" && r.s[0] != ';' {
		name := r.word("-.")
		r.expect('=')
		v := r.value()
		if _, twice := p.props[name]; twice {
			r.fail("%s twice", name)
		}
		p.props[name] = v
		if r.s != "" && r.s[0] != ' ' && r.s[0] != ';' {
			r.fail("text behind a value")
		}
		r.cfws()
	}
	p.reason = p.props["reason"]
	delete(p.props, "reason")
	return p
}
