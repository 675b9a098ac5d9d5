package maillog

import (
	"iter"
	"slices"
	"strings"
	"time"
)

const (
	// patience is how long after its last record a mail may get another one. A client
	// may take this long from the recipients to the end of the message.
	patience = 15 * time.Minute
	// afterlife is the same time after the record of the message.
	afterlife = 5 * time.Second
	// maxOpen bounds the mails that wait for more records.
	maxOpen = 20_000
	// maxOfMail bounds the records of one mail, maxRecipients its recipients.
	maxOfMail     = 10_000
	maxRecipients = 1000
)

// Mail has the records of both daemons for one mail, in the order of time.
type Mail struct {
	Entries    []*Entry
	QueueID    string // "" while it is unknown
	Recipients []string

	instance string
	judged   bool // there is a record of the message
	closed   bool
}

// First returns the oldest record.
func (m *Mail) First() *Entry { return m.Entries[0] }

// Last returns the time of the latest record.
func (m *Mail) Last() time.Time { return m.Entries[len(m.Entries)-1].Time }

// Text returns the first text that a record of the mail has.
func (m *Mail) Text(of func(*Entry) string) string {
	for _, e := range m.Entries {
		if text := of(e); text != "" {
			return text
		}
	}
	return ""
}

func (m *Mail) addEntry(e *Entry) {
	if len(m.Entries) < maxOfMail {
		m.Entries = append(m.Entries, e)
	}
	if m.QueueID == "" {
		m.QueueID = e.QueueID
	}
	if m.instance == "" {
		m.instance = e.Instance
	}
	if e.Recipient != "" && len(m.Recipients) < maxRecipients && !slices.Contains(m.Recipients, e.Recipient) {
		m.Recipients = append(m.Recipients, e.Recipient)
	}
	m.judged = m.judged || e.judgesMessage()
}

const milterd = "milterd"

// judgesMessage reports whether the record is about a message, as opposed to one of its
// recipients or a connection.
func (e *Entry) judgesMessage() bool {
	ofRecipient := (e.Verdict == "reject" || e.Verdict == "defer") && e.MessageID == "" && e.From == "" && e.DKIM == ""
	return e.Daemon == milterd && e.Check != "" && !ofRecipient
}

// Joiner joins the records of each mail. It takes them in the order of time.
//
// Records of policyd for one mail have the same instance. They have the queue id only
// from the second recipient on. Records of milterd have only the queue id. Both have the
// client's address and port and the sender. A session may send several mails from the
// same sender, so the record of a message ends a mail.
type Joiner struct {
	open       []*Mail // in the order of their first records
	byInstance map[string]*Mail
	byQueue    map[string]*Mail
	latest     map[string]*Mail // of a client and sender
}

// NewJoiner returns a joiner without mails.
func NewJoiner() *Joiner {
	return &Joiner{byInstance: map[string]*Mail{}, byQueue: map[string]*Mail{}, latest: map[string]*Mail{}}
}

// Add adds a record to the mail to which it belongs, and returns the mail.
func (j *Joiner) Add(e *Entry) *Mail {
	m := j.find(e)
	if m == nil {
		m = new(Mail)
		j.open = append(j.open, m)
	}
	m.addEntry(e)
	j.index(m, e)
	return m
}

func (j *Joiner) find(e *Entry) *Mail {
	client := e.client()
	if e.Instance != "" {
		if m := j.byInstance[client+" "+e.Instance]; m.takes(e) {
			return m
		}
	}
	if e.QueueID != "" {
		if m := j.byQueue[client+" "+e.QueueID]; m.takes(e) {
			return m
		}
	}
	m := j.latest[client+" "+e.sender()]
	switch {
	case e.ClientAddress == "" || !m.takes(e) || m.judged:
		return nil
	case e.Instance != "" && m.instance != "" && m.instance != e.Instance:
		return nil
	case e.QueueID != "" && m.QueueID != "" && m.QueueID != e.QueueID:
		return nil
	}
	return m
}

// takes reports whether a mail may get a record now.
func (m *Mail) takes(e *Entry) bool {
	return m != nil && !m.closed && e.Time.Sub(m.Last()) <= patience
}

func (j *Joiner) index(m *Mail, e *Entry) {
	client := e.client()
	if e.Instance != "" {
		j.byInstance[client+" "+e.Instance] = m
	}
	if e.QueueID != "" {
		j.byQueue[client+" "+e.QueueID] = m
	}
	j.latest[client+" "+e.sender()] = m
}

// client returns a name for the connection.
func (e *Entry) client() string { return e.ClientAddress + " " + e.ClientPort }

// sender returns the envelope sender in a form that is the same for both protocols.
func (e *Entry) sender() string { return strings.ToLower(spelling.Replace(e.Sender)) }

var spelling = strings.NewReplacer("<", "", ">", "", `"`, "", `\`, "")

// Ended yields the mails that get no more records at a time, in the order of their first
// records.
func (j *Joiner) Ended(now time.Time) iter.Seq[*Mail] {
	return func(yield func(*Mail) bool) {
		for len(j.open) > 0 && (len(j.open) > maxOpen || j.open[0].over(now)) {
			if !yield(j.pop()) {
				return
			}
		}
	}
}

// Rest yields all remaining mails.
func (j *Joiner) Rest() iter.Seq[*Mail] {
	return func(yield func(*Mail) bool) {
		for len(j.open) > 0 {
			if !yield(j.pop()) {
				return
			}
		}
	}
}

func (m *Mail) over(now time.Time) bool {
	idle := now.Sub(m.Last())
	return idle > patience || m.judged && idle > afterlife
}

func (j *Joiner) pop() *Mail {
	m := j.open[0]
	j.open[0] = nil
	j.open = j.open[1:]
	m.closed = true
	for _, e := range m.Entries {
		client := e.client()
		remove(j.byInstance, client+" "+e.Instance, m)
		remove(j.byQueue, client+" "+e.QueueID, m)
		remove(j.latest, client+" "+e.sender(), m)
	}
	return m
}

func remove(from map[string]*Mail, key string, m *Mail) {
	if from[key] == m {
		delete(from, key)
	}
}
