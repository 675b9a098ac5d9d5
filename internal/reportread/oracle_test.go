package reportread

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// What dmarc-cat, an independent reader, makes of the same files: the mails of each
// source, and what the reporter says of DKIM and SPF. With more than one job it mixes rows up.
func TestDMARCCat(t *testing.T) {
	if _, err := exec.LookPath("dmarc-cat"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	rows := ""
	for i := range 40 {
		verdicts := []string{"pass", "fail"}
		rows += rowXML("203.0.113."+strconv.Itoa(i%25+1), i+1, verdicts[i%2], verdicts[i/2%2])
	}
	text := `<?xml version="1.0"?>` + feedback(head+rows)
	for ext, content := range map[string]string{".xml": text, ".xml.gz": gzipped(t, text), ".zip": zippedAs(t, "receiver.example!example.com!1!2.xml", text)} {
		name := filepath.Join(t.TempDir(), "receiver.example!example.com!1!2"+ext)
		write(t, name, content)
		got := newFound(Limits{})
		if err := got.Path(t.Context(), name); err != nil || len(got.reports) != 1 {
			t.Fatal(err, got.problems)
		}
		ours := make(map[[3]string]int64)
		for _, g := range got.reports[0].Groups {
			ours[[3]string{g.Source.String(), verdict(g.DKIM), verdict(g.SPF)}] += g.Messages
		}
		out, err := exec.CommandContext(t.Context(), "dmarc-cat", "-N", "-j", "1", name).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		theirs := make(map[[3]string]int64)
		for _, m := range regexp.MustCompile(`(?m)^([0-9.]{7,}) +(\d+) +\S+ +\S+ +(pass|fail) +(pass|fail)`).FindAllStringSubmatch(string(out), -1) {
			n, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			theirs[[3]string{m[1], m[3], m[4]}] += n
		}
		if len(theirs) < 25 || !maps.Equal(ours, theirs) {
			t.Errorf("%s: ours %v\ntheirs %v\n%s", ext, ours, theirs, out)
		}
	}
}

func verdict(passed bool) string { return map[bool]string{true: "pass", false: "fail"}[passed] }
