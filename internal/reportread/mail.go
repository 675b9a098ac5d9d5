package reportread

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/textproto"
	"path"
	"strings"
)

const maxHeader = 256 << 10

var errHeader = fmt.Errorf("the header of the mail is longer than %d octets", maxHeader)

// mail reads the reports that a mail carries.
func (u *unit) mail(where string, in *buffered, depth int) error {
	header, body, err := split(in)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	u.report = u.report || reportSubject(header.Get("Subject"))
	return u.entity(where, header, body, depth)
}

// split separates the header of a mail, or of a part of one, from its body.
func split(in io.Reader) (textproto.MIMEHeader, io.Reader, error) {
	bounded := &pieces{in: in, left: maxHeader, err: errHeader}
	text := textproto.NewReader(bufio.NewReader(bounded))
	header, err := readHeader(text)
	bounded.unbound()
	return header, text.R, err
}

// readHeader reads the header of a mail or of a part. Like mail programs, it skips lines that are no
// fields: one bad line of a relay must not hide a report.
func readHeader(text *textproto.Reader) (textproto.MIMEHeader, error) {
	header := make(textproto.MIMEHeader)
	for {
		line, err := text.ReadContinuedLine()
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if line == "" {
			return header, nil
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			header.Add(strings.TrimRight(name, " \t"), strings.TrimSpace(value))
		}
	}
}

// entity reads a mail or a part of one.
func (u *unit) entity(where string, header textproto.MIMEHeader, body io.Reader, depth int) error {
	if depth > maxDepth {
		return errDepth
	}
	kind, params, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil { // a type with mistakes: the part that was parsed is used
		kind, _, _ = strings.Cut(strings.ToLower(header.Get("Content-Type")), ";")
		kind = strings.TrimSpace(kind)
	}
	if strings.HasPrefix(kind, "multipart/") && params["boundary"] != "" {
		return u.multipart(where, newMultipart(body, params["boundary"]), depth)
	}
	name := fileName(header, params)
	u.report = u.report || reportPart(kind, name)
	if !mayHoldReport(kind, name) {
		return nil
	}
	if name != "" {
		where = fmt.Sprintf("%s: %.200q", where, name)
	}
	return u.part(where, newBuffered(decoded(header.Get("Content-Transfer-Encoding"), body)), depth)
}

// multipart reads the parts of a mail. If one is faulty, the others are still read.
func (u *unit) multipart(where string, parts *multipart, depth int) error {
	for n := 0; parts.next(); n++ {
		if n == maxParts {
			return errParts
		}
		header, body, err := split(parts)
		switch {
		case err == nil:
			err = u.entity(where, header, openEnd{body}, depth+1)
		case errors.Is(err, io.ErrUnexpectedEOF) && u.found > 0:
			return nil // the mail ends in a header, but the report was complete
		default:
			err = fmt.Errorf("mail: %w", err)
		}
		if errors.Is(err, errParts) {
			return err
		}
		if err := u.survive(where, err); err != nil {
			return err
		}
	}
	return parts.failed()
}

// openEnd reads a part whose mail may end without its last boundary. Whether a report is
// complete, its own end shows.
type openEnd struct{ in io.Reader }

func (o openEnd) Read(p []byte) (int, error) {
	n, err := o.in.Read(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// fileName returns the file name in the header of a part.
func fileName(header textproto.MIMEHeader, params map[string]string) string {
	_, disposition, err := mime.ParseMediaType(header.Get("Content-Disposition"))
	if err != nil {
		disposition = nil
	}
	name := cmp.Or(disposition["filename"], params["name"])
	if plain, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
		name = plain
	}
	if name == "" {
		return ""
	}
	return path.Base(strings.ToValidUTF8(name, "\ufffd"))
}

// mayHoldReport reports whether a part is more than text for people. What the part
// really is, its octets show later.
func mayHoldReport(kind, name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".xml", ".gz", ".zip", ".json", ".eml":
		return true
	}
	switch {
	case kind == "text/xml", strings.HasPrefix(kind, "message/"):
		return kind != "message/delivery-status" && kind != "message/feedback-report"
	case strings.HasPrefix(kind, "application/"):
		return true
	}
	return false
}

// decoded decodes a transfer encoding.
func decoded(encoding string, body io.Reader) io.Reader {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &alphabet{body})
	case "quoted-printable":
		return quotedprintable.NewReader(body)
	}
	return body
}

// alphabet skips characters that are not in base64 (RFC 2045 section 6.8).
type alphabet struct{ in io.Reader }

func (a *alphabet) Read(p []byte) (int, error) {
	n, err := a.in.Read(p)
	kept := p[:0]
	for _, c := range p[:n] {
		if isBase64(c) {
			kept = append(kept, c)
		}
	}
	return len(kept), err
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}
