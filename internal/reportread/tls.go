package reportread

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
)

// Bounds of a TLS report.
const (
	maxPolicies = 1000
	maxFailures = 10_000 // of all policies together
	maxStrings  = 100
)

// TLSReport is an SMTP TLS report (RFC 8460), about the encryption of a sender's sessions
// with our mail hosts.
type TLSReport struct {
	Org, Contact, ID string
	Begin, End       time.Time
	Policies         []TLSPolicy
}

// TLSPolicy is the results for one policy.
type TLSPolicy struct {
	Type       string // sts, tlsa, no-policy-found
	Domain     string
	Hosts      []string
	Successful int64
	Failed     int64
	Failures   []TLSFailure
}

// TLSFailure is a kind of failure and its number.
type TLSFailure struct {
	Result   string
	Sender   string // the address of the sending host
	Host     string // the mail host that received
	Receiver string // its address
	Reason   string
	Info     string
	Sessions int64
}

// tlsDocument is the JSON of RFC 8460 section 4.4.
type tlsDocument struct {
	Org     string `json:"organization-name"`
	Contact string `json:"contact-info"`
	ID      string `json:"report-id"`
	Range   struct {
		Start string `json:"start-datetime"`
		End   string `json:"end-datetime"`
	} `json:"date-range"`
	Policies policies `json:"policies"`
}

type tlsPolicy struct {
	Policy struct {
		Type   string `json:"policy-type"`
		Domain string `json:"policy-domain"`
		Hosts  strung `json:"mx-host"`
	} `json:"policy"`
	Summary struct {
		Successful sessions `json:"total-successful-session-count"`
		Failed     sessions `json:"total-failure-session-count"`
	} `json:"summary"`
	Failures failures `json:"failure-details"`
}

type tlsFailure struct {
	Result   string   `json:"result-type"`
	Sender   string   `json:"sending-mta-ip"`
	Host     string   `json:"receiving-mx-hostname"`
	Receiver string   `json:"receiving-ip"`
	Reason   string   `json:"failure-reason-code"`
	Info     string   `json:"additional-information"`
	Sessions sessions `json:"failed-session-count"`
}

// These lists have a bound while they are read. They also accept one element without
// brackets, as some senders write it.
type (
	policies []tlsPolicy
	failures []tlsFailure
	strung   []string
)

func (l *policies) UnmarshalJSON(raw []byte) (err error) {
	all := 0
	*l, err = list(raw, maxPolicies, func(p *tlsPolicy) error {
		if all += len(p.Failures); all > maxFailures {
			return fmt.Errorf("more than %d failures", maxFailures)
		}
		return nil
	})
	return err
}

func (l *failures) UnmarshalJSON(raw []byte) (err error) {
	*l, err = list(raw, maxFailures, func(*tlsFailure) error { return nil })
	return err
}

func (l *strung) UnmarshalJSON(raw []byte) (err error) {
	*l, err = list(raw, maxStrings, func(*string) error { return nil })
	return err
}

// list reads a list. check looks at each element when it is read.
func list[T any](raw []byte, most int, check func(*T) error) ([]T, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if raw[0] != '[' {
		var one T
		if string(raw) == "null" {
			return nil, nil
		}
		err := d.Decode(&one)
		if err == nil {
			err = check(&one)
		}
		return []T{one}, err
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	var all []T
	for d.More() {
		if len(all) == most {
			return nil, fmt.Errorf("a list of more than %d elements", most)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return nil, err
		}
		if err := check(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// sessions is a count. Some senders quote it.
type sessions int64

func (n *sessions) UnmarshalJSON(raw []byte) error {
	text := strings.Trim(string(raw), `"`)
	if text == "null" || text == "" {
		return nil
	}
	count, err := strconv.ParseInt(text, 10, 64)
	if err != nil || count < 0 || count > maxMessages {
		return fmt.Errorf("%.40q is no count of sessions", text)
	}
	*n = sessions(count)
	return nil
}

var errNoPolicies = errors.New("JSON: there are no policies: it is no TLS report")

// parseTLS parses a TLS report.
func parseTLS(in *buffered, limits Limits) (*TLSReport, error) {
	text := transform.NewReader(in, unicode.BOMOverride(runes.ReplaceIllFormed()))
	raw, err := io.ReadAll(io.LimitReader(text, limits.JSON+1))
	if err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	if int64(len(raw)) > limits.JSON {
		return nil, fmt.Errorf("JSON: longer than %d octets", limits.JSON)
	}
	var doc tlsDocument
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("JSON: %w", err)
	}
	if len(doc.Policies) == 0 {
		return nil, errNoPolicies
	}
	return doc.report()
}

func (doc *tlsDocument) report() (*TLSReport, error) {
	r := &TLSReport{Org: clipped(doc.Org), Contact: clipped(doc.Contact), ID: clipped(doc.ID)}
	var err, err2 error
	r.Begin, err = timestamp(doc.Range.Start)
	r.End, err2 = timestamp(doc.Range.End)
	if err != nil || err2 != nil || r.End.Before(r.Begin) {
		return nil, fmt.Errorf("the report has no usable date-range (start-datetime %.40q, end-datetime %.40q)", doc.Range.Start, doc.Range.End)
	}
	for _, p := range doc.Policies {
		one := TLSPolicy{Type: word(clipped(p.Policy.Type)), Domain: domain(clipped(p.Policy.Domain)), Successful: int64(p.Summary.Successful), Failed: int64(p.Summary.Failed)}
		for _, host := range p.Policy.Hosts {
			one.Hosts = append(one.Hosts, clipped(host))
		}
		for _, f := range p.Failures {
			one.Failures = append(one.Failures, TLSFailure{Result: word(clipped(f.Result)), Sender: clipped(f.Sender), Host: domain(clipped(f.Host)),
				Receiver: clipped(f.Receiver), Reason: clipped(f.Reason), Info: clipped(f.Info), Sessions: int64(f.Sessions)})
		}
		r.Policies = append(r.Policies, one)
	}
	return r, nil
}
