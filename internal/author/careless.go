package author

import (
	"bytes"
	"iter"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// guess adds every domain that a text could be read to hold, after those found
// already. Single labels count when there is nothing better: "John @ work
// <a@example.com>" is no address at "work". One that a control character cuts off
// a longer name always counts: some readers stop there.
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
		a.add(domain)
	}
}

// candidates yields what could be the domain behind each "@", and whether it
// counts even as a single label.
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

// readings returns the domain that a text begins with, up to the first octet that
// cannot be in one. When that is a control character, a quote or an escape, the
// reading of those who drop it counts too, and so does that of those who drop
// the space within brackets. cut says that it is a control character.
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

// maxCandidate bounds what is read across dropped octets: no domain is
// longer, as U-labels in UTF-8.
const maxCandidate = 1024

// dropOctets reads a domain without certain octets, up to the next one that
// cannot be in it, which it gives too.
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

// dropComments gives what is left to those who put together what is around a
// comment.
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

// isHidden recognises what some readers drop from an address: control characters, and
// what quotes and escapes.
func isHidden(b byte) bool {
	return isControl(b) || b == '"' || b == '\\'
}

func isControl(b byte) bool { return b < ' ' && !isSpace(b) || b == 0x7f }

func isHiddenOrSpace(b byte) bool { return isHidden(b) || isSpace(b) }

func isSpace(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

func isAlpha(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
