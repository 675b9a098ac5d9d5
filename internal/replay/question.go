package replay

import (
	"cmp"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// Question is a request that Postfix has made, with its results.
type Question struct {
	Request  *policy.Request
	Greylist *Judged       // the result of the greylist; nil if it was not asked
	Lists    *Listed       // the result of the lists; nil if they were not asked
	Decided  record.Reason // of the whole answer; "" if only Postfix's log is known
	// Deferred means that the client was told to try again later, Refused that it was
	// refused.
	Deferred, Refused bool
}

// Judged is the result of the greylist.
type Judged struct {
	Reason record.Reason // "" if only Postfix's log is known
	Detail checks.GreylistDetail
	Left   time.Duration // the wait in the reply, rounded up
	Watch  bool          // the check was in shadow mode and had no effect
}

// Listed is the result of the lists.
type Listed struct {
	Reason record.Reason
	Score  int
	Listed bool // the threshold was reached
	Failed bool // the lists did not answer
}

// FromRecord makes a question from a record of postern-policyd. ok is false for records
// about other things.
func FromRecord(e *maillog.Entry) (q *Question, ok bool) {
	if e.Daemon != "policyd" || e.Peer != "" || e.Recipient == "" {
		return nil, false
	}
	var attributes []policy.Attribute
	for _, a := range []policy.Attribute{
		{Name: "request", Value: "smtpd_access_policy"}, {Name: "protocol_state", Value: "RCPT"},
		{Name: "client_address", Value: e.ClientAddress}, {Name: "client_port", Value: e.ClientPort}, {Name: "client_name", Value: cmp.Or(e.ClientName, "unknown")},
		{Name: "helo_name", Value: e.Helo}, {Name: "sender", Value: bare(e.Sender)}, {Name: "recipient", Value: e.Recipient},
		{Name: "sasl_username", Value: e.SASLUsername}, {Name: "instance", Value: e.Instance}, {Name: "queue_id", Value: e.QueueID},
	} {
		if a.Value != "" {
			attributes = append(attributes, a)
		}
	}
	r, err := policy.ParseRequest(attributes, e.Received())
	if err != nil {
		return nil, false
	}
	q = &Question{Request: r}
	enforced := e.Mode != record.ModeShadow
	q.Deferred = enforced && e.Verdict == "defer"
	q.Refused = enforced && e.Verdict == "reject"
	q.Decided = record.Reason(e.Reason)
	q.Greylist, q.Lists = judged(e), listed(e)
	return q, true
}

// Records yields the questions in records.
func Records(entries iter.Seq2[*maillog.Entry, error]) iter.Seq2[*Question, error] {
	return func(yield func(*Question, error) bool) {
		for e, err := range entries {
			if err != nil {
				yield(nil, err)
				return
			}
			if q, ok := FromRecord(e); ok && !yield(q, nil) {
				return
			}
		}
	}
}

// bare returns a sender in the form of Postfix: the null sender is empty.
func bare(sender string) string {
	if sender == "<>" {
		return ""
	}
	return sender
}

func judged(e *maillog.Entry) *Judged {
	s := e.Step(checks.GreylistName)
	if s == nil || s.Reason == string(record.NotApplicable) {
		return nil
	}
	j := &Judged{Reason: record.Reason(s.Reason), Detail: checks.ParseGreylistDetail(s.Detail), Watch: s.Mode == record.ModeShadow}
	if e.Check == checks.GreylistName {
		j.Left = toldToWait(e.Action)
	}
	return j
}

// toldToWait parses the wait in the reply to a greylisted mail.
func toldToWait(action string) time.Duration {
	_, rest, ok := strings.Cut(action, "please try again in ")
	if !ok {
		return 0
	}
	number, _, _ := strings.Cut(rest, " ")
	seconds, _ := strconv.Atoi(number)
	return time.Duration(seconds) * time.Second
}

func listed(e *maillog.Entry) *Listed {
	s := e.Step(checks.DNSBLName)
	if s == nil || s.Verdict == "none" {
		return nil
	}
	l := &Listed{Reason: record.Reason(s.Reason), Failed: s.Error != "", Listed: s.Verdict == "reject"}
	if score, ok := maillog.Detail(strings.ReplaceAll(s.Detail, ";", " "), "score"); ok {
		l.Score, _ = strconv.Atoi(score)
	}
	return l
}

func (q *Question) client() string {
	return maillog.Client(q.Request.Client.Name, q.Request.Client.Address.String())
}

func (q *Question) sender() string { return cmp.Or(q.Request.Sender.Raw, "<>") }

// difference returns the question with both answers.
func (q *Question) difference(was, would string) Difference {
	return Difference{
		Time: q.Request.Received, Client: q.client(), Sender: q.sender(), Recipient: q.Request.Recipient.Raw,
		Was: was, Would: would,
	}
}
