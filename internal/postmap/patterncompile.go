package postmap

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// compilePattern compiles one pattern with its flags.
func compilePattern(kind patternKind, pattern, flags string) (*regexp.Regexp, error) {
	if len(pattern) > MaxPattern {
		return nil, &problem{"pattern is too long", fmt.Sprintf("a pattern may have %d octets", MaxPattern)}
	}
	if kind == pcre {
		return compilePCRE(pattern, flags)
	}
	return compilePOSIX(pattern, flags)
}

// compilePOSIX reads an extended regular expression. The defaults are those of
// regexp_table(5): ignore case, one line.
func compilePOSIX(pattern, flags string) (*regexp.Regexp, error) {
	mode := syntax.FoldCase | syntax.OneLine | syntax.ClassNL | syntax.DotNL
	for _, flag := range flags {
		switch flag {
		case 'i':
			mode ^= syntax.FoldCase
		case 'm':
			mode ^= syntax.OneLine | syntax.ClassNL | syntax.DotNL
		case 'x':
			return nil, &problem{"flag x asks for basic regular expressions, which are not supported", "write the pattern as an extended one without the flag"}
		default:
			return nil, unknownFlag(flag, "im")
		}
	}
	translated, err := translatePOSIX(pattern)
	if err != nil {
		return nil, err
	}
	re, err := buildRegexp(translated, mode)
	if err != nil {
		return nil, err
	}
	re.Longest()
	return re, nil
}

// compilePCRE reads a Perl-compatible expression. The defaults are those of
// pcre_table(5): ignore case, "." matches everything, one line. A key never has a
// line feed, so flag E has nothing to change.
func compilePCRE(pattern, flags string) (*regexp.Regexp, error) {
	mode := syntax.Perl | syntax.FoldCase | syntax.DotNL
	extended, anchored := false, false
	for _, flag := range flags {
		switch flag {
		case 'i':
			mode ^= syntax.FoldCase
		case 'm':
			mode ^= syntax.OneLine
		case 's':
			mode ^= syntax.DotNL
		case 'U':
			mode ^= syntax.NonGreedy
		case 'x':
			extended = !extended
		case 'A':
			anchored = !anchored
		case 'E', 'X':
		default:
			return nil, unknownFlag(flag, "imsxAEUX")
		}
	}
	if extended {
		pattern = dropBlanks(pattern)
	}
	if anchored {
		pattern = `\A(?:` + pattern + `)`
	}
	re, err := buildRegexp(pattern, mode)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, name := range re.SubexpNames() {
		if name != "" && names[name] {
			return nil, &problem{fmt.Sprintf("two groups have the name %.40q", name), "give them different names; Postfix skips such a rule"}
		}
		names[name] = true
	}
	return re, nil
}

func unknownFlag(flag rune, known string) error {
	return &problem{fmt.Sprintf("unknown flag %q after the pattern", flag), "the flags are: " + known}
}

func buildRegexp(pattern string, mode syntax.Flags) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(pattern, mode)
	if err == nil {
		var re *regexp.Regexp
		if re, err = regexp.Compile(tree.String()); err == nil {
			return re, nil
		}
	}
	return nil, &problem{
		"pattern not supported: " + strings.TrimPrefix(err.Error(), "error parsing regexp: "),
		"write it without back-references, look-around and possessive or atomic groups (Go's RE2 syntax)",
	}
}

// dropBlanks implements flag x: it removes white space and comments outside of
// classes. A logical line has no line feed, so a comment extends to the end.
func dropBlanks(pattern string) string {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			b.WriteString(pattern[i : i+2])
			i++
		case c == '[':
			end := classEnd(pattern, i)
			b.WriteString(pattern[i:end])
			i = end - 1
		case c == '#':
			return b.String()
		case !mapfile.IsSpace(c):
			b.WriteByte(c)
		}
	}
	return b.String()
}

// classEnd returns the index after the "]" of the class that begins at start.
func classEnd(pattern string, start int) int {
	i := start + 1
	if i < len(pattern) && pattern[i] == '^' {
		i++
	}
	for first := i; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\':
			i++
		case c == '[' && strings.HasPrefix(pattern[i:], "[:"):
			if end := strings.Index(pattern[i:], ":]"); end > 0 {
				i += end + 1
			}
		case c == ']' && i > first:
			return i + 1
		}
	}
	return len(pattern)
}
