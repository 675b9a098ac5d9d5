// Package mapspec answers: what stands between the braces of a table's name?
//
// Tables that have no file carry their contents in their name: inline:{a=b, {c =
// d e}}, static:{two words}, unionmap:{hash:/x, hash:/y}. Lists are separated by
// commas or white space outside of braces; braces nest.
package mapspec

import (
	"errors"
	"fmt"
	"strings"
)

// MaxLength is the longest name of a table, in octets.
const MaxLength = 64 << 10

const separators = ", \t\n\v\f\r"

// Inner gives what stands between the braces that enclose text, without the
// white space at both ends.
func Inner(text string) (string, error) {
	if len(text) > MaxLength {
		return "", fmt.Errorf("longer than %d octets; keep the table in a file", MaxLength)
	}
	if !strings.HasPrefix(text, "{") {
		return "", errors.New(`no "{" at the beginning`)
	}
	end := balanced(text)
	if end < 0 {
		return "", errors.New(`missing "}"`)
	}
	if end != len(text) {
		return "", fmt.Errorf("text %q after the closing brace", text[end:])
	}
	return strings.Trim(text[1:end-1], separators[1:]), nil
}

// Fields splits a list. Unbalanced braces are an error.
func Fields(list string) ([]string, error) {
	var fields []string
	for {
		list = strings.TrimLeft(list, separators)
		if list == "" {
			return fields, nil
		}
		end, err := fieldEnd(list)
		if err != nil {
			return nil, err
		}
		fields = append(fields, list[:end])
		list = list[end:]
	}
}

func fieldEnd(list string) (int, error) {
	depth := 0
	for i := range len(list) {
		switch c := list[i]; {
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			return 0, errors.New(`"}" without "{"`)
		case c == '}':
			depth--
		case depth == 0 && strings.IndexByte(separators, c) >= 0:
			return i, nil
		}
	}
	if depth > 0 {
		return 0, errors.New(`missing "}"`)
	}
	return len(list), nil
}

// balanced gives the index after the brace that closes text's first one, or -1.
func balanced(text string) int {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}
