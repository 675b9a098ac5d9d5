package spftest

import (
	"fmt"
	"strconv"
	"strings"
)

// node is a value of the YAML subset that the suite uses.
type node struct {
	scalar string
	items  []*node
	pairs  []pair
}

type pair struct {
	key   string
	value *node
}

func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// strings returns the list, or a scalar as a list of one.
func (n *node) strings() []string {
	if n.items == nil {
		return []string{n.scalar}
	}
	out := []string{}
	for _, i := range n.items {
		out = append(out, i.scalar)
	}
	return out
}

// yamlLines holds the lines that are still to be parsed. The subset: block mappings
// and lists by indentation, one-entry mappings as list items, flow lists on one
// line, block scalars (kept as one line: only descriptions use them), plain and
// quoted scalars on one line.
type yamlLines struct {
	lines []string
	err   error // the first line that could not be read
}

func parseYAML(doc string) (*node, error) {
	y := &yamlLines{}
	for line := range strings.SplitSeq(doc, "\n") {
		if s := strings.TrimSpace(line); s != "" && s[0] != '#' && s != "---" {
			y.lines = append(y.lines, strings.TrimRight(line, " "))
		}
	}
	n := y.block(0)
	return n, y.err
}

func (y *yamlLines) fail(what, text string) {
	if y.err == nil {
		y.err = fmt.Errorf("%s %q", what, text)
	}
}

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// block parses the lines that are indented by at least n.
func (y *yamlLines) block(n int) *node {
	out := &node{}
	for len(y.lines) > 0 && indent(y.lines[0]) >= n {
		depth, line := indent(y.lines[0]), strings.TrimSpace(y.lines[0])
		y.lines = y.lines[1:]
		if item, ok := strings.CutPrefix(line, "- "); ok {
			key, rest := y.splitKey(item)
			out.items = append(out.items, &node{pairs: []pair{{key, y.flow(rest)}}})
			continue
		}
		key, rest := y.splitKey(line)
		value := &node{}
		switch {
		case rest == "" && len(y.lines) > 0 && indent(y.lines[0]) > depth:
			value = y.block(depth + 1)
		case rest != "" && rest[0] != '>' && rest[0] != '|':
			value = y.flow(rest)
			y.skipDeeper(depth)
		default:
			y.skipDeeper(depth)
		}
		out.pairs = append(out.pairs, pair{key, value})
	}
	return out
}

// skipDeeper drops the lines of a block scalar, or the further lines of a
// description.
func (y *yamlLines) skipDeeper(depth int) {
	for len(y.lines) > 0 && indent(y.lines[0]) > depth {
		y.lines = y.lines[1:]
	}
}

// splitKey cuts "key: value" or "key:".
func (y *yamlLines) splitKey(s string) (key, rest string) {
	if s[0] == '"' {
		end := strings.IndexByte(s[1:], '"') + 1
		return s[1:end], strings.TrimSpace(strings.TrimPrefix(s[end+1:], ":"))
	}
	if key, rest, ok := strings.Cut(s, ": "); ok {
		return key, strings.TrimSpace(rest)
	}
	key, ok := strings.CutSuffix(s, ":")
	if !ok {
		y.fail("no key in", s)
	}
	return key, ""
}

func (y *yamlLines) flow(s string) *node {
	inner, ok := strings.CutPrefix(s, "[")
	if !ok {
		return &node{scalar: y.unquote(s)}
	}
	out := &node{items: []*node{}}
	inner = strings.TrimSpace(strings.TrimSuffix(inner, "]"))
	for inner != "" {
		end := strings.IndexByte(inner, ',')
		if q := inner[0]; q == '"' || q == '\'' {
			end = strings.IndexByte(inner[1:], q) + 2
			if end == len(inner) {
				end = -1
			}
		}
		if end < 0 {
			end = len(inner)
		}
		out.items = append(out.items, &node{scalar: y.unquote(strings.TrimSpace(inner[:end]))})
		inner = strings.TrimSpace(strings.TrimPrefix(inner[end:], ","))
	}
	return out
}

// unquote reads a scalar. \x80 is the raw byte, as in DNS.
func (y *yamlLines) unquote(s string) string {
	switch {
	case s == "" || s[0] != '"' && s[0] != '\'':
		return s
	case s[0] == '\'':
		return strings.Trim(s, "'")
	}
	out, err := strconv.Unquote(strings.ReplaceAll(s, `\0`, `\x00`))
	if err != nil {
		y.fail("scalar", s)
	}
	return out
}
