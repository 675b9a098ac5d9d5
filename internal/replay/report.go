package replay

import (
	"time"

	"github.com/postern-mail/postern/internal/maillog"
)

// Report says what other settings would have done.
type Report struct {
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Questions int       `json:"questions"` // requests of Postfix that were read

	Greylist *Greylisted `json:"greylist,omitempty"`
	Lists    Lists       `json:"dnsbl"`
	Limits   *Limited    `json:"limits,omitempty"` // nil if the limits are not changed

	// Differences are the first mails that would have got another answer.
	Differences []Difference `json:"differences"`
	Differ      int          `json:"differ"`

	// Unknown counts questions that the records cannot answer, by the reason.
	Unknown map[string]int `json:"unknown"`
	// Before counts questions about senders and clients that the greylist knew before the
	// first record. Misfits counts those whose answer does not follow from the records
	// before: some records are missing, or were made with other settings.
	Before  int `json:"known_before"`
	Misfits int `json:"misfits"`
}

// Greylisted compares the two greylists.
type Greylisted struct {
	Asked int  `json:"asked"`
	Was   Side `json:"was"`
	Would Side `json:"would"`
}

// Side counts what one greylist does.
type Side struct {
	Deferred int `json:"deferred"` // answers "come back later"
	// Delayed counts mails that passed after a wait. Waits is how long they waited in
	// seconds. AtLeast counts those whose wait is a lower bound. Gone counts mails that
	// were deferred and did not return.
	Delayed int            `json:"delayed"`
	Waits   maillog.Spread `json:"wait_seconds"`
	AtLeast int            `json:"at_least"`
	Gone    int            `json:"not_come_back"`
	Senders int            `json:"senders"` // that were deferred
}

// Lists compares the thresholds of the DNS lists.
type Lists struct {
	Asked       int `json:"asked"`
	WasRefused  int `json:"was_refused"`
	WouldRefuse int `json:"would_refuse"` // only what is certain
}

// Difference is a mail that would have got another answer.
type Difference struct {
	Time      time.Time `json:"ts"`
	Client    string    `json:"client"`
	Sender    string    `json:"sender"`
	Recipient string    `json:"recipient"`
	Login     string    `json:"sasl_username,omitempty"`
	Was       string    `json:"was"`   // reasons
	Would     string    `json:"would"` // likewise
	Wait      float64   `json:"wait_seconds,omitempty"`
}

func (r *Report) differ(d Difference, most int) {
	r.Differ++
	if len(r.Differences) < most {
		r.Differences = append(r.Differences, d)
	}
}

// The reasons why a question cannot be answered.
const (
	unknownAfterList = "a list refused the mail, so that the greylist was not asked, and lists that had not answered yet could have added to the score"
	unknownStore     = "the greylist's store did not answer; the same is assumed"
	unknownSPF       = "the mail was exempt, so that SPF was not asked; its network is taken for its key"
	unknownSuspicion = "whether the mail was suspicious is not recorded; it is taken for one that is"
	unknownDomain    = "the record has a network as the key, so that the domain which SPF proves is not known; the network is taken again"
	unknownPostfix   = "Postfix's log holds no SPF, so that networks are the keys, and nothing of before its first line, so that every sender is new at first"
	unknownCounted   = "what had been sent before the first record is not known, so that for the time of its window after that a limit looks further away than it was"
	unknownSizes     = "the sizes of mails are not recorded; limits of bytes are left out"
	unknownSeen      = "when the sender was last seen before the first record is not known; just now is assumed"
)
