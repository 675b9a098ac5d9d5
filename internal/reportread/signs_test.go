package reportread

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// spamOf is a mail of a stranger: nothing but its attachment could be a report.
func spamOf(t *testing.T, kind, name, content string) string {
	t.Helper()
	return strings.Replace(mailOf(kind, name, content), "Subject: Report domain: example.com", "Subject: Your invoice", 1)
}

// Broken mails of strangers are counted, in folders and mailboxes. They are no problem.
func TestOddMails(t *testing.T) {
	archive := zipped(t, plain())
	odd := []string{
		spamOf(t, "application/zip", "invoice.zip", archive[:300]),
		spamOf(t, "application/zip", "invoice.zip", archive[:len(archive)-5]),
		spamOf(t, "application/gzip", "invoice.gz", "\x1f\x8bno gzip"),
		spamOf(t, "application/xml", "invoice.xml", "<?xml version=\"1.0\" encoding=\"EBCDIC-XY\"?><invoice>"),
		spamOf(t, "application/octet-stream", "x", "<invoice>\x01</invoice>"),
		"Subject: hello\nContent-Type: multipart/mixed; boundary=b\n\n--b\nX: " + strings.Repeat("x", 300<<10) + "\n\nhello\n--b--\n",
		"Subject: " + strings.Repeat("x", 300<<10) + "\n\nhello\n",
		spamOf(t, "application/zip", "many.zip", zipped(t, make([]string, 250)...)),
	}
	folder := t.TempDir()
	for i, text := range odd {
		write(t, filepath.Join(folder, fmt.Sprint(i)), text)
		named := newFound(Limits{})
		if err := named.Path(t.Context(), filepath.Join(folder, fmt.Sprint(i))); err != nil || len(named.problems) == 0 || named.Odd != 0 {
			t.Errorf("%d was named, and is read without a problem: %v", i, err)
		}
	}
	box := filepath.Join(t.TempDir(), "box")
	write(t, box, "From x\n"+strings.Join(odd, "\nFrom x\n")+"\nFrom x\n"+bareMail(zipped(t, plain())))
	for path, reports := range map[string]int{folder: 0, box: 1} {
		got := newFound(Limits{})
		if err := got.Path(t.Context(), path); err != nil || got.Failed != 0 || got.Odd != len(odd) || len(got.reports) != reports || got.OddWhy == nil || got.OddWhere == "" {
			t.Errorf("%s: %v, %q, %d of %d are odd, %d reports", path, err, got.problems, got.Odd, len(odd), len(got.reports))
		}
	}
}

// A report that is broken is a problem, in whatever way it can be recognized.
func TestBrokenReports(t *testing.T) {
	short := zipped(t, plain())[:300]
	const name = "receiver.example!example.com!1700006400!1700092799.zip"
	for i, text := range []string{
		mailOf("application/zip", "a.zip", short),
		strings.Replace(spamOf(t, "application/zip", "a.zip", short), "Your invoice", "=?utf-8?q?Preview_Report_Domain=3A_example.com?=", 1),
		spamOf(t, "application/zip", name, short),
		spamOf(t, "application/octet-stream", "report.XML.gz", "\x1f\x8bno gzip"),
		spamOf(t, "application/tlsrpt+gzip", "a", "\x1f\x8bno gzip"),
		spamOf(t, "application/gzip", "a.gz", gzipped(t, feedbackOf(random(64<<10)))[:32<<10]),
		spamOf(t, "application/octet-stream", "a", plain()[:400]),
		spamOf(t, "application/octet-stream", "a", feedback("")),
		"Content-Type: message/rfc822\n\n" + spamOf(t, "application/zip", name, short),
		"Subject: report domain: example.com\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text",
	} {
		folder := t.TempDir()
		write(t, filepath.Join(folder, "mail"), text)
		got := newFound(Limits{})
		if err := got.Path(t.Context(), folder); err != nil || len(got.problems) != 1 || got.Odd != 0 {
			t.Errorf("%d: %v, %q, odd: %v", i, err, got.problems, got.OddWhy)
		}
	}
}

// A line that is no field does not hide the report.
func TestHeaderWithBadLines(t *testing.T) {
	good := mailOf("application/zip", "a.zip", zipped(t, plain()))
	for _, bad := range []string{"no field\r\n", "no field\r\n\tgoes on and on: x\r\n", " begins with a space\r\n", ": no name\r\n", "X\x00Y Z: name\r\n", "X: \xff\x01\r\n", ">From x@y.example\r\n"} {
		if got := readText(t, "Xy: z\r\n"+bad+good, Limits{}); len(got.reports) != 1 || got.problems != nil {
			t.Errorf("%q: %d reports, %q", bad, len(got.reports), got.problems)
		}
	}
}

// What is wrong with the machine is never taken for an odd mail.
func TestOddIsNotOurs(t *testing.T) {
	u := &unit{reader: &Reader{}, strange: true}
	broken := &fs.PathError{Op: "read", Path: "mail", Err: syscall.EIO}
	for _, err := range []error{nil, errStop{errEmpty}, broken, fmt.Errorf("mail: %w", broken), fmt.Errorf("XML: %w", context.Canceled)} {
		if u.isOdd(err) {
			t.Errorf("%v", err)
		}
	}
	if !u.isOdd(errEmpty) {
		t.Errorf("%v is not odd", errEmpty)
	}
}
