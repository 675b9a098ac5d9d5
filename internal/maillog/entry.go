// Package maillog reads the records of both daemons. It finds them in the lines of a
// log, sorts them by time, joins the records of one mail, filters and counts them.
//
// The data passes through these files: entry.go finds a record in a line, source.go
// reads a file, order.go merges several files by time, mail.go joins records, filter.go
// filters them, and summary.go counts. tail.go follows a file that grows.
//
// Logs contain text from strangers. Invariants:
//
//   - Lines, mails that are being joined, and names that are counted are bounded,
//     whatever a log holds.
//   - Lines without a record are skipped and counted.
package maillog

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/postern-mail/postern/internal/record"
)

// Entry is one record.
type Entry struct {
	Time          time.Time `json:"ts"`
	Level         string    `json:"level"`
	Message       string    `json:"msg"`
	Daemon        string    `json:"daemon"`
	Check         string    `json:"check"`
	Verdict       string    `json:"verdict"`
	Reason        string    `json:"reason"`
	Action        string    `json:"action"`
	Mode          string    `json:"mode"`
	Peer          string    `json:"peer"`
	Instance      string    `json:"instance"`
	QueueID       string    `json:"queue_id"`
	ClientAddress string    `json:"client_address"`
	ClientPort    string    `json:"client_port"`
	ClientName    string    `json:"client_name"`
	Helo          string    `json:"helo"`
	Sender        string    `json:"sender"`
	Recipient     string    `json:"recipient"`
	SASLUsername  string    `json:"sasl_username"`
	MessageID     string    `json:"message_id"`
	Whose         string    `json:"whose"`
	From          string    `json:"from"`
	SPF           string    `json:"spf"`
	DKIM          string    `json:"dkim"`
	ARC           string    `json:"arc"`
	DMARC         string    `json:"dmarc"`
	Disposition   string    `json:"disposition"`
	SignedBy      string    `json:"signed_by"`
	Millis        float64   `json:"duration_ms"`
	Steps         []Step    `json:"steps"`
	Error         string    `json:"error"`

	Line json.RawMessage `json:"-"` // the record itself, with every key
}

// Step is one element of a record's steps.
type Step struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Mode    string `json:"mode"`
	Detail  string `json:"detail"`
	Error   string `json:"error"`
}

// Received returns when the last octet of the request arrived.
func (e *Entry) Received() time.Time {
	return e.Time.Add(-time.Duration(e.Millis * float64(time.Millisecond)))
}

// Step returns the step of a check, or nil if the check was not asked.
func (e *Entry) Step(check string) *Step {
	for i := range e.Steps {
		if e.Steps[i].Check == check {
			return &e.Steps[i]
		}
	}
	return nil
}

// Watched returns the step of the first check in the shadow that objected, or nil. It is
// nil if the record itself is about what was only watched.
func (e *Entry) Watched() *Step {
	if e.Mode == record.ModeShadow {
		return nil
	}
	for i := range e.Steps {
		if s := &e.Steps[i]; s.Mode == record.ModeShadow && s.Verdict != "pass" {
			return s
		}
	}
	return nil
}

// wrapped is a line of a program that puts the lines of other programs into JSON:
// journalctl -o json, the log files of containers, or log shippers.
type wrapped struct {
	Journal string `json:"MESSAGE"`
	Log     string `json:"log"`
	Text    string `json:"message"`
}

var decision = []byte(record.Message)

// Parse finds the record in a line of a log. It skips text before the first brace, such
// as a syslog timestamp or the name of a container. It returns nil if there is no record
// in the line.
func Parse(line []byte) *Entry {
	if !bytes.Contains(line, decision) {
		return nil
	}
	if e := parse(line); e != nil {
		return e
	}
	at := bytes.IndexByte(line, '{')
	var w wrapped
	if at < 0 || json.Unmarshal(line[at:], &w) != nil {
		return nil
	}
	for _, inner := range []string{w.Journal, w.Log, w.Text} {
		if e := parse([]byte(inner)); e != nil {
			return e
		}
	}
	return nil
}

func parse(line []byte) *Entry {
	at := bytes.IndexByte(line, '{')
	if at < 0 {
		return nil
	}
	object := bytes.TrimRight(line[at:], " \t\r\n")
	e := new(Entry)
	if json.Unmarshal(object, e) != nil || e.Message != record.Message || e.Daemon == "" {
		return nil
	}
	e.Line = bytes.Clone(object)
	return e
}
