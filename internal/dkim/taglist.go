package dkim

import (
	"errors"
	"strings"
)

// tag is one tag=value of a tag-list (RFC 6376 section 3.2).
type tag struct {
	name  string
	value string // without white space at its ends
	// start and end are the bounds of the value in the parsed text, including the
	// white space around it.
	start, end int
}

type tagList []tag

var (
	errTagSyntax    = errors.New("not a list of tag=value")
	errTagDuplicate = errors.New("a tag occurs twice")
	errTagMany      = errors.New("too many tags")
	errTagOctet     = errors.New("control character in a tag")
)

// parseTags parses a tag-list. Line breaks may be CRLF or LF. Names are
// case-sensitive. If a name occurs twice, the whole list is invalid. Only the
// last tag may be empty. Values may contain octets beyond ASCII (RFC 8616).
func parseTags(s string) (tagList, error) {
	var list tagList
	for pos := 0; ; {
		end := len(s)
		if i := strings.IndexByte(s[pos:], ';'); i >= 0 {
			end = pos + i
		}
		spec := s[pos:end]
		if end == len(s) && len(list) > 0 && trimFWS(spec) == "" {
			return list, nil
		}
		t, err := parseTag(spec, pos)
		if err != nil {
			return nil, err
		}
		if _, ok := list.get(t.name); ok {
			return nil, errTagDuplicate
		}
		if len(list) == maxTags {
			return nil, errTagMany
		}
		list = append(list, t)
		if end == len(s) {
			return list, nil
		}
		pos = end + 1
	}
}

func parseTag(spec string, offset int) (tag, error) {
	eq := strings.IndexByte(spec, '=')
	if eq < 0 {
		return tag{}, errTagSyntax
	}
	name := trimFWS(spec[:eq])
	if !isTagName(name) {
		return tag{}, errTagSyntax
	}
	value := trimFWS(spec[eq+1:])
	if !isTagValue(value) {
		return tag{}, errTagOctet
	}
	return tag{name: name, value: value, start: offset + eq + 1, end: offset + len(spec)}, nil
}

func isTagName(s string) bool {
	for i, b := range []byte(s) {
		letter := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
		if !letter && (i == 0 || b != '_' && (b < '0' || b > '9')) {
			return false
		}
	}
	return s != ""
}

func isTagValue(s string) bool {
	for _, b := range []byte(s) {
		if b < ' ' && !isFWS(b) || b == 0x7f {
			return false
		}
	}
	return true
}

func (l tagList) get(name string) (tag, bool) {
	for _, t := range l {
		if t.name == name {
			return t, true
		}
	}
	return tag{}, false
}

// text returns the value of a tag without any white space, or "" if there is
// no such tag.
func (l tagList) text(name string) string {
	t, _ := l.get(name)
	return stripFWS(t.value)
}

// words splits the value of a tag at its colons.
func (l tagList) words(name string) []string {
	text := l.text(name)
	if text == "" {
		return nil
	}
	return strings.Split(text, ":")
}

func isFWS(b byte) bool { return b == ' ' || b == '\t' || b == '\r' || b == '\n' }

func trimFWS(s string) string { return strings.Trim(s, " \t\r\n") }

func stripFWS(s string) string {
	if !strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < 0x80 && isFWS(byte(r)) {
			return -1
		}
		return r
	}, s)
}
