package reportread

import (
	"context"
	"errors"
	"io/fs"
	"mime"
	"regexp"
	"strings"
)

// What shows that a mail is to be a report, although it cannot be read. Each standard asks
// for these forms. A document with a <feedback> element is a report too.

// reportName matches the file names of reports, as receiver.example!example.com!1700006400!1700092799.xml.gz
// (RFC 7489 section 7.2.1.1, RFC 9990, RFC 8460 section 5.1), and all names of compressed XML and JSON.
var reportName = regexp.MustCompile(`(?i)![0-9]+![0-9]+|\.(xml|json)\.(gz|zip)$`)

// reportPart reports whether a part of a mail has the name or the type of a report.
func reportPart(kind, name string) bool {
	return reportName.MatchString(name) || strings.HasPrefix(kind, "application/tlsrpt")
}

// reportSubject reports whether the subject is that of a report: "Report Domain: ..." or
// "Preview report Domain: ...".
func reportSubject(subject string) bool {
	if plain, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
		subject = plain
	}
	return strings.Contains(strings.ToLower(subject), "report domain:")
}

// isOdd reports whether an error is no problem of ours: a stranger has sent a mail that
// cannot be read, and nothing shows that it is to be a report.
func (u *unit) isOdd(err error) bool {
	return err != nil && u.strange && !u.report && !isOther(err) && !isOurs(err)
}

// isOurs reports whether an error has another cause than what was sent: the file cannot be
// read, the caller wants to end, or its function has failed.
func isOurs(err error) bool {
	return errors.As(err, &errStop{}) || errors.As(err, new(*fs.PathError)) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// noteOdd notes that a part, or all, of an odd mail could not be read.
func (u *unit) noteOdd(where string, err error) {
	u.odd = true
	if u.reader.OddWhy == nil {
		u.reader.OddWhere, u.reader.OddWhy = where, err
	}
}
