// Queries: a query template becomes a statement with parameters.
//
// Postfix inserts the escaped address into the text of a query. Here the server never
// sees the address as SQL. Every string literal with an expansion in it becomes one
// placeholder, whose value is the text of the literal after expansion. So WHERE a = '%s'
// becomes WHERE a = ? with the key, and LIKE '%%@%d' becomes LIKE ? with "%@" and the
// domain. Literals are parsed as the server parses them: with doubled quotes, and with
// backslashes where the dialect has them.
//
// Invariants:
//   - an expansion where a placeholder is not possible (outside of quotes, in an
//     identifier, in a comment, after a type name or next to another literal) is an
//     error when the template is read; it is never inserted as text;
//   - text without an expansion does not change.

package sql

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/conf"
)

// Dialect is how a server reads SQL.
type Dialect int

// The dialects. MySQL is read without ANSI_QUOTES and NO_BACKSLASH_ESCAPES,
// PostgreSQL with standard_conforming_strings, as they come.
const (
	MySQL Dialect = iota
	PostgreSQL
	SQLite
)

// Query is a statement with placeholders.
type Query struct {
	Text string
	Args []conf.Template // of the placeholders, in order

	// Wildcards means that an expansion follows LIKE, where "%" and "_" in an address
	// match other text too, as they do in Postfix.
	Wildcards bool
}

// Values returns the values of the placeholders for one key.
func (q Query) Values(k conf.Key) []string {
	values := make([]string, len(q.Args))
	for i, arg := range q.Args {
		values[i] = k.Expand(arg, nil)
	}
	return values
}

// Translate translates a template of the dialect.
func Translate(t conf.Template, d Dialect) (Query, error) {
	l := lexer{dialect: d, in: units(t)}
	for l.pos < len(l.in) {
		if err := l.token(); err != nil {
			return Query{}, err
		}
	}
	l.query.Text = strings.TrimSpace(l.out.String())
	if l.query.Text == "" {
		return Query{}, errors.New("the query is empty")
	}
	return l.query, nil
}

// unit is one octet of text, or one expansion.
type unit struct{ c, verb byte }

func units(t conf.Template) []unit {
	var in []unit
	for _, p := range t {
		if p.Verb != 0 {
			in = append(in, unit{verb: p.Verb})
		}
		for i := range len(p.Text) {
			in = append(in, unit{c: p.Text[i]})
		}
	}
	return in
}

// kind is what a token was, as far as the next one must know.
type kind int

const (
	other kind = iota
	word
	literal  // text only
	expanded // a literal that became a placeholder
)

type lexer struct {
	dialect Dialect
	in      []unit
	pos     int
	out     strings.Builder
	query   Query

	before kind   // the token before this one
	name   string // it, if it is a word
}

// at returns the octet n places ahead, 0 at the end or for an expansion.
func (l *lexer) at(n int) byte {
	if l.pos+n >= len(l.in) {
		return 0
	}
	return l.in[l.pos+n].c
}

// token reads one token.
func (l *lexer) token() error {
	if verb := l.in[l.pos].verb; verb != 0 {
		return fmt.Errorf("%%%c is outside of quotes, where an address would be read as SQL; write '%%%c'", verb, verb)
	}
	switch c := l.at(0); {
	case c == '\'' || c == '"' && l.stringQuotes():
		return l.literal(c)
	case c == '"' || c == '`' || c == '[' && l.dialect == SQLite:
		return l.identifier(c)
	case l.isLineComment():
		return l.skipTo("\n", "a comment")
	case c == '/' && l.at(1) == '*':
		return l.skipTo("*/", "a comment")
	case c == '$' && l.dialect == PostgreSQL && l.dollarTag() != "":
		return l.dollarQuoted(l.dollarTag())
	case c == ';':
		return l.end()
	case l.isPlaceholder(c):
		return fmt.Errorf("%q means a parameter of its own; a query has no others than %%s and its like", string(c))
	case isWord(c):
		l.word()
	default:
		if !isSpace(c) {
			l.before = other
		}
		l.copy(1)
	}
	return nil
}

// stringQuotes reports whether '"' begins a string. In SQLite it does where an
// expansion makes an identifier senseless.
func (l *lexer) stringQuotes() bool {
	switch l.dialect {
	case MySQL:
		return true
	case SQLite:
		for _, u := range l.in[l.pos+1:] {
			if u.verb != 0 || u.c == '"' {
				return u.verb != 0
			}
		}
	}
	return false
}

func (l *lexer) isLineComment() bool {
	switch {
	case l.at(0) == '#':
		return l.dialect == MySQL
	case l.at(0) == '-' && l.at(1) == '-':
		// MySQL wants white space behind it: 5--3 is 8.
		return l.dialect != MySQL || l.pos+2 >= len(l.in) || isSpace(l.at(2))
	}
	return false
}

func (l *lexer) isPlaceholder(c byte) bool {
	switch l.dialect {
	case MySQL:
		return c == '?'
	case PostgreSQL:
		return c == '$' && '0' <= l.at(1) && l.at(1) <= '9' && l.before != word
	}
	return c == '?' || (c == ':' || c == '@' || c == '$') && isWord(l.at(1))
}

// copy copies n octets to the statement.
func (l *lexer) copy(n int) {
	for range n {
		l.out.WriteByte(l.in[l.pos].c)
		l.pos++
	}
}

func (l *lexer) word() {
	start := l.pos
	for isWord(l.at(0)) {
		l.pos++
	}
	var b strings.Builder
	for _, u := range l.in[start:l.pos] {
		b.WriteByte(u.c)
	}
	l.before, l.name = word, b.String()
	l.out.WriteString(l.name)
}

// skipTo copies everything up to and including a mark. An expansion before the mark is
// an error.
func (l *lexer) skipTo(mark, where string) error {
	begin := l.pos
	for l.pos < len(l.in) {
		if verb := l.in[l.pos].verb; verb != 0 {
			return fmt.Errorf("%%%c is in %s; take it out", verb, where)
		}
		l.copy(1)
		if l.pos-begin > len(mark) && l.endsWith(mark) {
			return nil
		}
	}
	return nil
}

func (l *lexer) endsWith(mark string) bool {
	for i := range len(mark) {
		if l.in[l.pos-len(mark)+i].c != mark[i] {
			return false
		}
	}
	return true
}

// identifier copies a quoted name.
func (l *lexer) identifier(quote byte) error {
	if quote == '[' {
		quote = ']'
	}
	l.copy(1)
	for l.pos < len(l.in) {
		if verb := l.in[l.pos].verb; verb != 0 {
			return fmt.Errorf("%%%c is in a quoted name; write '%%%c' for a string", verb, verb)
		}
		if l.at(0) == quote {
			l.copy(1)
			l.before = other
			return nil
		}
		l.copy(1)
	}
	return fmt.Errorf("no closing %q", string(quote))
}

// dollarTag returns "$tag$" if a dollar-quoted string of PostgreSQL begins here.
func (l *lexer) dollarTag() string {
	var b strings.Builder
	b.WriteByte('$')
	for n := 1; ; n++ {
		switch c := l.at(n); {
		case c == '$':
			return b.String() + "$"
		case !isWord(c) || n == 1 && '0' <= c && c <= '9':
			return ""
		default:
			b.WriteByte(c)
		}
	}
}

func (l *lexer) dollarQuoted(tag string) error {
	l.copy(len(tag))
	l.before = literal
	return l.skipTo(tag, "a dollar-quoted string, which Postfix could not have escaped")
}

// end takes the semicolon off the end.
func (l *lexer) end() error {
	for _, u := range l.in[l.pos+1:] {
		if u.verb != 0 || !isSpace(u.c) && u.c != ';' {
			return errors.New("text after the semicolon: a query is one statement")
		}
	}
	l.pos = len(l.in)
	return nil
}

// literal copies a string, or replaces it by a placeholder.
func (l *lexer) literal(quote byte) error {
	start := l.pos
	escapes, prefix := l.dialect == MySQL, l.prefix()
	if l.dialect == PostgreSQL && strings.EqualFold(prefix, "E") {
		escapes = true
	}
	value, hasVerb, err := l.value(quote, escapes)
	if err != nil {
		return err
	}
	before := l.before
	l.before = literal
	if hasVerb {
		l.before = expanded
	}
	if (before == literal || before == expanded) && (hasVerb || before == expanded) {
		return errors.New("two strings side by side, one of them with an expansion; write them as one")
	}
	if !hasVerb {
		l.pos, start = start, l.pos
		l.copy(start - l.pos)
		return nil
	}
	if err := l.checkBefore(before, prefix); err != nil {
		return err
	}
	l.query.Wildcards = l.query.Wildcards || before == word && isLike(l.name)
	l.query.Args = append(l.query.Args, value)
	l.out.WriteString(l.placeholder())
	if isWord(l.at(0)) {
		l.out.WriteByte(' ') // 'a'AND is two tokens, $1AND is none
	}
	return nil
}

// prefix returns the word directly before the string, as in E'…'.
func (l *lexer) prefix() string {
	if l.before == word && l.pos > 0 && isWord(l.in[l.pos-1].c) {
		return l.name
	}
	return ""
}

// checkBefore returns an error for a string to which the word before it gives another
// meaning.
func (l *lexer) checkBefore(before kind, prefix string) error {
	switch {
	case prefix != "" && (strings.EqualFold(prefix, "E") && l.dialect == PostgreSQL || strings.EqualFold(prefix, "N") && l.dialect != SQLite):
		text := l.out.String()
		l.out.Reset()
		l.out.WriteString(text[:len(text)-len(prefix)]) // what is left is a plain string
	case prefix != "" && !isKeyword(prefix), before == word && !isKeyword(l.name):
		return fmt.Errorf("%q is in front of a string with an expansion; a type or character set cannot be given there: use CAST('%%s' AS …)", l.name)
	}
	return nil
}

func (l *lexer) placeholder() string {
	if l.dialect == PostgreSQL {
		return "$" + strconv.Itoa(len(l.query.Args))
	}
	return "?"
}

// value reads a string to its closing quote.
func (l *lexer) value(quote byte, escapes bool) (t conf.Template, hasVerb bool, err error) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			t = append(t, conf.Part{Text: text.String()})
			text.Reset()
		}
	}
	for l.pos++; l.pos < len(l.in); l.pos++ {
		switch u := l.in[l.pos]; {
		case u.verb != 0:
			flush()
			t, hasVerb = append(t, conf.Part{Verb: u.verb}), true
		case u.c == quote && l.at(1) == quote:
			l.pos++
			text.WriteByte(quote)
		case u.c == quote:
			flush()
			l.pos++
			return t, hasVerb, nil
		case u.c == '\\' && escapes:
			l.pos++
			if l.pos >= len(l.in) || l.in[l.pos].verb != 0 || l.dialect == PostgreSQL {
				return nil, false, errors.New("a backslash in front of an expansion, or in an E'…' string; take it out")
			}
			text.WriteString(unescape(l.at(0)))
		default:
			text.WriteByte(u.c)
		}
	}
	return nil, false, fmt.Errorf("no closing %q", string(quote))
}

// unescape returns the meaning of a backslash and c in MySQL.
func unescape(c byte) string {
	switch c {
	case '0':
		return "\x00"
	case 'b':
		return "\b"
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case 'Z':
		return "\x1a"
	case '%', '_':
		return `\` + string(c) // for LIKE to read
	}
	return string(c)
}

func isLike(name string) bool {
	switch strings.ToUpper(name) {
	case "LIKE", "ILIKE", "GLOB":
		return true
	}
	return false
}

// isKeyword reports whether a string may follow the word.
func isKeyword(name string) bool {
	switch strings.ToUpper(name) {
	case "ALL", "AND", "AS", "BETWEEN", "BINARY", "BY", "CASE", "COLLATE", "DISTINCT", "DIV", "ELSE", "ESCAPE", "FOR", "FROM", "GLOB", "HAVING",
		"ILIKE", "IN", "IS", "ISNULL", "LIKE", "LIMIT", "MATCH", "MOD", "NOT", "OFFSET", "ON", "OR", "REGEXP", "RLIKE", "SELECT", "THEN", "TO",
		"UNION", "USING", "VALUES", "WHEN", "WHERE", "XOR":
		return true
	}
	return false
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c >= 0x80
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }
