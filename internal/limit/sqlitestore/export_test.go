package sqlitestore

import (
	"time"

	"github.com/postern-mail/postern/internal/limit/memstore"
)

// CheckJournal reads a row of the journal.
func CheckJournal(b []byte) error { return readJournal(b, func(memstore.Row) error { return nil }) }

// CheckTransactions reads a row of the table of transactions.
func CheckTransactions(b []byte) error {
	return memstore.New(memstore.Options{}).FillTransactions([][]byte{b}, time.Time{})
}
