package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/postern-mail/postern/internal/record"
)

// Bounds of an answer with records.
const (
	maxRecords  = 200
	recordsRoom = 1 << 20 // octets; one more record may exceed it
)

// Records are the newest records that a filter accepts.
type Records struct {
	Run     string            `json:"run"`
	Next    uint64            `json:"next"` // the number of the newest record, accepted or not
	Lost    uint64            `json:"lost,omitempty"`
	Records []json.RawMessage `json:"records"` // the oldest first
}

// want describes the records of a request.
type want struct {
	run     string
	after   uint64
	filter  filter
	privacy bool
}

// parseWant parses a request: the filter, and the number after which records are
// asked for. The number is from an earlier answer of the same run.
func parseWant(q url.Values) (want, error) {
	w := want{run: q.Get("run"), privacy: q.Get("privacy") == "1"}
	if text := q.Get("after"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return w, fmt.Errorf("after is %.40q; write the number that an answer had as next", text)
		}
		w.after = n
	}
	var err error
	w.filter, err = parseFilter(q)
	return w, err
}

// query returns the query for a peer.
func (w want) query() url.Values {
	q := w.filter.query()
	q.Set("run", w.run)
	q.Set("after", strconv.FormatUint(w.after, 10))
	if w.privacy {
		q.Set("privacy", "1")
	}
	return q
}

// records returns the records of this daemon. With privacy the filter only
// searches what is shown. Otherwise a filter could find out what is hidden.
func (s *Server) records(w want) Records {
	after := w.after
	if w.run != s.o.Run {
		after = 0
	}
	private := w.privacy || s.o.Privacy
	found := s.o.Records.Match(after, maxRecords, recordsRoom, func(r *record.Record) bool {
		if !w.filter.labels(r) {
			return false
		}
		if private {
			hide(r)
		}
		return w.filter.texts(r)
	})
	out := Records{Run: s.o.Run, Next: found.Next, Lost: found.Lost, Records: make([]json.RawMessage, len(found.Lines))}
	for i, line := range found.Lines {
		out.Records[i] = line
	}
	return out
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "the answer cannot be written as JSON")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client may be gone; nothing to do then
}
