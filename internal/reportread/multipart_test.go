package reportread

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A part whose header is faulty does not hide the parts after it.
func TestFaultyParts(t *testing.T) {
	report := "--==b==\r\n" + strings.SplitN(mailOf("application/zip", "a.zip", zipped(t, plain())), "--==b==\r\n", 3)[2]
	for name, part := range map[string]string{
		"a line that is no field": "--==b==\r\nContent-Type: text/plain\r\nthis is no field\r\n\r\ntext\r\n",
		"begins with white space": "--==b==\r\n Content-Type: text/plain\r\n\r\ntext\r\n",
		"a name with a space":     "--==b==\r\nContent Type: text/plain\r\n\r\ntext\r\n",
		"no header":               "--==b==\r\ntext\r\nmore\r\n",
		"nothing":                 "--==b==\r\n",
		"ends in its header":      "--==b==\r\nContent-Type: text/plain\r\n",
		"two bad lines":           "--==b==\r\n\x00\r\n:\r\n\r\ntext\r\n--==b==\r\nbad\r\n\r\ntext\r\n",
		"parts without an end":    "--==b==\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\ntext\r\n--c\r\n\r\nmore\r\n",
		"a line like a boundary":  "--==b==\r\n\r\n --==b==\r\n--==b==x\r\n" + strings.Repeat("x", 9000) + "--==b==\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got := readText(t, "From: r@receiver.example\r\nContent-Type: multipart/mixed; boundary=\"==b==\"\r\n\r\n"+part+report, Limits{})
			if len(got.reports) != 1 || got.problems != nil {
				t.Errorf("%d reports, %q", len(got.reports), got.problems)
			}
		})
	}
	long := "--==b==\r\nSubject: " + strings.Repeat("x", maxHeader) + "\r\n\r\ntext\r\n"
	nested := "--==b==\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" + strings.ReplaceAll(long, "==b==", "c")
	for _, part := range []string{long, nested} {
		got := readText(t, "From: r@receiver.example\r\nContent-Type: multipart/mixed; boundary=\"==b==\"\r\n\r\n"+part+report, Limits{})
		if len(got.reports) != 1 || len(got.problems) != 1 || !strings.Contains(got.problems[0], "longer than 262144 octets") {
			t.Errorf("a long header: %d reports, %q", len(got.reports), got.problems)
		}
	}
}

// A mail may end without its last boundary.
func TestNoLastBoundary(t *testing.T) {
	for kind, content := range map[string]string{"application/zip": zipped(t, plain()), "application/gzip": gzipped(t, plain()), "text/xml": plain(), "application/json": tlsJSON} {
		text := strings.TrimSuffix(mailOf(kind, "a", content), "--==b==--\r\n")
		if got := readText(t, text, Limits{}); len(got.reports)+len(got.tls) != 1 || got.problems != nil {
			t.Errorf("%s: %d reports, %q", kind, len(got.reports)+len(got.tls), got.problems)
		}
		if got := readText(t, text[:len(text)-100], Limits{}); len(got.problems) != 1 {
			t.Errorf("%s, cut off: %d reports, %q", kind, len(got.reports)+len(got.tls), got.problems)
		}
	}
}

// Each part has the octets between two boundaries; the line end before one is not its own.
func TestMultipart(t *testing.T) {
	long := strings.Repeat("0123456789", 2000)
	for text, want := range map[string]string{
		"before\r\n--b\r\none\r\ntwo\r\n--b  \n\r\n--b\nfour\n\n--b--\r\nafter\r\n--b\r\n": "one\r\ntwo||four\n|EOF",
		"--b\r\n" + long + "\n" + long + "\r\n--b\r\nx":                                    long + "\n" + long + "|x|unexpected EOF",
		"--b\r\nx\r\n--b-\r\n --b\r\ny\r\n--b--":                                           "x\r\n--b-\r\n --b\r\ny|EOF",
		"--b\nx\r\r\n--b--\n":                                                              "x\r|EOF",
		"nothing":                                                                          "unexpected EOF",
		"--b--\n--b\nx\n":                                                                  "EOF",
		"":                                                                                 "unexpected EOF",
	} {
		parts := newMultipart(strings.NewReader(text), "b ")
		got := ""
		for parts.next() {
			part, err := io.ReadAll(parts)
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Error(err)
			}
			got += string(part) + "|"
		}
		if got += parts.ended().Error(); got != want {
			t.Errorf("%.60q: %.100q, want %.100q", text, got, want)
		}
	}
}
