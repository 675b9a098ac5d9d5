package sign

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// author is the mailbox of a From field.
type author struct {
	local  string // as written, for signing tables
	domain string // A-labels, lower case
}

var (
	errFromSyntax  = errors.New("no list of addresses")
	errFromDomains = errors.New("addresses of several domains")
)

// maxFrom bounds the From field that is taken apart, in octets.
const maxFrom = 64 << 10

// parseFrom reads the mailbox-list of a From field (RFC 5322 section 3.6.2) as
// far as its domain is concerned. Display names may be anything; comments are
// dropped, quoted strings are opaque, groups are refused. Several addresses are
// accepted when they share one domain; the first one is returned.
func parseFrom(value string) (author, error) {
	if len(value) > maxFrom {
		return author{}, errFromSyntax
	}
	var first author
	for _, mailbox := range splitFrom(value) {
		a, err := parseMailbox(mailbox)
		if err != nil {
			return author{}, err
		}
		switch first.domain {
		case "":
			first = a
		case a.domain:
		default:
			return author{}, errFromDomains
		}
	}
	if first.domain == "" {
		return author{}, errFromSyntax
	}
	return first, nil
}

// mailbox is one element of the list: the text outside angle brackets and the
// text within.
type mailbox struct {
	outside, inside strings.Builder
	angles          int
	broken          bool
}

// splitFrom cuts the list at its commas.
func splitFrom(value string) []*mailbox {
	current := new(mailbox)
	list := []*mailbox{current}
	open := false
	for i := 0; i < len(value); {
		token := nextToken(value[i:])
		i += len(token)
		to := &current.outside
		if open {
			to = &current.inside
		}
		switch token[0] {
		case '(', ' ', '\t', '\r', '\n':
		case ',':
			if open {
				current.broken = true
			}
			current = new(mailbox)
			list = append(list, current)
			open = false
		case '<':
			current.angles++
			current.broken = current.broken || open
			open = true
		case '>':
			current.broken = current.broken || !open
			open = false
		case ';':
			// The end of a group; no list of addresses has it elsewhere.
			current.broken = true
		default:
			to.WriteString(token)
		}
	}
	current.broken = current.broken || open
	return list
}

// nextToken returns a comment, a quoted string or a single octet. A comment or
// string without an end runs to the end of s.
func nextToken(s string) string {
	end := 1
	switch s[0] {
	case '(':
		end = mailaddr.CommentEnd(s)
	case '"':
		end = mailaddr.QuoteEnd(s)
	}
	if end < 0 {
		return s
	}
	return s[:end]
}

func parseMailbox(m *mailbox) (author, error) {
	addr := m.outside.String()
	switch m.angles {
	case 0:
	case 1:
		addr = m.inside.String()
	default:
		return author{}, errFromSyntax
	}
	if m.broken {
		return author{}, errFromSyntax
	}
	at := strings.LastIndexByte(addr, '@')
	if at < 1 || strings.ContainsAny(addr[at:], "\":;") {
		return author{}, errFromSyntax
	}
	local := addr[:at]
	// An "@" in a local part is only safe within quotes.
	if strings.ContainsAny(local, "@:;") && !isQuoted(local) {
		return author{}, errFromSyntax
	}
	domain, err := mailaddr.ParseDomain(addr[at+1:])
	if err != nil {
		return author{}, errFromSyntax
	}
	return author{local: local, domain: domain}, nil
}

func isQuoted(local string) bool {
	return local[0] == '"' && mailaddr.QuoteEnd(local) == len(local)
}
