package milter

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	library "github.com/emersion/go-milter"

	"github.com/postern-mail/postern/milter/wire"
)

// Bounds of what is sent.
const (
	maxReplyLine  = 400       // octets of text in one line of a reply
	maxReplyLines = 8         // lines of a reply
	maxFieldValue = 100_000   // octets; Postfix cuts fields at header_size_limit
	maxQuarantine = 100       // octets; Postfix keeps no more of the reason
	maxActionText = 10        // modifications that a record names
	insertLimit   = 1<<31 - 1 // an index is a signed 32-bit number to Postfix
)

// reply is one answer to the MTA. Its Continue is always true, whatever the answer
// is. Otherwise the library would replace its Milter after the answer, and the new
// one would know nothing of CONNECT and HELO.
type reply struct {
	code library.ActionCode
	text string // of ActReplyCode, percent signs not doubled
}

var _ library.Response = reply{}

func (r reply) Continue() bool { return true }

// Response encodes the reply. Percent signs are doubled, because the MTA reads the
// text as a format.
func (r reply) Response() *library.Message {
	if r.code != library.ActReplyCode {
		return &library.Message{Code: byte(r.code)}
	}
	data := strings.ReplaceAll(r.text, "%", "%%") + "\x00"
	return &library.Message{Code: byte(r.code), Data: []byte(data)}
}

// String returns the reply as the record shows it.
func (r reply) String() string {
	switch r.code {
	case library.ActContinue:
		return "continue"
	case library.ActReplyCode:
		return r.text
	}
	return "accept"
}

// replyTo turns the answer of a stage into the reply to the MTA.
func replyTo(a Answer) reply {
	switch a.Verdict {
	case Accept:
		return reply{code: library.ActAccept}
	case Reject:
		return reply{library.ActReplyCode, a.Reply.spell(550, "5.7.1", "Message rejected")}
	case Defer:
		return reply{library.ActReplyCode, a.Reply.spell(451, "4.7.1", "Try again later")}
	}
	return reply{code: library.ActContinue}
}

// spell returns the reply as SMTP has it, with code and status on every line. A code
// or status that is not of the class of the defaults is replaced by them.
func (r Reply) spell(code int, status, text string) string {
	class := code / 100
	if r.Code/100 == class && r.Code != 421 {
		code = r.Code
	}
	if validStatus(r.Status, class) {
		status = r.Status
	}
	lines := replyLines(r.Text)
	if len(lines) == 0 {
		lines = []string{text}
	}
	var b strings.Builder
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(strconv.Itoa(code) + separator + status + " " + line)
	}
	return b.String()
}

// validStatus checks class "." subject "." detail (RFC 3463 section 2).
func validStatus(status string, class int) bool {
	parts := strings.Split(status, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return false
	}
	for _, p := range parts[1:] {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n > 999 || p != strconv.FormatUint(n, 10) {
			return false
		}
	}
	return true
}

// replyLines splits text into lines of printable ASCII, none of them empty.
func replyLines(text string) []string {
	var lines []string
	for raw := range strings.SplitSeq(text, "\n") {
		line := strings.Trim(strings.Map(replyRune, raw), " ")
		for line != "" && len(lines) < maxReplyLines {
			n := min(len(line), maxReplyLine)
			if n < len(line) {
				if space := strings.LastIndexByte(line[:n], ' '); space > 0 {
					n = space
				}
			}
			lines = append(lines, strings.TrimRight(line[:n], " "))
			line = strings.TrimLeft(line[n:], " ")
		}
	}
	return lines
}

func replyRune(r rune) rune {
	switch {
	case r == '\t':
		return ' '
	case r < ' ' || r == 0x7f:
		return -1
	case r > 0x7f:
		return '?'
	}
	return r
}

// sendField sends the modification of a field. The library's Modifier does the same, and
// needs much memory for it.
func sendField(g *wire.Guard, code library.ModifyActCode, index int, name, value string) error {
	var at [4]byte
	binary.BigEndian.PutUint32(at[:], uint32(index))
	return g.Send(byte(code), string(at[:]), name, "\x00", value, "\x00")
}

// edit sends the modifications of a decision whose message is delivered. The first
// error means that the connection is lost. Modifications that cannot be encoded, or
// that the MTA does not allow, are left out and returned as problem.
func edit(g *wire.Guard, l limits, d *Decision) (problem, err error) {
	var problems []error
	if bad := l.cut(d); bad != nil {
		problems = append(problems, bad)
	}
	for _, c := range d.Change {
		value, bad := fieldValue(c.Value)
		if bad = errors.Join(bad, checkPosition(c.Position)); bad != nil {
			problems = append(problems, bad)
		} else if err := sendField(g, library.ActChangeHeader, c.Index, c.Name, l.sent(value)); err != nil {
			return nil, err
		}
	}
	for _, p := range deletions(d.Delete) {
		if bad := checkPosition(p); bad != nil {
			problems = append(problems, bad)
		} else if err := sendField(g, library.ActChangeHeader, p.Index, p.Name, ""); err != nil {
			return nil, err
		}
	}
	// The last field inserted at an index comes first.
	for _, i := range slices.Backward(d.Insert) {
		value, bad := fieldValue(i.Value)
		if bad = errors.Join(bad, checkInsertion(i)); bad != nil {
			problems = append(problems, bad)
		} else if err := sendField(g, library.ActInsertHeader, i.Index, i.Name, l.sent(value)); err != nil {
			return nil, err
		}
	}
	if reason := quarantineReason(d.Quarantine); reason != "" {
		if err := g.Send(byte(library.ActQuarantine), reason, "\x00"); err != nil {
			return nil, err
		}
	}
	return errors.Join(problems...), nil
}

// deletions sorts positions so that no deletion shifts the index of a later one. A
// position that is listed twice is deleted once.
func deletions(list []Position) []Position {
	sorted := slices.SortedFunc(slices.Values(list), func(a, b Position) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)))
	})
	return slices.CompactFunc(sorted, func(a, b Position) bool {
		return a.Index == b.Index && strings.EqualFold(a.Name, b.Name)
	})
}

func checkPosition(p Position) error {
	if p.Index < 1 || p.Index > insertLimit {
		return fmt.Errorf("header field %q has no index %d", p.Name, p.Index)
	}
	return checkName(p.Name)
}

func checkInsertion(i Insertion) error {
	if i.Index < 0 || i.Index > insertLimit {
		return fmt.Errorf("header field %q cannot be at %d", i.Name, i.Index)
	}
	return checkName(i.Name)
}

// checkName requires a field name of RFC 5322 section 2.2.
func checkName(name string) error {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }
	if name == "" || strings.IndexFunc(name, bad) >= 0 {
		return fmt.Errorf("%q is no header field name", name)
	}
	return nil
}

// fieldValue returns the value in a form that can only be one header field: with a
// space in front (as negotiated), folds as LF and white space, and no other control
// characters.
func fieldValue(value string) (string, error) {
	if len(value) > maxFieldValue {
		return "", fmt.Errorf("header field value of %d octets is too long", len(value))
	}
	value = strings.TrimRight(value, " \t\r\n")
	var b strings.Builder
	b.Grow(len(value) + 1)
	if value == "" || (value[0] != ' ' && value[0] != '\t') {
		b.WriteByte(' ')
	}
	for i := range len(value) {
		switch c := value[i]; {
		case c == '\n' && isFold(value[i+1:]):
			b.WriteByte('\n')
		case c == '\t' || c >= ' ' && c != 0x7f:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// isFold reports whether what follows a line feed continues the field: white space
// and, in the same line, something else. For some readers, a line of white space
// alone ends the header.
func isFold(rest string) bool {
	if rest == "" || (rest[0] != ' ' && rest[0] != '\t') {
		return false
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strings.IndexFunc(line, visible) >= 0
}

func visible(r rune) bool { return r > ' ' && r != 0x7f }

func quarantineReason(reason string) string {
	reason = strings.Trim(strings.Map(replyRune, reason), " ")
	return reason[:min(len(reason), maxQuarantine)]
}

// describe returns the reply and modifications of a delivered message, for the
// record.
func describe(d *Decision) string {
	parts := []string{"accept"}
	for _, c := range d.Change {
		parts = append(parts, fmt.Sprintf("change %s[%d]", c.Name, c.Index))
	}
	for _, p := range d.Delete {
		parts = append(parts, fmt.Sprintf("delete %s[%d]", p.Name, p.Index))
	}
	for _, i := range d.Insert {
		parts = append(parts, "insert "+i.Name)
	}
	if more := len(parts) - 1 - maxActionText; more > 0 {
		parts = append(parts[:1+maxActionText], fmt.Sprintf("and %d more", more))
	}
	if d.Quarantine != "" {
		parts = append(parts, "quarantine")
	}
	return strings.Join(parts, ", ")
}
