package record

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// AppendConsole appends r as one short line for people, without its time and
// level: first the decision and its reason, then the subject, then the answer.
// The other fields of a record are only in the JSON form.
func (r *Record) AppendConsole(b []byte) []byte {
	b = append(b, cmp.Or(r.Check, r.Daemon, "-")...)
	for _, word := range []string{r.Verdict, string(r.Reason)} {
		b = append(append(b, ' '), cmp.Or(word, "-")...)
	}
	if r.Mode == ModeShadow {
		b = append(b, " (shadow)"...)
	}
	for _, m := range r.consoleMembers() {
		b = appendNamed(b, m.key, m.text)
	}
	if r.Err != nil {
		b = appendNamed(b, "error", r.Err.Error())
	}
	b = append(b, ' ')
	b = strconv.AppendFloat(b, milliseconds(r.Duration.Round(10*time.Microsecond)), 'f', -1, 64)
	return append(b, "ms"...)
}

// consoleMembers returns the members that the line shows, in its order.
func (r *Record) consoleMembers() [14]member {
	client := r.ClientAddress
	if r.ClientName != "" {
		client = r.ClientName + "[" + client + "]"
	}
	return [...]member{
		{"queue", r.QueueID},
		{"client", client},
		{"peer", r.Peer},
		{"login", r.SASLUsername},
		{"sender", r.Sender},
		{"recipient", r.Recipient},
		{"from", r.From},
		{"spf", r.SPF},
		{"dkim", r.DKIM},
		{"arc", r.ARC},
		{"dmarc", r.DMARC},
		{"disposition", r.Disposition},
		{"signed", r.SignedBy},
		{"reply", r.Action},
	}
}

// appendNamed appends a text with its name, unless the text is empty. A text with
// a blank or a control character is quoted.
func appendNamed(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	b = append(append(append(b, ' '), name...), '=')
	if isPlain(text) && !strings.ContainsAny(text, " \x7f") {
		return append(b, text...)
	}
	return strconv.AppendQuoteToGraphic(b, text)
}
