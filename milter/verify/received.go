package verify

import (
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// hop is the client of a host, as the host's Received field names it.
type hop struct {
	Client netip.Addr
	Helo   string
}

// parseReceived reads the "from" part of a Received field (RFC 5321 section 4.4) as
// Postfix, Exim, Sendmail, qmail, Exchange and amavis write it. ok is false when it
// has no address: the mail began on that host, or the form is unknown.
//
// The client chooses the HELO name, so the address is never read from it. The host
// writes the address into a comment, and these programs allow no parentheses in HELO
// names.
func parseReceived(value string) (h hop, ok bool) {
	rest, ok := afterFrom(value)
	if !ok {
		return hop{}, false
	}
	end := strings.IndexAny(rest, space+"(")
	if end < 0 {
		return hop{}, false
	}
	name := rest[:end]
	h.Helo = name
	for rest = strings.TrimLeft(rest[end:], space); strings.HasPrefix(rest, "("); rest = strings.TrimLeft(rest, space) {
		n := mailaddr.CommentEnd(rest)
		if n < 0 {
			return hop{}, false
		}
		h.comment(rest[1:n-1], name)
		if h.Client.IsValid() {
			return h, true
		}
		rest = rest[n:]
	}
	return hop{}, false // "by": what follows is about the host itself
}

const space = " \t\r\n"

// afterFrom returns what follows the word "from" at the start.
func afterFrom(value string) (string, bool) {
	const from = "from"
	value = strings.TrimLeft(value, space)
	if len(value) <= len(from) || !strings.EqualFold(value[:len(from)], from) || strings.IndexByte(space, value[len(from)]) < 0 {
		return "", false
	}
	return strings.TrimLeft(value[len(from):], space), true
}

// comment reads one comment after the name that follows "from".
func (h *hop) comment(text, name string) {
	if helo, ok := cutPrefixFold(text, "HELO "); ok { // qmail: from name (HELO name) (192.0.2.1)
		h.Helo = strings.Trim(helo, space)
		return
	}
	if helo, ok := cutPrefixFold(text, "helo="); ok { // Exim: from [192.0.2.1] (helo=name)
		h.Helo = strings.Trim(helo, space)
		h.Client = literal(name)
		return
	}
	text = strings.Trim(text, space)
	if inner, rest, ok := bracketed(text); ok { // Exim: ([192.0.2.1] helo=name), amavis: ([127.0.0.1])
		if _, helo, ok := strings.Cut(rest, "helo="); ok {
			h.Helo, _, _ = strings.Cut(helo, " ")
		}
		h.Client = inner
		return
	}
	if addr := plainAddr(text); addr.IsValid() { // qmail and Exchange: (192.0.2.1)
		h.Client = addr
		return
	}
	// Postfix and Sendmail: (name [192.0.2.1]), also (name [192.0.2.1] (may be forged)).
	// Names of hosts have no brackets.
	if at := strings.IndexByte(text, '['); at > 0 {
		if addr, _, ok := bracketed(text[at:]); ok {
			h.Client = addr
		}
	}
}

// bracketed reads an address in brackets at the start of text.
func bracketed(text string) (addr netip.Addr, rest string, ok bool) {
	end := strings.IndexByte(text, ']')
	if end < 0 || text[0] != '[' {
		return netip.Addr{}, "", false
	}
	addr = literal(text[:end+1])
	return addr, text[end+1:], addr.IsValid()
}

// literal reads an address literal.
func literal(text string) netip.Addr {
	inner, ok := strings.CutPrefix(text, "[")
	if !ok {
		return netip.Addr{}
	}
	if inner, ok = strings.CutSuffix(inner, "]"); !ok {
		return netip.Addr{}
	}
	inner, _ = cutPrefixFold(inner, "IPv6:")
	return plainAddr(inner)
}

func plainAddr(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// cutPrefixFold is strings.CutPrefix, ignoring case.
func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}
