package verify

import (
	"github.com/postern-mail/postern/milter/authres"
)

// resultsField is the name of the field that carries results (RFC 8601).
const resultsField = "Authentication-Results"

// Position is one header field: the Index-th of its name, from 1.
type Position struct {
	Name  string
	Index int
}

// forged lists the fields that claim to be ours, from the highest index to the
// lowest: in this order, none that is removed shifts another (RFC 8601 section
// 5). Those of other servers stay.
func forged(fields []Field, authservID string) []Position {
	var found []Position
	index := 0
	for _, f := range fields {
		if !f.Is(resultsField) {
			continue
		}
		index++
		if authres.Claims(f.Value, authservID) {
			found = append([]Position{{resultsField, index}}, found...)
		}
	}
	return found
}
