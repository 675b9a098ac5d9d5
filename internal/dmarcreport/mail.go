package dmarcreport

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// Field is a header field. It is written as Name + ":" + Value + CRLF, and folded lines
// end in CRLF.
type Field struct{ Name, Value string }

// lineOctets is how many octets one base64 line of the attachment encodes.
const lineOctets = 57

// mail is the mail with a report to one address.
type mail struct {
	report *Report
	to     string
	file   *os.File // the attachment
	date   time.Time
}

// header returns the header without signatures. Only the date differs if the report is
// sent again.
func (m *mail) header() []Field {
	r := m.report
	return []Field{
		{"From", " " + r.From},
		{"To", " " + m.to},
		{"Subject", " Report Domain: " + r.Domain.Name + "\r\n\tSubmitter: " + r.Receiver + "\r\n\tReport-ID: <" + r.ID() + ">"},
		{"Date", " " + m.date.UTC().Format(time.RFC1123Z)},
		{"Message-ID", " <" + r.ID() + ".dmarc-report@" + r.Receiver + ">"},
		{"Auto-Submitted", " auto-generated"},
		{"MIME-Version", " 1.0"},
		{"Content-Type", " multipart/mixed;\r\n\tboundary=\"" + m.boundary() + "\""},
	}
}

// days returns the days that the report covers, as a part of a sentence.
func (r *Report) days() string {
	if r.Domain.Since != 0 {
		return fmt.Sprintf("from %s to %s", r.Domain.Since, r.Day)
	}
	return "on " + r.Day.String()
}

func (m *mail) boundary() string { return "report-" + m.report.ID() }

// writeBody writes the body. Lines end in CRLF.
func (m *mail) writeBody(w io.Writer) error {
	r := m.report
	b := bufio.NewWriterSize(w, 16<<10)
	lines := []string{
		"--" + m.boundary(),
		"Content-Type: text/plain; charset=us-ascii", "",
		fmt.Sprintf("This is a DMARC aggregate report (RFC 9990) of %s about mail of", r.Receiver),
		fmt.Sprintf("%s %s (UTC).", r.Domain.Name, r.days()), "",
		"--" + m.boundary(),
		"Content-Type: application/gzip; name=\"" + r.FileName() + "\"",
		"Content-Transfer-Encoding: base64",
		"Content-Disposition: attachment;", "\tfilename=\"" + r.FileName() + "\"", "", "",
	}
	if _, err := b.WriteString(strings.Join(lines, "\r\n")); err != nil {
		return err
	}
	if err := m.writeFile(b); err != nil {
		return err
	}
	if _, err := b.WriteString("--" + m.boundary() + "--\r\n"); err != nil {
		return err
	}
	return b.Flush()
}

// writeFile writes the attachment in lines of base64.
func (m *mail) writeFile(w *bufio.Writer) error {
	in := io.NewSectionReader(m.file, 0, 1<<62)
	var line [lineOctets]byte
	var text [lineOctets / 3 * 4]byte
	for {
		n, err := io.ReadFull(in, line[:])
		if n > 0 {
			base64.StdEncoding.Encode(text[:], line[:n])
			if _, err := w.Write(text[:base64.StdEncoding.EncodedLen(n)]); err != nil {
				return err
			}
			if _, err := w.WriteString("\r\n"); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}
