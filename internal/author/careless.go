package author

import (
	"bytes"
	"iter"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// guess adds every domain that a text could be read to contain. A single label
// counts only if there is no better domain: "John @ work <a@example.com>" is
// not an address at "work". But a label that a control character cuts off from
// a longer name always counts, because some readers stop there.
func (a *Author) guess(text string, found ...string) {
	texts := []string{text}
	if decoded, ok := decodeWords(text); ok {
		texts = append(texts, decoded)
	}
	if plain := dropComments(text); plain != text {
		texts = append(texts, plain)
	}
	var single []string
	signs := false
	for _, text := range texts {
		for domain, whole := range candidates(text) {
			if a.guesses++; a.guesses > MaxAddresses {
				a.overflow = true
				return
			}
			signs = true
			domain, err := mailaddr.ParseDomain(domain)
			switch {
			case err != nil:
			case whole, strings.Contains(domain, "."):
				found = append(found, domain)
			default:
				single = append(single, domain)
			}
		}
	}
	a.Malformed = a.Malformed || signs
	if len(found) == 0 {
		found = single
	}
	a.unusable = a.unusable || signs && len(found) == 0
	for _, domain := range found {
		a.addDomain(domain)
	}
}

// candidates yields the text that could be a domain after each "@", and whether
// it counts even as a single label.
func candidates(text string) iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		for {
			at := strings.IndexByte(text, '@')
			if at < 0 {
				return
			}
			text = text[at+1:]
			all, cut := readings(strings.TrimLeft(text, " \t\r\n["))
			for _, domain := range all {
				if !yield(domain, cut) {
					return
				}
			}
		}
	}
}

// readings returns the domain at the start of a text, up to the first octet
// that cannot be in a domain. If that octet is a control character, a quote or
// an escape, some readers drop it, so their reading counts too. So does the
// reading without the space in brackets. cut reports whether the octet is a
// control character.
func readings(text string) (all []string, cut bool) {
	end := domainEnd(text)
	all = []string{strings.Trim(text[:end], ".-")}
	if end == len(text) {
		return all, false
	}
	if isHidden(text[end]) {
		domain, _ := dropOctets(text, isHidden)
		all = append(all, domain)
	}
	if isHiddenOrSpace(text[end]) {
		if domain, next := dropOctets(text, isHiddenOrSpace); next == '>' {
			all = append(all, domain)
		}
	}
	return all, isControl(text[end])
}

// maxCandidate is how much is read across dropped octets. No domain is longer,
// even as U-labels in UTF-8.
const maxCandidate = 1024

// dropOctets reads a domain and drops certain octets. It stops at the next
// octet that cannot be in a domain, and returns that octet too.
func dropOctets(text string, drop func(byte) bool) (domain string, next byte) {
	kept := make([]byte, 0, 64)
	for i := 0; i < min(len(text), maxCandidate); i++ {
		if drop(text[i]) {
			continue
		}
		if !isDomainOctet(text[i]) {
			next = text[i]
			break
		}
		kept = append(kept, text[i])
	}
	return string(bytes.Trim(kept, ".-")), next
}

// dropComments returns the text without comments, as some readers join it.
func dropComments(text string) string {
	var kept []byte
	for {
		start := strings.IndexByte(text, '(')
		if start < 0 {
			break
		}
		end := mailaddr.CommentEnd(text[start:])
		if end < 0 {
			break
		}
		kept = append(kept, text[:start]...)
		text = text[start+end:]
	}
	return string(kept) + text
}

func domainEnd(text string) int {
	for i := range len(text) {
		if !isDomainOctet(text[i]) {
			return i
		}
	}
	return len(text)
}

func isDomainOctet(b byte) bool {
	return isAlpha(b) || isDigit(b) || b == '-' || b == '.' || b == '_' || b >= 0x80
}

// isHidden reports whether some readers drop a character from an address: a
// control character, or a character for quotes and escapes.
func isHidden(b byte) bool {
	return isControl(b) || b == '"' || b == '\\'
}

func isControl(b byte) bool { return b < ' ' && !isSpace(b) || b == 0x7f }

func isHiddenOrSpace(b byte) bool { return isHidden(b) || isSpace(b) }

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

func isAlpha(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
