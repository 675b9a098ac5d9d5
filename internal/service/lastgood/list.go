package lastgood

import (
	"strings"

	"github.com/postern-mail/postern/internal/service"
)

// Counted is a list that knows how many entries it has.
type Counted interface{ Len() int }

// listKey identifies an allow list by its flag and its files.
type listKey struct{ flag, files string }

// List reads the allow list of a flag, which may be in several files. The caller has
// them watched.
func List[T Counted](l *service.Life, r service.Runtime, flag string, files []string, read func() (T, error)) (T, error) {
	return Keep(l, r, listKey{flag, strings.Join(files, "\x00")}, Reader[T]{
		Name:  strings.Join(append([]string{flag}, files...), " "),
		Open:  read,
		Files: func(T) []string { return files },
		Len:   func(list T) int { return list.Len() },
	})
}
