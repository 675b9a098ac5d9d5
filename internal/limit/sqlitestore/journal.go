package sqlitestore

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/postern-mail/postern/internal/limit/memstore"
)

// A row of the journal is a list of counters: the length of the ID and the ID, a word
// that is 0 for one that is gone, 1 for one of strangers and 2 for one of logins, and
// then, unless it is gone, window, last use, and the length of the data and the data.
const (
	wordGone = iota
	wordStranger
	wordLogin
)

func appendJournal(b []byte, batch *memstore.Batch) []byte {
	for _, id := range batch.Gone {
		b = binary.AppendUvarint(appendText(b, id), wordGone)
	}
	for i := range batch.Rows {
		r := &batch.Rows[i]
		word := uint64(wordStranger)
		if r.Logins {
			word = wordLogin
		}
		b = binary.AppendUvarint(appendText(b, r.ID), word)
		b = binary.AppendVarint(b, r.Window.Milliseconds())
		b = binary.AppendVarint(b, r.Last)
		b = appendText(b, r.Data)
	}
	return b
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

var errJournal = errors.New("a row of the journal cannot be read")

// readJournal calls yield for each counter, the latest first. A counter that occurs
// twice was removed and created again. Data is nil for a counter that was removed.
func readJournal(b []byte, yield func(memstore.Row) error) error {
	var rows []memstore.Row
	for len(b) > 0 {
		var r memstore.Row
		var ok bool
		if r, b, ok = readEntry(b); !ok {
			return errJournal
		}
		rows = append(rows, r)
	}
	for i := len(rows) - 1; i >= 0; i-- {
		if err := yield(rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func readEntry(b []byte) (r memstore.Row, rest []byte, ok bool) {
	id, b, ok := cutText(b)
	if !ok {
		return r, nil, false
	}
	r.ID = string(id)
	word, n := binary.Uvarint(b)
	if n <= 0 || word > wordLogin {
		return r, nil, false
	}
	b = b[n:]
	if word == wordGone {
		return r, b, true
	}
	r.Logins = word == wordLogin
	window, n := binary.Varint(b)
	if n <= 0 {
		return r, nil, false
	}
	b = b[n:]
	if r.Last, n = binary.Varint(b); n <= 0 {
		return r, nil, false
	}
	r.Window = time.Duration(window) * time.Millisecond
	data, b, ok := cutText(b[n:])
	r.Data = append([]byte{}, data...)
	return r, b, ok
}

func cutText(b []byte) (text, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}
