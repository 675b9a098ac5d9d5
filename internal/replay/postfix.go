package replay

import (
	"cmp"
	"errors"
	"io"
	"iter"
	"regexp"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/policy"
)

// postfixLog makes questions from Postfix's own log: one for each recipient of an
// accepted mail, and one for each recipient that a greylist has deferred. It needs lines
// in the order of time. The log contains neither SPF results nor recipients that were
// refused for other reasons.
type postfixLog struct {
	queued map[string]*queued       // by host and queue id
	order  []string                 // in order of arrival
	ready  maillog.Timed[*Question] // a mail is complete some time after its arrival
}

// queued is a mail that is not completely known yet.
type queued struct {
	at            time.Time
	id            string // host and queue id, "" for mail that was not accepted
	name, address string
	login, sender string
	hasSender     bool
	recipients    map[string]bool
}

const (
	// maxQueued bounds the mails that are collected at a time, and the recipients of
	// each mail.
	maxQueued = 50_000
	// delivered is how long a mail is kept until its delivery is in the log.
	delivered = 10 * time.Minute
)

var (
	postfixLine = regexp.MustCompile(`^(\S+T\S+|\w{3} [ \d]\d \d\d:\d\d:\d\d) (\S+) postfix\S*/(\w+)\[\d+\]: (.*)$`)
	rejectLine  = regexp.MustCompile(`^NOQUEUE: reject: RCPT from (\S+)\[([0-9a-fA-F.:]+)\](?::\d+)?: (4\d\d) (.*); from=<(.*?)> to=<(.*?)> proto=`)
	milterLine  = regexp.MustCompile(`^[0-9A-Za-z]{6,}: milter-reject: \S+ from (\S+)\[([0-9a-fA-F.:]+)\](?::\d+)?: (4\S+) (.*); from=<(.*?)> to=<(.*?)> proto=`)
	clientLine  = regexp.MustCompile(`^([0-9A-Za-z]{6,}): client=(\S+)\[([0-9a-fA-F.:]+)\](?::\d+)?(.*)$`)
	loginWord   = regexp.MustCompile(`, sasl_username=(.+?)(?:, (?:sasl_sender|orig_queue_id|orig_client)=|$)`)
	fromLine    = regexp.MustCompile(`^([0-9A-Za-z]{6,}): from=<(.*?)>, `)
	toLine      = regexp.MustCompile(`^([0-9A-Za-z]{6,}): to=<(.*?)>, (?:orig_to=<(.*?)>, )?relay=`)
	greylisted  = regexp.MustCompile(`(?i)gr[ea]ylist`)
	// again matches the replies of rspamd.
	again = regexp.MustCompile(`(?i)gr[ea]ylist|try again later`)
)

// stamped is a line of Postfix.
type stamped struct {
	at                 time.Time
	host, daemon, text string
}

// line processes the next line.
func (l *postfixLog) line(s *stamped) {
	switch s.daemon {
	case "smtpd":
		l.smtpd(s)
	case "cleanup":
		if m := milterLine.FindStringSubmatch(s.text); m != nil && again.MatchString(m[4]) {
			l.sentAway(s, m)
		}
	case "qmgr":
		l.qmgr(s)
	case "smtp", "lmtp", "local", "virtual", "pipe", "error", "discard":
		l.delivery(s)
	}
}

func (l *postfixLog) smtpd(s *stamped) {
	if m := rejectLine.FindStringSubmatch(s.text); m != nil {
		if greylisted.MatchString(m[4]) {
			l.sentAway(s, m)
		}
		return
	}
	m := clientLine.FindStringSubmatch(s.text)
	if m == nil {
		return
	}
	id := s.host + " " + m[1]
	mail := &queued{at: s.at, id: id, name: m[2], address: m[3], recipients: map[string]bool{}}
	if login := loginWord.FindStringSubmatch(m[4]); login != nil {
		mail.login = login[1]
	}
	if len(l.order) >= maxQueued {
		delete(l.queued, l.order[0])
		l.order = l.order[1:]
	}
	l.queued[id] = mail
	l.order = append(l.order, id)
}

// sentAway makes a question from a refusal. m is client, address, code, text, sender and
// recipient.
func (l *postfixLog) sentAway(s *stamped, m []string) {
	l.addQuestion(&queued{at: s.at, name: m[1], address: m[2], sender: m[5]}, m[6], true)
}

// qmgr reads the sender from a line of qmgr(8).
func (l *postfixLog) qmgr(s *stamped) {
	if m := fromLine.FindStringSubmatch(s.text); m != nil {
		if mail := l.queued[s.host+" "+m[1]]; mail != nil {
			mail.sender, mail.hasSender = m[2], true
		}
	}
}

// delivery reads the recipient from a delivery. If there is an orig_to, it is the
// recipient that the client has named. A repeated delivery is about the same mail.
func (l *postfixLog) delivery(s *stamped) {
	m := toLine.FindStringSubmatch(s.text)
	if m == nil {
		return
	}
	mail, to := l.queued[s.host+" "+m[1]], cmp.Or(m[3], m[2])
	if mail == nil || !mail.hasSender || mail.recipients[to] || len(mail.recipients) >= maxQueued {
		return
	}
	mail.recipients[to] = true
	l.addQuestion(mail, to, false)
}

// addQuestion makes the question for one recipient.
func (l *postfixLog) addQuestion(mail *queued, recipient string, deferred bool) {
	r, err := policy.ParseRequest([]policy.Attribute{
		{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"},
		{Name: "client_address", Value: mail.address}, {Name: "client_name", Value: mail.name},
		{Name: "sender", Value: mail.sender}, {Name: "recipient", Value: recipient}, {Name: "sasl_username", Value: mail.login}, {Name: "instance", Value: mail.id},
	}, mail.at)
	if err == nil {
		l.ready.Push(mail.at, &Question{Request: r, Greylist: new(Judged), Deferred: deferred})
	}
}

// stampedSource reads the lines of Postfix in a log, one line ahead.
type stampedSource struct {
	source *maillog.Source
	latest time.Time // no line is later
	next   *stamped  // nil at the end
}

// advance reads the next line.
func (s *stampedSource) advance() error {
	for s.next = nil; ; {
		line, err := s.source.Line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m := postfixLine.FindSubmatch(line); m != nil {
			if at, ok := parseStamp(string(m[1]), s.latest); ok {
				s.next = &stamped{at, string(m[2]), string(m[3]), string(m[4])}
				return nil
			}
		}
	}
}

// Postfix yields the questions in logs of Postfix. No line is later than latest, which
// is needed because syslog timestamps have no year.
func Postfix(sources []*maillog.Source, latest time.Time) iter.Seq2[*Question, error] {
	return func(yield func(*Question, error) bool) {
		var logs []*stampedSource
		for _, source := range sources {
			s := &stampedSource{source: source, latest: latest}
			if err := s.advance(); err != nil {
				yield(nil, err)
				return
			}
			logs = append(logs, s)
		}
		l := &postfixLog{queued: map[string]*queued{}}
		for s := earliest(logs); s != nil; s = earliest(logs) {
			l.line(s.next)
			for q := range l.ready.UpTo(s.next.at.Add(-delivered)) {
				if !yield(q, nil) {
					return
				}
			}
			if err := s.advance(); err != nil {
				yield(nil, err)
				return
			}
		}
		for q := range l.ready.Rest() {
			if !yield(q, nil) {
				return
			}
		}
	}
}

// earliest returns the log with the earliest line, or nil when all have ended.
func earliest(logs []*stampedSource) (first *stampedSource) {
	for _, s := range logs {
		if s.next != nil && (first == nil || s.next.at.Before(first.next.at)) {
			first = s
		}
	}
	return first
}

// IsPostfix reports whether a line was written by Postfix.
func IsPostfix(line []byte) bool { return postfixLine.Match(line) }

// The timestamps of syslog, and of journalctl -o short-iso.
const (
	syslogStamp  = "Jan _2 15:04:05"
	journalStamp = "2006-01-02T15:04:05-0700"
)

// parseStamp parses a timestamp. For syslog, it uses the last year in which the time is
// not after latest.
func parseStamp(stamp string, latest time.Time) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, journalStamp} {
		if at, err := time.Parse(layout, stamp); err == nil {
			return at, true
		}
	}
	at, err := time.ParseInLocation(syslogStamp, stamp, latest.Location())
	if err != nil {
		return time.Time{}, false
	}
	at = at.AddDate(latest.Year(), 0, 0)
	if at.After(latest.Add(24 * time.Hour)) {
		at = at.AddDate(-1, 0, 0)
	}
	return at, true
}
