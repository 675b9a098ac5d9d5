package sqlitestore

import (
	"time"

	"github.com/postern-mail/postern/internal/limit/memstore"
)

// ReadJournal reads a row of the journal.
func ReadJournal(b []byte) (rows []memstore.Row, err error) {
	err = readJournal(b, func(r memstore.Row) error {
		rows = append(rows, r)
		return nil
	})
	return rows, err
}

// AppendJournal writes a row of the journal.
var AppendJournal = appendJournal

// CheckTransactions reads a row of the table of transactions.
func CheckTransactions(b []byte) error {
	return memstore.New(memstore.Options{}).FillTransactions([][]byte{b}, time.Time{})[0]
}
