package postmap

import (
	"fmt"
	"regexp"
	"strings"
)

// translatePOSIX translates a POSIX extended expression, with glibc's additions that
// Postfix's users know, to Go's syntax. Groups, anchors, alternation and repetition
// are the same in both; escapes, bracket expressions and the bound {,n} are not. What
// glibc refuses is an error, because Postfix skips such a rule.
func translatePOSIX(pattern string) (string, error) {
	var b strings.Builder
	repeatable := false // the part before can be repeated
	for i := 0; i < len(pattern); {
		if !repeatable && strings.IndexByte("*+?{", pattern[i]) >= 0 {
			return "", &problem{fmt.Sprintf("nothing that %q could repeat is before it", pattern[i]), fmt.Sprintf(`write \%c for the character`, pattern[i])}
		}
		repeatable = strings.IndexByte("(|^$", pattern[i]) < 0
		part, end, err := posixPart(pattern, i)
		if err != nil {
			return "", err
		}
		b.WriteString(part)
		i = end
	}
	return b.String(), nil
}

// posixBound is a bound with its braces. The first number may be missing.
var posixBound = regexp.MustCompile(`^\{([0-9]+|[0-9]*,[0-9]*)\}`)

// posixPart translates the part that begins at i, and returns where the next begins.
func posixPart(pattern string, i int) (part string, end int, err error) {
	switch {
	case pattern[i] == '\\':
		part, err = posixEscape(pattern[i:])
		return part, i + 2, err
	case pattern[i] == '[':
		return posixBracket(pattern, i)
	case pattern[i] == '{' && !posixBound.MatchString(pattern[i:]):
		return "", 0, &problem{`"{" begins no bound such as {2} or {1,3}`, `write \{ for a brace`}
	case strings.HasPrefix(pattern[i:], "{,"):
		return "{0,", i + 2, nil
	case strings.HasPrefix(pattern[i:], "(?"):
		return "", 0, &problem{`"(?" is not POSIX`, "use a pcre: table for Perl's syntax"}
	}
	return pattern[i : i+1], i + 1, nil
}

// posixEscape translates a backslash and the octet after it.
func posixEscape(text string) (string, error) {
	if len(text) < 2 {
		return "", &problem{"trailing backslash", `write \\ for a backslash`}
	}
	switch c := text[1]; {
	case c == 'w':
		return "[[:alnum:]_]", nil
	case c == 'W':
		return "[^[:alnum:]_]", nil
	case c == 's':
		return "[[:space:]]", nil
	case c == 'S':
		return "[^[:space:]]", nil
	case isAlnum(c):
		return "", &problem{fmt.Sprintf(`\%c is not POSIX`, c), `write a class such as [0-9] for \d, or use a pcre: table`}
	case strings.IndexByte("<>`'", c) >= 0:
		return "", &problem{fmt.Sprintf(`\%c is not supported`, c), "anchor the pattern with ^ and $"}
	}
	return text[:2], nil
}

// posixBracket translates a bracket expression, in which a backslash is an
// ordinary character (POSIX.1 section 9.3.5).
func posixBracket(pattern string, start int) (string, int, error) {
	var b strings.Builder
	b.WriteByte('[')
	i := start + 1
	if i < len(pattern) && pattern[i] == '^' {
		b.WriteByte('^')
		i++
	}
	for first := i; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == ']' && i > first:
			b.WriteByte(']')
			return b.String(), i + 1, nil
		case c == '\\' || c == ']':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '[':
			class, length, err := posixClass(pattern[i:])
			if err != nil {
				return "", 0, err
			}
			b.WriteString(class)
			i += length - 1
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, &problem{`"[" is not closed`, `close the class, or write \[`}
}

// posixClass translates a part that begins with "[" inside a bracket expression: a
// class such as [:alpha:], or the bracket itself. It returns the length of the part.
func posixClass(text string) (class string, length int, err error) {
	if strings.HasPrefix(text, "[.") || strings.HasPrefix(text, "[=") {
		return "", 0, &problem{"collating symbols and equivalence classes are not supported", "list the characters"}
	}
	if !strings.HasPrefix(text, "[:") {
		return `\[`, 1, nil
	}
	end := strings.Index(text, ":]")
	if end < 0 {
		return "", 0, &problem{`"[:" is not closed`, "write a class such as [:alpha:]"}
	}
	return text[:end+2], end + 2, nil
}
