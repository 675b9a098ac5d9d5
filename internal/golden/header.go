package golden

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds on the size of a header.
const (
	maxHeader = 4 << 20 // octets
	maxFields = 10_000
)

// ErrTooLarge is returned by Header if a header exceeds the bounds.
var ErrTooLarge = errors.New("header too large")

// Header reads the header of a message and the empty line after it. The body remains in
// r. Lines may end in CRLF or LF. A message that ends inside the header has no body,
// which is not an error. A line that is neither a field nor a continuation line is an
// error.
func Header[F ~struct{ Name, Value string }](r *bufio.Reader) ([]F, error) {
	var fields []struct{ Name, Value string }
	size := 0
	for {
		line, err := r.ReadString('\n')
		if err != nil && err != io.EOF {
			return nil, err
		}
		if size += len(line); size > maxHeader {
			return nil, ErrTooLarge
		}
		text := strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		name, value, isField := strings.Cut(text, ":")
		switch continues := strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t"); {
		case text == "":
			var out []F
			for _, f := range fields {
				out = append(out, F(f))
			}
			return out, nil
		case continues && len(fields) == 0:
			return nil, errors.New("header begins with a continuation line")
		case continues:
			fields[len(fields)-1].Value += "\r\n" + text
		case !isField:
			return nil, fmt.Errorf("header line %d has no colon", len(fields)+1)
		case len(fields) == maxFields:
			return nil, ErrTooLarge
		default:
			fields = append(fields, struct{ Name, Value string }{name, value})
		}
	}
}
