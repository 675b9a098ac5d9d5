package maillog

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/glob"
	"github.com/postern-mail/postern/internal/record"
)

// Filter selects records. A field without values matches all records. One of several
// values must match, and all fields must match.
type Filter struct {
	Recipients []string // addresses or domains; * means any text
	Senders    []string // likewise; <> is the null sender
	Clients    []string // addresses, networks or names
	Logins     []string
	Reasons    []string
	Verdicts   []string
	Modes      []string // enforce, shadow
	Queues     []string // Postfix's queue ids
	Since      time.Time
	Until      time.Time

	networks []netip.Prefix // of Clients
}

// Verdicts are the possible values of Filter.Verdicts.
var Verdicts = []string{"pass", "hold", "defer", "reject", "error", "none"}

// Modes are the possible values of Filter.Modes.
var Modes = []string{record.ModeEnforce, record.ModeShadow}

// Prepare checks the values. It must be called before the filter is used.
func (f *Filter) Prepare() error {
	for _, v := range f.Verdicts {
		if !slices.Contains(Verdicts, v) {
			return fmt.Errorf("verdict %.40q: write one of %s", v, strings.Join(Verdicts, ", "))
		}
	}
	for _, m := range f.Modes {
		if !slices.Contains(Modes, m) {
			return fmt.Errorf("mode %.40q: write one of %s", m, strings.Join(Modes, ", "))
		}
	}
	for _, c := range f.Clients {
		if addr, err := netip.ParseAddr(c); err == nil {
			f.networks = append(f.networks, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
		} else if p, err := netip.ParsePrefix(c); err == nil {
			f.networks = append(f.networks, p.Masked())
		} else if strings.Contains(c, "/") {
			return fmt.Errorf("client %.60q is neither a network nor a name", c)
		}
	}
	return nil
}

// Mail reports whether one record of a mail matches. A record of milterd about a message
// is about all its recipients.
func (f *Filter) Mail(m *Mail) bool {
	return slices.ContainsFunc(m.Entries, func(e *Entry) bool { return f.Entry(e, m) })
}

// Cut returns a mail with only the records within the time of the filter, or nil if no
// record matches.
func (f *Filter) Cut(m *Mail) *Mail {
	if !f.Mail(m) {
		return nil
	}
	cut := *m
	cut.Entries = slices.DeleteFunc(slices.Clone(m.Entries), func(e *Entry) bool { return !f.within(e.Time) })
	return &cut
}

// Entry reports whether a record of a mail matches.
func (f *Filter) Entry(e *Entry, m *Mail) bool {
	recipients := []string{e.Recipient}
	if e.judgesMessage() {
		recipients = m.Recipients
	}
	login := e.SASLUsername
	if login == "" {
		login = m.Text(func(e *Entry) string { return e.SASLUsername })
	}
	return f.within(e.Time) &&
		f.decision(e) && oneOf(f.Logins, login) && oneOf(f.Queues, cmp.Or(e.QueueID, m.QueueID)) &&
		addressOf(f.Senders, e.Sender) &&
		(len(f.Recipients) == 0 || slices.ContainsFunc(recipients, func(r string) bool { return addressOf(f.Recipients, r) })) &&
		f.client(e)
}

// decision reports whether the decision of a record matches, or that of a check in the
// shadow.
func (f *Filter) decision(e *Entry) bool {
	s := e.Watched()
	return f.verdict(e.Verdict, e.Reason, e.Mode) || s != nil && f.verdict(s.Verdict, s.Reason, s.Mode)
}

func (f *Filter) verdict(verdict, reason, mode string) bool {
	return oneOf(f.Verdicts, verdict) && oneOf(f.Reasons, reason) && oneOf(f.Modes, mode)
}

func (f *Filter) within(t time.Time) bool {
	return !t.Before(f.Since) && (f.Until.IsZero() || !t.After(f.Until))
}

func (f *Filter) client(e *Entry) bool {
	if len(f.Clients) == 0 {
		return true
	}
	if addr, err := netip.ParseAddr(e.ClientAddress); err == nil {
		if slices.ContainsFunc(f.networks, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			return true
		}
	}
	return slices.ContainsFunc(f.Clients, func(pattern string) bool {
		return glob.Match(pattern, e.ClientName) || glob.Match(pattern, e.ClientAddress)
	})
}

func oneOf(patterns []string, text string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return glob.Match(p, text) })
}

// addressOf reports whether an address matches. A pattern without @ is compared with the
// domain.
func addressOf(patterns []string, address string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		if p == "" {
			p = "<>"
		}
		return glob.Match(p, address) || !strings.Contains(p, "@") && glob.Match(p, address[strings.LastIndexByte(address, '@')+1:])
	})
}

// layouts are the forms in which people write a time. A time without a zone is local, and
// a time without a date is today.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00", time.DateTime, "2006-01-02 15:04", time.DateOnly, time.TimeOnly, "15:04"}

// ParseTime parses a time, or how long ago it was, such as 2h or 1d.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := config.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range layouts {
		at, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		if at.Year() == 0 {
			at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location())
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%.40q is no time; write 2h, 1d, 14:30, 2026-11-21 or 2026-11-21T02:00:00Z", text)
}
