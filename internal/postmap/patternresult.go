package postmap

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// resultTemplate is a result with places for submatches.
type resultTemplate struct {
	parts []resultPart
	max   int // the highest submatch
}

// resultPart is literal text, or a submatch if group is not 0.
type resultPart struct {
	text  string
	group int
}

// parseResult reads a result: $n, ${n}, $(n) and $$.
func parseResult(text string) (resultTemplate, error) {
	if text == "" {
		return resultTemplate{}, &problem{"no result after the pattern", "write: /pattern/flags result"}
	}
	var t resultTemplate
	for text != "" {
		dollar := strings.IndexByte(text, '$')
		if dollar < 0 {
			t.literal(text)
			break
		}
		t.literal(text[:dollar])
		rest, err := t.reference(text[dollar+1:])
		if err != nil {
			return resultTemplate{}, err
		}
		text = rest
	}
	return t, nil
}

func (t *resultTemplate) literal(text string) {
	if text != "" {
		t.parts = append(t.parts, resultPart{text: text})
	}
}

// reference reads what follows a dollar.
func (t *resultTemplate) reference(text string) (rest string, err error) {
	if strings.HasPrefix(text, "$") {
		t.literal("$")
		return text[1:], nil
	}
	name, rest, err := referenceName(text)
	if err != nil {
		return "", err
	}
	group, err := strconv.Atoi(name)
	if err != nil || group < 1 || name[0] == '+' {
		return "", &problem{"$" + name + " in the result is no number of a submatch", "write $1, ${1}, or $$ for a dollar"}
	}
	t.parts = append(t.parts, resultPart{group: group})
	t.max = max(t.max, group)
	return rest, nil
}

func referenceName(text string) (name, rest string, err error) {
	closing := ""
	switch {
	case strings.HasPrefix(text, "{"):
		closing = "}"
	case strings.HasPrefix(text, "("):
		closing = ")"
	default:
		end := 0
		for end < len(text) && (isAlnum(text[end]) || text[end] == '_') {
			end++
		}
		return text[:end], text[end:], nil
	}
	name, rest, ok := strings.Cut(text[1:], closing)
	if !ok {
		return "", "", &problem{"$" + text[:1] + " in the result is not closed", "write ${1}, or $$ for a dollar"}
	}
	return name, rest, nil
}

// fits checks the template against the pattern it belongs to.
func (t *resultTemplate) fits(c condition) error {
	switch {
	case t.max == 0:
		return nil
	case c.negate:
		return &problem{"$" + strconv.Itoa(t.max) + " in the result of a negated pattern", "a pattern that does not match has no submatches"}
	case t.max > c.re.NumSubexp():
		return &problem{"$" + strconv.Itoa(t.max) + " in the result, but the pattern has fewer groups", "count the parentheses of the pattern"}
	}
	return nil
}

// expand fills the template. An empty result is an error, because it could be
// understood as "not listed".
func (t *resultTemplate) expand(re *regexp.Regexp, key string) (string, error) {
	if len(t.parts) == 1 && t.max == 0 {
		return t.parts[0].text, nil
	}
	var at []int
	if t.max > 0 {
		at = re.FindStringSubmatchIndex(key)
	}
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		if p.group > 0 && at[2*p.group] >= 0 {
			b.WriteString(key[at[2*p.group]:at[2*p.group+1]])
		}
		if b.Len() > MaxResult {
			return "", errors.New("the result is too long")
		}
	}
	if b.Len() == 0 {
		return "", errors.New("the result is empty")
	}
	return b.String(), nil
}
