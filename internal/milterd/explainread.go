package milterd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/milter/wire"
)

// readMessage reads the header of a file in the way in which Postfix passes it to the
// daemon. A line that is no field begins the body, with or without an empty line before
// it. The "From " line of a mailbox does not belong to the message. The caller reads
// the body from the reader that is returned.
func readMessage(message io.Reader) (fields []dkim.Field, body io.Reader, err error) {
	r := bufio.NewReader(dkim.NewCRLFReader(message))
	for size := 0; ; {
		line, err := dkim.ReadLine(r, wire.MaxHeaderBytes-size)
		if errors.Is(err, dkim.ErrHeaderTooLarge) {
			err = errTooLarge
		}
		if err != nil && err != io.EOF {
			return nil, nil, fmt.Errorf("read the message: %w", err)
		}
		size += len(line)
		text := strings.TrimRight(line, "\r\n")
		name, value, isField := cutField(text)
		switch {
		case !isField && size == len(line) && strings.HasPrefix(text, "From "):
			if err == io.EOF {
				return nil, nil, errors.New("read the message: nothing is behind its mailbox line")
			}
		case text == "":
			return fields, r, nil
		case isField && len(fields) == wire.MaxHeaders:
			return nil, nil, errTooLarge
		case isField:
			fields = append(fields, dkim.Field{Name: name, Value: value})
		case len(fields) == 0:
			return nil, nil, errors.New("read the message: header line 1 has no colon, so this is no message")
		case text[0] == ' ' || text[0] == '\t':
			fields[len(fields)-1].Value += "\r\n" + text
		default:
			return fields, io.MultiReader(strings.NewReader(line), r), nil
		}
	}
}

var errTooLarge = fmt.Errorf("the daemon refuses this message: its header has over %d fields or %d octets", wire.MaxHeaders, wire.MaxHeaderBytes)

// cutField splits a line that begins a field. Like Postfix, it accepts printable ASCII
// as the name, and blanks between the name and the colon.
func cutField(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	bare := strings.TrimRight(name, " \t")
	notInName := func(r rune) bool { return r <= ' ' || r > '~' }
	return name, value, ok && bare != "" && !strings.ContainsFunc(bare, notInName)
}

// arrival returns when a message arrived, from the topmost Received field with a date.
// The MTA beside the daemon wrote that field.
func arrival(fields []dkim.Field) (time.Time, bool) {
	for _, f := range fields {
		if !strings.EqualFold(strings.TrimRight(f.Name, " \t"), "Received") {
			continue
		}
		if at, err := mail.ParseDate(strings.Join(strings.Fields(f.Value[strings.LastIndexByte(f.Value, ';')+1:]), " ")); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}
