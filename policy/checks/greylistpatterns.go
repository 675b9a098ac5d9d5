package checks

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// maxPatterns is how many regular expressions one list may have.
const maxPatterns = 4096

// patterns are regular expressions that match anywhere, ignoring case.
type patterns []pattern

// pattern is a regular expression, with a text that every match contains.
// Searching for the text first makes postgrey's own list five times as fast
// (BenchmarkPatterns).
type pattern struct {
	expression *regexp.Regexp
	part       string // US-ASCII in lower case; "" if there is none
}

var (
	errPatterns = fmt.Errorf("more than %d regular expressions", maxPatterns)
	errPerl     = errors.New("a regular expression without look-around and back-references is expected")
)

// addPattern adds an entry if it is a pattern; ok is false if it is not.
func (p *patterns) addPattern(entry string) (ok bool, err error) {
	if len(entry) < 3 || entry[0] != '/' || entry[len(entry)-1] != '/' {
		return false, nil
	}
	if len(*p) == maxPatterns {
		return true, errPatterns
	}
	text := "(?i)" + entry[1:len(entry)-1]
	expression, err := regexp.Compile(text)
	if err != nil {
		return true, errors.Join(errPerl, err)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return true, errors.Join(errPerl, err)
	}
	*p = append(*p, pattern{expression, longestPart(parsed)})
	return true, nil
}

func (p patterns) match(s string) bool {
	if len(p) == 0 {
		return false
	}
	// Other scripts have letters that match US-ASCII letters when case is
	// ignored, such as the Kelvin sign.
	ascii := isASCII(s)
	lower := strings.ToLower(s)
	for _, one := range p {
		if ascii && !strings.Contains(lower, one.part) {
			continue
		}
		if one.expression.MatchString(s) {
			return true
		}
	}
	return false
}

// longestPart returns the longest text that every match of an expression
// contains. It looks at consecutive literals that are neither repeated nor
// alternatives.
func longestPart(e *syntax.Regexp) string {
	var longest, run string
	end := func() {
		if len(run) > len(longest) {
			longest = run
		}
		run = ""
	}
	for _, sub := range inRow(e) {
		if text := strings.ToLower(string(sub.Rune)); sub.Op == syntax.OpLiteral && isASCII(text) {
			run += text
		} else {
			end()
		}
	}
	end()
	return longest
}

// inRow returns the consecutive expressions that e consists of.
func inRow(e *syntax.Regexp) []*syntax.Regexp {
	switch e.Op {
	case syntax.OpConcat:
		var all []*syntax.Regexp
		for _, sub := range e.Sub {
			all = append(all, inRow(sub)...)
		}
		return all
	case syntax.OpCapture:
		return inRow(e.Sub[0])
	}
	return []*syntax.Regexp{e}
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}
