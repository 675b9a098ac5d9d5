package sqlitestore

import (
	"errors"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
)

// A row of the journal is formatShort and a list of counters. Each is a word (0 for one
// that is gone, 1 for one of strangers and 2 for one of logins), its ID, and, unless it is
// gone, the last use and the data.
const (
	wordGone = iota
	wordStranger
	wordLogin
)

// formatShort is the first octet of a row. A row of the format that Postern wrote before
// begins with the length of an ID, which is not 0.
const formatShort = 0

// appendJournal appends a row with a batch to b.
func appendJournal(b []byte, batch *memstore.Batch) []byte {
	e := memstore.Encoder{B: append(b, formatShort)}
	for _, id := range batch.Gone {
		e.Uvarint(wordGone)
		e.ID(id)
	}
	for i := range batch.Rows {
		r := &batch.Rows[i]
		word := uint64(wordStranger)
		if r.Logins {
			word = wordLogin
		}
		e.Uvarint(word)
		e.ID(r.ID)
		e.Time(r.Last)
		e.Data(r.Data)
	}
	return e.B
}

var errJournal = errors.New("a row of the journal cannot be read")

// readJournal calls yield for each counter, the latest first. A counter that occurs
// twice was removed and created again. Data is nil for a counter that was removed.
func readJournal(b []byte, yield func(memstore.Row) error) error {
	d := memstore.Decoder{B: b}
	read := readLong
	if len(b) > 0 && b[0] == formatShort {
		d.B, read = b[1:], readShort
	}
	var rows []memstore.Row
	for len(d.B) > 0 {
		r, word := read(&d)
		if d.Err != nil || word > wordLogin {
			return errJournal
		}
		r.Logins = word == wordLogin
		rows = append(rows, r)
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if err := yield(rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func readShort(d *memstore.Decoder) (r memstore.Row, word uint64) {
	word = d.Uvarint()
	r.ID = d.ID()
	if word != wordGone {
		r.Window, r.Last, r.Data = limit.WindowOf(r.ID.String()), d.Time(), d.Data()
	}
	return r, word
}

// readLong reads a counter of the format before: its ID, the word, the window, the last
// use and the data.
func readLong(d *memstore.Decoder) (r memstore.Row, word uint64) {
	r.ID = limit.ParseID(d.Text())
	word = d.Uvarint()
	if word != wordGone {
		r.Window = time.Duration(d.Varint()) * time.Millisecond
		r.Last, r.Data = d.Varint(), d.Data()
	}
	return r, word
}
