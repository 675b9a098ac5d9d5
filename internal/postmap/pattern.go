// Pattern tables: regexp: and pcre:.
//
// A table has one rule a line. Rules are tried in order: /pattern/flags result,
// !/pattern/ for the opposite, and if /pattern/ … endif around other rules. Any
// character except letters and digits may delimit a pattern. Patterns ignore case;
// flag i turns that off. The result may contain $1, ${1} and $(1), and $$ for a dollar.
//
// Both kinds use Go's regexp package, in linear time. A pattern that Go does not
// support, or to which POSIX or PCRE gives another meaning, is an error when the table
// is opened. So no rule silently means something else. Two differences remain: "."
// matches one character, not one octet; and case is ignored for letters beyond ASCII
// too.
//
// Invariants: an open table never changes; rules, nesting and results are
// bounded; an empty result is an error, as in Postfix.

package postmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// Bounds of one table.
const (
	MaxRules   = 5_000
	MaxNesting = 50       // of if … endif
	MaxPattern = 4096     // octets of one pattern
	MaxResult  = 64 << 10 // octets of one expanded result
)

// patternKind is the dialect of a table's patterns.
type patternKind int

// The dialects.
const (
	posix patternKind = iota // regexp: posix extended expressions, leftmost longest
	pcre                     // pcre: Perl's syntax as far as Go has it
)

// patternTable is an ordered list of rules.
type patternTable struct {
	path  string
	rules []patternRule
}

// patternRule matches when all its conditions match. After an "if" that does not match,
// the rule at skip is next.
type patternRule struct {
	line       int
	conditions []condition
	result     resultTemplate
	isIf       bool
	skip       int
}

type condition struct {
	re     *regexp.Regexp
	negate bool
}

// openPatternFile reads a table. The error is a [*mapfile.Error].
func openPatternFile(kind patternKind, path string) (*patternTable, error) {
	file, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines, err := file.Lines()
	if err != nil {
		return nil, err
	}
	return parsePatterns(kind, path, lines)
}

// parsePatternText reads a table from in; path is for the errors only.
func parsePatternText(kind patternKind, path string, in io.Reader) (*patternTable, error) {
	return parsePatterns(kind, path, mapfile.NewScanner(path, in))
}

// Len returns the number of rules.
func (t *patternTable) Len() int { return len(t.rules) }

// Close has nothing to do: the table is memory.
func (t *patternTable) Close() error { return nil }

// Lookup returns the result of the first rule that matches, or none. The key is used
// unchanged, because Postfix does not fold the keys of pattern tables.
func (t *patternTable) Lookup(_ context.Context, key string) ([]string, error) {
	r := t.match(key)
	if r == nil {
		return nil, nil
	}
	result, err := r.result.expand(r.conditions[0].re, key)
	if err != nil {
		return nil, &mapfile.Error{Path: t.path, Line: r.line, What: err.Error(), Fix: "let the rule give a result of bounded length for every address it matches"}
	}
	return []string{result}, nil
}

// Locate returns the "path:line" of the rule that a key matches, or "".
func (t *patternTable) Locate(key string) string {
	if r := t.match(key); r != nil {
		return mapfile.Where(t.path, r.line)
	}
	return ""
}

func (t *patternTable) match(key string) *patternRule {
	for i := 0; i < len(t.rules); {
		r := &t.rules[i]
		matched := r.matches(key)
		switch {
		case matched && !r.isIf:
			return r
		case !matched && r.isIf:
			i = r.skip
		default:
			i++
		}
	}
	return nil
}

func (r *patternRule) matches(key string) bool {
	for _, c := range r.conditions {
		if c.re.MatchString(key) == c.negate {
			return false
		}
	}
	return true
}

func parsePatterns(kind patternKind, path string, lines *mapfile.Scanner) (*patternTable, error) {
	p := patternParser{kind: kind}
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := p.parseLine(line); err != nil {
			return nil, wrap(path, line.Number, err)
		}
	}
	if n := len(p.open); n > 0 {
		return nil, wrap(path, p.rules[p.open[n-1]].line, &problem{"if without endif", "close it with a line: endif"})
	}
	return &patternTable{path: path, rules: p.rules}, nil
}

// problem is an error to which the caller adds path and line.
type problem struct{ what, fix string }

func (p *problem) Error() string { return p.what }

func wrap(path string, line int, err error) error {
	e := &mapfile.Error{Path: path, Line: line, What: err.Error()}
	if p := (*problem)(nil); errors.As(err, &p) {
		e.Fix = p.fix
	}
	return e
}

// patternParser collects rules. open has the positions of the ifs that have no endif
// yet.
type patternParser struct {
	kind  patternKind
	rules []patternRule
	open  []int
}

func (p *patternParser) parseLine(line mapfile.Line) error {
	text := strings.TrimRight(string(line.Text), mapfile.Space)
	if len(p.rules) >= MaxRules {
		return &problem{"too many rules", fmt.Sprintf("a table may have %d", MaxRules)}
	}
	if rest, ok := keyword(text, "if"); ok {
		return p.addIf(line.Number, rest)
	}
	if rest, ok := keyword(text, "endif"); ok {
		return p.addEndif(rest)
	}
	if isAlnum(text[0]) {
		return &problem{fmt.Sprintf("neither a pattern, if nor endif: %.40q", text), "write: /pattern/flags result"}
	}
	return p.addRule(line.Number, text)
}

func (p *patternParser) addIf(line int, text string) error {
	c, rest, err := p.condition(strings.TrimLeft(text, mapfile.Space))
	if err != nil {
		return err
	}
	if rest = strings.Trim(rest, mapfile.Space); rest != "" {
		return &problem{fmt.Sprintf("text after the pattern of an if: %.40q", rest), "remove it; the lines between if and endif must not begin with white space"}
	}
	if len(p.open) >= MaxNesting {
		return &problem{"if nested too deeply", fmt.Sprintf("%d levels are allowed", MaxNesting)}
	}
	p.open = append(p.open, len(p.rules))
	p.rules = append(p.rules, patternRule{line: line, conditions: []condition{c}, isIf: true})
	return nil
}

func (p *patternParser) addEndif(rest string) error {
	if strings.Trim(rest, mapfile.Space) != "" {
		return &problem{"text after endif", "remove it"}
	}
	n := len(p.open)
	if n == 0 {
		return &problem{"endif without if", "remove it"}
	}
	p.rules[p.open[n-1]].skip = len(p.rules)
	p.open = p.open[:n-1]
	return nil
}

func (p *patternParser) addRule(line int, text string) error {
	first, rest, err := p.condition(text)
	if err != nil {
		return err
	}
	conditions := []condition{first}
	if p.kind == posix && strings.HasPrefix(rest, "!") {
		second, after, err := p.condition(rest)
		if err != nil {
			return err
		}
		conditions, rest = append(conditions, second), after
	}
	result, err := parseResult(strings.TrimLeft(rest, mapfile.Space))
	if err != nil {
		return err
	}
	if err := result.fits(first); err != nil {
		return err
	}
	p.rules = append(p.rules, patternRule{line: line, conditions: conditions, result: result})
	return nil
}

// condition parses one "!/pattern/flags" and returns the text after it.
func (p *patternParser) condition(text string) (c condition, rest string, err error) {
	for text != "" && (text[0] == '!' || mapfile.IsSpace(text[0])) {
		c.negate = c.negate != (text[0] == '!')
		text = text[1:]
	}
	pattern, rest, err := delimited(text)
	if err != nil {
		return c, "", err
	}
	end := p.kind.flagsEnd(rest)
	c.re, err = compilePattern(p.kind, pattern, rest[:end])
	return c, rest[end:], err
}

// flagsEnd returns where the flags after a pattern end: at white space, and in a
// regexp: table at the "!" of a second pattern.
func (k patternKind) flagsEnd(rest string) int {
	stop := mapfile.Space
	if k == posix {
		stop += "!"
	}
	if end := strings.IndexAny(rest, stop); end >= 0 {
		return end
	}
	return len(rest)
}

// delimited returns the pattern of /pattern/ and the text after it.
func delimited(text string) (pattern, rest string, err error) {
	if text == "" {
		return "", "", &problem{"no pattern", "write: /pattern/flags result"}
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case text[0]:
			return text[1:i], text[i+1:], nil
		}
	}
	return "", "", &problem{fmt.Sprintf("no closing %q after the pattern", text[0]), "close the pattern"}
}

// keyword removes "if" or "endif" from the front, in upper or lower case, unless it is
// the beginning of a longer word.
func keyword(text, word string) (rest string, ok bool) {
	n := len(word)
	if len(text) < n || !strings.EqualFold(text[:n], word) || len(text) > n && isAlnum(text[n]) {
		return "", false
	}
	return text[n:], true
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
