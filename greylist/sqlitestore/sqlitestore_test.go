package sqlitestore_test

import (
	"path/filepath"
	"testing"

	"github.com/postern-mail/postern/greylist/sqlitestore"
	"github.com/postern-mail/postern/greylist/storetest"
)

func open(t *testing.T, o sqlitestore.Options) *sqlitestore.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = filepath.Join(t.TempDir(), "greylist.db")
	}
	s, err := sqlitestore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		s := open(t, sqlitestore.Options{})
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	})
}
