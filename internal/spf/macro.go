package spf

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// macroString is a parsed macro-string (RFC 7208 section 7.1).
type macroString struct {
	source string  // as published
	tokens []token // nil when source is literal text
	// variable is true when the value depends on the client or on the local part,
	// not only on the domains.
	variable bool
}

// token is literal text (letter 0) or a macro.
type token struct {
	text    string // literal
	expand  bool   // a macro-expand of the grammar: a macro, %%, %_ or %-
	letter  byte   // lower case
	escape  bool   // the letter was upper case: escape as in URLs
	keep    int    // right-hand parts to keep; 0: all
	reverse bool
	delims  string // "" means "."
}

// syntax is the place of a macro-string. It decides which characters and macros are
// allowed.
type syntax int

const (
	inDomainSpec syntax = iota
	inUnknown           // the value of an unknown modifier
	inExplanation
)

const (
	nameLetters        = "slodipvh"
	explanationLetters = nameLetters + "crt" // RFC 7208 section 7.2: in exp text only
	fixedLetters       = "dovrt"             // the same for all clients of a domain
	delimiters         = ".-+,/_="
	maxKeep            = 128 // one more than any name has labels
	unknownName        = "unknown"
)

var (
	errMacroSyntax = errors.New("bad macro")
	errMacroChar   = errors.New("character not allowed")
	errMacroLetter = errors.New("unknown macro letter")
	errDomainEnd   = errors.New("domain does not end in a top-level label or a macro")
)

// parseMacros parses s. Its cost is linear in the length of s.
func parseMacros(s string, where syntax) (*macroString, error) {
	m := &macroString{source: s}
	start := 0
	for i := 0; i < len(s); {
		if s[i] != '%' {
			if s[i] < ' ' || s[i] > '~' || s[i] == ' ' && where != inExplanation {
				return nil, errMacroChar
			}
			i++
			continue
		}
		t, n, err := parseMacro(s[i:], where)
		if err != nil {
			return nil, err
		}
		if i > start {
			m.tokens = append(m.tokens, token{text: s[start:i]})
		}
		m.tokens = append(m.tokens, t)
		m.variable = m.variable || t.letter != 0 && strings.IndexByte(fixedLetters, t.letter) < 0
		i += n
		start = i
	}
	if m.tokens != nil && start < len(s) {
		m.tokens = append(m.tokens, token{text: s[start:]})
	}
	return m, nil
}

// parseMacro parses the macro-expand at the start of s and returns its length.
func parseMacro(s string, where syntax) (token, int, error) {
	if len(s) < 2 {
		return token{}, 0, errMacroSyntax
	}
	switch s[1] {
	case '%':
		return token{text: "%", expand: true}, 2, nil
	case '_':
		return token{text: " ", expand: true}, 2, nil
	case '-':
		return token{text: "%20", expand: true}, 2, nil
	case '{':
	default:
		return token{}, 0, errMacroSyntax
	}
	end := strings.IndexByte(s, '}')
	if end < 3 {
		return token{}, 0, errMacroSyntax
	}
	t, err := parseMacroBody(s[2:end], where)
	return t, end + 1, err
}

// parseMacroBody parses letter, transformers and delimiters.
func parseMacroBody(body string, where syntax) (token, error) {
	letters := explanationLetters
	if where == inDomainSpec {
		letters = nameLetters
	}
	t := token{expand: true, letter: body[0] | 0x20, escape: body[0] >= 'A' && body[0] <= 'Z'}
	if !isAlpha(body[0]) || strings.IndexByte(letters, t.letter) < 0 {
		return token{}, errMacroLetter
	}
	body = body[1:]
	digits := 0
	for digits < len(body) && isDigit(body[digits]) {
		// The number is limited: a larger one has the same meaning, all parts.
		t.keep = min(t.keep*10+int(body[digits]-'0'), maxKeep)
		digits++
	}
	if digits > 0 && t.keep == 0 {
		return token{}, errMacroSyntax // section 7.3: MUST be nonzero
	}
	body = body[digits:]
	if body != "" && body[0]|0x20 == 'r' {
		t.reverse, body = true, body[1:]
	}
	if strings.Trim(body, delimiters) != "" {
		return token{}, errMacroSyntax
	}
	t.delims = body
	return t, nil
}

// parseDomainSpec parses a macro-string that must end like a domain-spec.
func parseDomainSpec(s string) (*macroString, error) {
	m, err := parseMacros(s, inDomainSpec)
	if err != nil {
		return nil, err
	}
	tail := m.source
	if n := len(m.tokens); n > 0 {
		if m.tokens[n-1].expand {
			return m, nil
		}
		tail = m.tokens[n-1].text
	}
	if !endsInTopLabel(tail) {
		return nil, errDomainEnd
	}
	return m, nil
}

// endsInTopLabel reports whether s ends in "." toplabel [ "." ].
func endsInTopLabel(s string) bool {
	s = strings.TrimSuffix(s, ".")
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return false
	}
	top := s[dot+1:]
	if top == "" || top[0] == '-' || top[len(top)-1] == '-' {
		return false
	}
	digits := 0
	for i := range len(top) {
		switch {
		case isDigit(top[i]):
			digits++
		case top[i] != '-' && !isAlpha(top[i]):
			return false
		}
	}
	return digits < len(top)
}

// expandName expands a domain-spec to a name without trailing dot, and removes
// labels from the left until it fits (RFC 7208 section 7.3). ok is false when a
// macro has a value that cannot be in a name.
//
// It works from the right end and stops as soon as the name is full. So macros
// beyond that cost nothing.
func (c *check) expandName(ctx context.Context, m *macroString) (name string, ok bool) {
	if m.tokens == nil {
		return fitName(m.source), true
	}
	var room [maxName + 2]byte // with a trailing dot, and one byte to see what is before the cut
	pos := len(room)
	for _, t := range slices.Backward(m.tokens) {
		value, ok := c.expandToken(ctx, t)
		if !ok {
			return "", false
		}
		if len(value) >= pos {
			copy(room[:pos], value[len(value)-pos:])
			pos = 0
			break
		}
		pos -= len(value)
		copy(room[pos:], value)
	}
	return fitName(string(room[pos:])), true
}

// fitName removes a trailing dot and whole labels from the left.
func fitName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if len(name) <= maxName {
		return name
	}
	from := len(name) - maxName
	dot := strings.IndexByte(name[from-1:], '.')
	if dot < 0 {
		return "" // one label that is longer than a name: DNS cannot be asked for it
	}
	return name[from+dot:]
}

// expandText expands an explanation. ok is false when it is longer than
// maxExplanation bytes or not printable US-ASCII.
func (c *check) expandText(ctx context.Context, m *macroString) (text string, ok bool) {
	if m.tokens == nil {
		return m.source, len(m.source) <= maxExplanation
	}
	out := make([]byte, 0, 128)
	for _, t := range m.tokens {
		value, ok := c.expandToken(ctx, t)
		if !ok || len(out)+len(value) > maxExplanation {
			return "", false
		}
		out = append(out, value...)
	}
	for _, b := range out {
		if b < ' ' || b > '~' {
			return "", false
		}
	}
	return string(out), true
}

// expandToken returns the text of a token. ok is false for a value that is too long
// or, in a local part, not ASCII (RFC 8616 section 4). It is also false when the
// check has used up maxMacroWork.
func (c *check) expandToken(ctx context.Context, t token) (value string, ok bool) {
	if t.letter == 0 {
		return t.text, true
	}
	value = c.letter(ctx, t.letter)
	if len(value) > maxMacroValue || !isASCII(value) {
		return "", false
	}
	if c.work += len(value); c.work > maxMacroWork {
		return "", false
	}
	value = t.transform(value)
	if t.escape {
		value = urlEscape(value)
	}
	return value, true
}

// letter returns the value of a macro letter (RFC 7208 section 7.2).
func (c *check) letter(ctx context.Context, letter byte) string {
	switch letter {
	case 's':
		return c.sender.Local + "@" + c.sender.Domain
	case 'l':
		return c.sender.Local
	case 'o':
		return c.sender.Domain
	case 'd':
		return c.domain
	case 'i':
		return dotted(c.ip)
	case 'p':
		return c.validatedName(ctx)
	case 'v':
		if c.ip.Is4() {
			return "in-addr"
		}
		return "ip6"
	case 'h':
		return c.helo
	case 'c':
		return c.ip.String()
	case 'r':
		return c.receiver
	default: // 't': the parser accepts no other letter
		return strconv.FormatInt(c.now.Unix(), 10)
	}
}

// dotted returns an address in the form of %{i}: IPv6 as dotted nibbles. They are
// in upper case as in the test suite of the RFC; in a name, case does not matter.
func dotted(ip netip.Addr) string {
	if ip.Is4() {
		return ip.String()
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, 63)
	for _, b := range ip.As16() {
		out = append(out, hex[b>>4], '.', hex[b&15], '.')
	}
	return string(out[:63])
}

// validatedName returns the value of %{p}: from the client's validated names the
// current domain, else one below it, else any, else "unknown" (RFC 7208 section
// 7.3).
func (c *check) validatedName(ctx context.Context) string {
	names, _ := c.reverseNames(ctx)
	prefer := []func(string) bool{
		func(name string) bool { return name == c.domain },
		func(name string) bool { return inDomain(name, c.domain) },
		func(string) bool { return true },
	}
	for _, wanted := range prefer {
		for i := range names {
			if wanted(names[i].name) && c.validate(ctx, &names[i]) {
				return names[i].name
			}
		}
	}
	return unknownName
}

// transform splits a value at the delimiters, reverses the parts, keeps parts from
// the right, and joins them with dots (RFC 7208 section 7.3).
func (t token) transform(value string) string {
	if t.keep == 0 && !t.reverse && t.delims == "" {
		return value
	}
	delims := t.delims
	if delims == "" {
		delims = "."
	}
	parts := splitAny(value, delims)
	if t.reverse {
		slices.Reverse(parts)
	}
	if t.keep > 0 && t.keep < len(parts) {
		parts = parts[len(parts)-t.keep:]
	}
	return strings.Join(parts, ".")
}

// splitAny splits at every byte of delims; empty parts count.
func splitAny(s, delims string) []string {
	n := 1
	for i := range len(s) {
		if strings.IndexByte(delims, s[i]) >= 0 {
			n++
		}
	}
	parts, start := make([]string, 0, n), 0
	for i := range len(s) {
		if strings.IndexByte(delims, s[i]) >= 0 {
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// urlEscape escapes all but the unreserved characters of RFC 3986.
func urlEscape(s string) string {
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		b := s[i]
		if isAlnum(b) || b == '-' || b == '.' || b == '_' || b == '~' {
			out = append(out, b)
			continue
		}
		out = append(out, '%', hex[b>>4], hex[b&15])
	}
	return string(out)
}
