package verify

import (
	"slices"

	"github.com/postern-mail/postern/milter/authres"
)

// resultsField is the name of the field that carries results (RFC 8601).
const resultsField = "Authentication-Results"

// Position is one header field: the Index-th of its name, from 1.
type Position struct {
	Name  string
	Index int
}

// forged lists the fields that claim to be ours, those of a name from the highest
// index to the lowest: in this order, none that is removed shifts another (RFC
// 8601 section 5). Results of other servers stay; our mark is nobody else's.
func forged(fields []Field, authservID string) []Position {
	var found []Position
	results, marks := 0, 0
	for _, f := range fields {
		switch {
		case f.Is(resultsField):
			results++
			if authres.Claims(f.Value, authservID) {
				found = append(found, Position{resultsField, results})
			}
		case f.Is(QuarantineField):
			marks++
			found = append(found, Position{QuarantineField, marks})
		}
	}
	slices.Reverse(found)
	return found
}
