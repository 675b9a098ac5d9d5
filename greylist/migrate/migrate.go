// Package migrate reads the databases of other greylisting programs, so that senders
// that passed there also pass here.
//
// It reads postgrey's databases as text that db_dump writes. It reads sqlgrey's
// database as a SQL dump (of SQLite, MySQL or PostgreSQL) or as the SQLite file.
//
// Invariants: text is read once, line by line, and the length of a line is bounded. A
// line or row that cannot be parsed is counted, reported with its number and left
// out; nothing is guessed. No file is changed.
package migrate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
)

// Entry is one entry of another program, in a common form: a triplet, or a client
// when Passes is not 0.
type Entry struct {
	Client    string         `json:"client"` // IP address, of a host or of a network
	Sender    string         `json:"sender,omitempty"`
	Domain    string         `json:"domain,omitempty"` // of a client that is only allowed for one sender domain
	Recipient string         `json:"recipient,omitempty"`
	First     greylist.Stamp `json:"first,omitempty"`
	Last      greylist.Stamp `json:"last"`
	Passed    bool           `json:"passed,omitempty"`
	Passes    int            `json:"passes,omitempty"`
}

// Entry returns the entry in the form of our stores, with the keys that k makes.
func (e Entry) Entry(k greylist.Keyer) (greylist.Entry, error) {
	addr, err := netip.ParseAddr(e.Client)
	switch {
	case err != nil:
		return greylist.Entry{}, fmt.Errorf("%.60q is no IP address", e.Client)
	case e.Last <= 0:
		return greylist.Entry{}, errors.New("no time of the last mail")
	case e.Passes > 0:
		key := greylist.NewKey("", e.Domain, k.Network(addr), "", "")
		return greylist.Entry{
			ID:     greylist.ClientID(key.Claimed, key.Network),
			Client: greylist.Client{Passes: min(e.Passes, greylist.MaxPasses), Last: e.Last},
		}, nil
	}
	local, domain := splitAddress(e.Sender)
	key := greylist.NewKey("", "", k.Network(addr), greylist.Sender(local, domain), e.Recipient)
	t := greylist.Triplet{First: e.First, Last: e.Last}
	if e.Passed {
		t.Passed = e.Last
	}
	return greylist.Entry{ID: key.ByNetwork(), Triplet: t}, nil
}

func splitAddress(s string) (local, domain string) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s, ""
	}
	return s[:at], s[at+1:]
}

// Summary counts what was read from a file.
type Summary struct {
	Read    int      // entries passed to yield
	Skipped int      // could not be parsed, or are not needed
	Why     []string // the reasons for the first skipped ones, with their lines
}

// maxWhy bounds Result.Why.
const maxWhy = 10

func (r *Summary) skip(line int, why string) { r.leaveOut(fmt.Sprintf("line %d: %s", line, why)) }

func (r *Summary) leaveOut(why string) {
	r.Skipped++
	if len(r.Why) < maxWhy {
		r.Why = append(r.Why, why)
	}
}

// maxLine bounds a line; mysqldump writes a table's rows into few lines.
const maxLine = 64 << 20

func scanner(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	return lines
}

// Postgrey reads the text that db_dump writes, with or without -p, of postgrey.db
// or postgrey_clients.db; both may be in one file. passedAfter is the delay that
// postgrey ran with: a triplet whose first and last sighting are at least that far
// apart has passed.
func Postgrey(r io.Reader, passedAfter time.Duration, yield func(Entry) error) (Summary, error) {
	p := postgrey{passedAfter: passedAfter}
	lines := scanner(r)
	var key string
	hasKey := false
	for lines.Scan() {
		p.line++
		text := lines.Text()
		data, isData := strings.CutPrefix(text, " ")
		switch {
		case !isData:
			hasKey = false
			p.header(text)
		case !p.inData:
			return p.result, fmt.Errorf("line %d: data before HEADER=END: this is no output of db_dump", p.line)
		case !hasKey:
			key, hasKey = data, true
		default:
			hasKey = false
			if err := p.pair(key, data, yield); err != nil {
				return p.result, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return p.result, fmt.Errorf("line %d: %w", p.line+1, err)
	}
	if !p.began {
		return p.result, errors.New("this is no output of db_dump: no HEADER=END")
	}
	return p.result, nil
}

type postgrey struct {
	result        Summary
	passedAfter   time.Duration
	line          int
	inData, began bool
	hex           bool // format=bytevalue
}

func (p *postgrey) header(text string) {
	switch {
	case text == "HEADER=END":
		p.inData, p.began = true, true
	case text == "DATA=END":
		p.inData = false
	case text == "format=bytevalue":
		p.hex = true
	case text == "format=print":
		p.hex = false
	}
}

func (p *postgrey) pair(key, value string, yield func(Entry) error) error {
	var e Entry
	k, err := p.decode(key)
	if err == nil {
		var v string
		if v, err = p.decode(value); err == nil {
			e, err = p.entry(k, v)
		}
	}
	if err != nil {
		p.result.skip(p.line, err.Error())
		return nil
	}
	if err := yield(e); err != nil {
		return err
	}
	p.result.Read++
	return nil
}

// decode undoes db_dump's escapes: \xx and \\, or all octets in hexadecimal.
func (p *postgrey) decode(s string) (string, error) {
	if !p.hex && !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		switch {
		case !p.hex && s[i] != '\\':
			b.WriteByte(s[i])
			i++
			continue
		case !p.hex && strings.HasPrefix(s[i:], `\\`):
			b.WriteByte('\\')
			i += 2
			continue
		case !p.hex:
			i++
		}
		if i+2 > len(s) {
			return "", errEscape
		}
		c, err := strconv.ParseUint(s[i:i+2], 16, 8)
		if err != nil {
			return "", errEscape
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

var (
	errEscape  = errors.New("an escape of db_dump is broken")
	errHashed  = errors.New("a hashed key: postgrey ran with --privacy: what it means is lost")
	errTriplet = errors.New("neither network/sender/recipient nor a client")
	errValue   = errors.New("the value is not two numbers")
)

// entry reads a pair of either database: network/sender/recipient with the
// first and the last time, or a client with the count and the last time.
func (p *postgrey) entry(key, value string) (Entry, error) {
	a, b, err := twoNumbers(value)
	if err != nil {
		return Entry{}, err
	}
	client, rest, isTriplet := strings.Cut(key, "/")
	if _, err := netip.ParseAddr(client); err != nil {
		if len(key) == 40 && strings.Trim(key, "0123456789abcdef") == "" {
			return Entry{}, errHashed
		}
		return Entry{}, errTriplet
	}
	if !isTriplet {
		return Entry{Client: client, Passes: int(min(a, greylist.MaxPasses)), Last: fromUnix(b)}, nil
	}
	sender, recipient, ok := splitTriplet(rest)
	if !ok {
		return Entry{}, errTriplet
	}
	passed := time.Duration(b-a)*time.Second >= p.passedAfter
	return Entry{Client: client, Sender: sender, Recipient: recipient, First: fromUnix(a), Last: fromUnix(b), Passed: passed}, nil
}

// splitTriplet splits at the slash between the addresses. It is the first slash after
// the sender's domain, because a domain cannot contain one.
func splitTriplet(s string) (sender, recipient string, ok bool) {
	if recipient, ok := strings.CutPrefix(s, "/"); ok {
		return "", recipient, recipient != ""
	}
	from := max(strings.IndexByte(s, '@'), 0)
	slash := strings.IndexByte(s[from:], '/')
	if slash < 0 {
		return "", "", false
	}
	return s[:from+slash], s[from+slash+1:], from+slash+1 < len(s)
}

// maxUnix is the latest time that is accepted, in seconds: the end of year 9999.
const maxUnix = 253402300799

func twoNumbers(value string) (a, b int64, err error) {
	parts := strings.Split(value, ",")
	if len(parts) < 2 {
		return 0, 0, errValue
	}
	if a, err = strconv.ParseInt(parts[0], 10, 64); err == nil {
		b, err = strconv.ParseInt(parts[1], 10, 64)
	}
	if err != nil || a < 0 || b < 0 || a > maxUnix || b > maxUnix {
		return 0, 0, errValue
	}
	return a, b, nil
}

func fromUnix(seconds int64) greylist.Stamp { return greylist.Stamp(seconds * 1000) }
