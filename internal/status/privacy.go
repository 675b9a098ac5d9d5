package status

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/record"
)

// hidden replaces text that is not shown.
const hidden = "…"

// The lengths of the networks that are shown of an address.
const (
	networkBits4 = 16
	networkBits6 = 32
)

// minInWord is the length from which a value of a record is also searched inside
// words of its other texts. Shorter values would be found in most words, so they
// are only searched as whole words.
const minInWord = 4

// openChecks are the checks whose details have no login and no mail address
// except those of the record.
var openChecks = []string{"dnsbl", "greylist", "spf", "dkim", "arc", "dmarc", "verify", "sign", "policy_context"}

// Patterns of addresses in a text. Of a mail address the part before the @ is
// hidden, of an IP address everything.
var (
	mailLike    = regexp.MustCompile(`("[^"]*"|[^\s<>()\[\],;:"]+)@`)
	ip4Like     = regexp.MustCompile(`\b\d{1,3}[.-]\d{1,3}[.-]\d{1,3}[.-]\d{1,3}\b`)
	ip6Like     = regexp.MustCompile(`(?i)[0-9a-f]{0,4}(:[0-9a-f]{0,4}){2,7}(:\d{1,3}(\.\d{1,3}){3})?(%\w+)?`)
	nibblesLike = regexp.MustCompile(`(?i)\b([0-9a-f]\.){15,31}[0-9a-f]\b`)
)

// hide removes from a record who wrote to whom, and from where. Domains and
// networks are left. It also searches the texts that the daemon has written about
// the mail.
func hide(r *record.Record) {
	secrets := newSecrets(r.ClientAddress, r.ClientName, r.Helo, r.Sender, r.Recipient, r.SASLUsername, r.MessageID, r.Peer)
	r.ClientAddress, r.ClientPort, r.Peer = hideIP(r.ClientAddress), "", hideIP(r.Peer)
	r.ClientName, r.Helo = hideHost(r.ClientName), hideHost(r.Helo)
	r.Sender, r.Recipient, r.SASLUsername = hideMail(r.Sender), hideMail(r.Recipient), hideMail(r.SASLUsername)
	r.MessageID = hideMail(r.MessageID)
	r.Action, r.Err = secrets.text(r.Action), secrets.err(r.Err)
	for _, text := range []*string{&r.Instance, &r.QueueID, &r.From, &r.SPF, &r.DKIM, &r.ARC, &r.DMARC, &r.Disposition, &r.SignedBy} {
		*text = hideText(*text)
	}
	for i := range r.Steps {
		s := &r.Steps[i]
		s.Detail, s.Err = secrets.text(s.Detail), secrets.err(s.Err)
		if s.Detail != "" && !slices.Contains(openChecks, s.Check) {
			s.Detail = hidden
		}
	}
}

// hideMail returns a mail address with only its domain. The null sender is
// returned as it is.
func hideMail(text string) string {
	if text == "" || text == "<>" {
		return text
	}
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return hidden + "@" + hideText(text[at+1:])
	}
	return hidden
}

// hideIP returns the network of an address.
func hideIP(text string) string {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		if text == "" {
			return ""
		}
		return hidden
	}
	addr = addr.Unmap().WithZone("")
	bits := networkBits6
	if addr.Is4() {
		bits = networkBits4
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return hidden
	}
	return network.String()
}

// hideHost returns the last two labels of a name.
func hideHost(name string) string {
	labels := strings.Split(name, ".")
	switch {
	case name == "" || name == "unknown":
		return name
	case len(labels) < 3 || ip4Like.MatchString(name) && !strings.ContainsFunc(name, isLetter) || strings.ContainsAny(name, "[]:"):
		return hidden
	}
	return hidden + "." + hideText(strings.Join(labels[len(labels)-2:], "."))
}

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// labelLike is a word of our own before an address, as in sender=ann@x.example. The
// address itself may contain = too: VERP writes the recipient into it.
var labelLike = regexp.MustCompile(`^(sender|recipient|login|address|queued|i|smtp\.mailfrom|header\.(from|i))=`)

// hideText hides everything in a text that looks like an address.
func hideText(text string) string {
	text = mailLike.ReplaceAllStringFunc(text, func(found string) string {
		return labelLike.FindString(found) + hidden + "@"
	})
	text = nibblesLike.ReplaceAllString(text, hidden)
	text = ip4Like.ReplaceAllString(text, hidden)
	return ip6Like.ReplaceAllStringFunc(text, func(found string) string {
		if strings.Count(found, ":") < 3 && !strings.Contains(found, "::") {
			return found // a time of day
		}
		return hidden
	})
}

// secrets are values of a record that must not appear in its other texts.
type secrets struct{ values []string }

func newSecrets(values ...string) secrets {
	var s secrets
	for _, v := range values {
		for _, secret := range []string{v, strings.Trim(v[:max(strings.LastIndexByte(v, '@'), 0)], "<")} {
			if secret != "" && secret != "<>" && secret != "unknown" {
				s.values = append(s.values, secret)
			}
		}
	}
	return s
}

func (s secrets) text(text string) string {
	if text == "" {
		return ""
	}
	for _, value := range s.values {
		text = replaceFold(text, value, hidden)
	}
	return hideText(text)
}

func (s secrets) err(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(s.text(err.Error()))
}

// replaceFold replaces all occurrences of old in text, whatever the case of ASCII
// letters.
func replaceFold(text, old, by string) string {
	lower, low := asciiLower(text), asciiLower(old)
	var out strings.Builder
	done := 0
	for from := 0; ; {
		at := strings.Index(lower[from:], low)
		if at < 0 {
			break
		}
		start, end := from+at, from+at+len(low)
		from = end
		if len(low) < minInWord && (inWord(lower, start-1) || inWord(lower, end)) {
			continue
		}
		out.WriteString(text[done:start] + by)
		done = end
	}
	out.WriteString(text[done:])
	return out.String()
}

// inWord reports whether an octet of a text in lower case belongs to a word.
func inWord(lower string, i int) bool {
	if i < 0 || i >= len(lower) {
		return false
	}
	c := lower[i]
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80
}

// asciiLower returns text with ASCII letters in lower case. It keeps the length,
// unlike strings.ToLower.
func asciiLower(text string) string {
	b := []byte(text)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
