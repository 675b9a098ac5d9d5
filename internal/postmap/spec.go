// Names of tables with braces.
//
// A table without a file has its content in its name: inline:{a=b, {c = d e}},
// static:{two words}, unionmap:{hash:/x, hash:/y}. The items of a list are separated
// by commas or white space outside of braces; braces nest.

package postmap

import (
	"errors"
	"fmt"
	"strings"
)

// MaxSpec is the longest name of a table, in octets.
const MaxSpec = 64 << 10

const specSeparators = ", \t\n\v\f\r"

// specInner returns the text between the enclosing braces, without the white space at
// both ends.
func specInner(text string) (string, error) {
	if len(text) > MaxSpec {
		return "", fmt.Errorf("longer than %d octets; keep the table in a file", MaxSpec)
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
	return strings.Trim(text[1:end-1], specSeparators[1:]), nil
}

// specFields splits a list. Unbalanced braces are an error.
func specFields(list string) ([]string, error) {
	var fields []string
	for {
		list = strings.TrimLeft(list, specSeparators)
		if list == "" {
			return fields, nil
		}
		end, err := specFieldEnd(list)
		if err != nil {
			return nil, err
		}
		fields = append(fields, list[:end])
		list = list[end:]
	}
}

func specFieldEnd(list string) (int, error) {
	depth := 0
	for i := range len(list) {
		switch c := list[i]; {
		case c == '{':
			depth++
		case c == '}' && depth == 0:
			return 0, errors.New(`"}" without "{"`)
		case c == '}':
			depth--
		case depth == 0 && strings.IndexByte(specSeparators, c) >= 0:
			return i, nil
		}
	}
	if depth > 0 {
		return 0, errors.New(`missing "}"`)
	}
	return len(list), nil
}

// balanced returns the index after the brace that closes text's first one, or -1.
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
