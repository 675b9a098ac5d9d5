package mark

import (
	"strings"
	"time"
)

// Find returns the genuine mark of a mail, and the index of its field among those of
// its name, from 1. Of several marks it returns the worst. It returns nil if there is
// none. header calls yield for each field.
//
// A clock that was set back must not make a bad verdict invalid. So of the marks that were
// made in the future, only those of proven mail do not count.
func (k *Keys) Find(header func(yield func(name, value string) bool), now time.Time) (found *Sealed, index int) {
	seen := 0
	header(func(name, value string) bool {
		if !strings.EqualFold(strings.TrimRight(name, " \t"), Field) {
			return true
		}
		seen++
		s, err := k.genuine(value, now)
		counts := err == nil && !(s.early(now) && s.Passed())
		if counts && (found == nil || s.Forged() && !found.Forged()) {
			found, index = s, seen
		}
		return seen < MaxMarks
	})
	return found, index
}
