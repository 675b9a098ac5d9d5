package arc

import (
	"bufio"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/dkim"
	reader "github.com/postern-mail/postern/internal/golden"
)

// FuzzChain changes golden messages. A chain that passes must have been sealed
// by the golden servers, whatever was changed.
func FuzzChain(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "-50.eml") && !strings.HasSuffix(file, "-51.eml") {
			f.Add([]byte(readGolden(f, file).message))
		}
	}
	for _, seed := range hostileChains(readGolden(f, "testdata/golden/pass-2.eml").message) {
		f.Add([]byte(seed))
	}
	z := readZone(f, "testdata/golden/zone")
	f.Fuzz(func(t *testing.T, message []byte) {
		r := bufio.NewReader(dkim.NewCRLFReader(strings.NewReader(string(message))))
		fields, err := reader.Header[dkim.Field](r)
		if err != nil {
			return
		}
		m := (&Verifier{Resolver: z}).Start(t.Context(), fields)
		if _, err := io.Copy(m, r); err != nil {
			t.Fatal(err)
		}
		result := m.Finish()
		sealed := slices.ContainsFunc(fields, func(f dkim.Field) bool { return kindOf(f) != "" })
		if (result.Status == None) == sealed || (result.Status == Fail) != (result.Reason != "") {
			t.Fatalf("%+v", result)
		}
		if len(result.Sets) > MaxSets || result.OldestPass < 0 || result.OldestPass > len(result.Sets) {
			t.Fatalf("out of bounds: %+v", result)
		}
		for i, s := range result.Sets {
			if s.Instance != i+1 || s.Sealer == "" || s.AuthServID == "" {
				t.Fatalf("set %d: %+v", i+1, s)
			}
			if result.Status == Pass && !z.Has(s.Selector+"._domainkey."+s.Sealer) {
				t.Fatalf("passed with a seal of %s", s.Sealer)
			}
		}
	})
}

// hostileChains changes a message of two sets.
func hostileChains(message string) []string {
	all := []string{
		strings.ReplaceAll(message, "h=from:", "h=from:"+strings.Repeat("x:", 5000)),
		message + message,
	}
	for _, instance := range []string{"0", "01", "51", "-1", "99999999999", "1e1", ""} {
		all = append(all, strings.ReplaceAll(message, "i=2", "i="+instance))
	}
	for _, cv := range []string{"cv=fail", "cv=none", "cv=pass; cv=none", "cv=", "cv=p\r\n ass"} {
		all = append(all, strings.ReplaceAll(message, "cv=pass", cv), strings.ReplaceAll(message, "cv=none", cv))
	}
	var many strings.Builder
	for i := MaxSets + 1; i > 0; i-- {
		fmt.Fprintf(&many, "ARC-Seal: i=%d; cv=pass; a=rsa-sha256; d=a.example; s=b; b=AA==\r\nARC-Message-Signature: i=%[1]d; a=rsa-sha256; "+
			"d=a.example; s=b; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i=%[1]d; a\r\n", i)
	}
	return append(all, many.String()+"From: a@author.example\r\n\r\n")
}

func FuzzParseResults(f *testing.F) {
	for _, seed := range []string{
		" i=1; mx; dmarc=pass header.from=a.example", ` i=1;"a\"b";x=y z="`, "((((", " i = 1 ; = ; / = ;;", `i=1;mx;dmarc="pass"`,
		" i=0; mx", " i=99999999999; mx", " i=1; mx" + strings.Repeat(";a=b", maxMethods+1), " i=1; mx" + strings.Repeat(" a=b", 1000), " i=1; mx; (" + strings.Repeat("(", 1000),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s, err := parseResults(value)
		if err != nil {
			return
		}
		if s.Instance < 1 || s.Instance > MaxSets || s.AuthServID == "" && !strings.Contains(value, `""`) || len(s.Results) > maxMethods {
			t.Fatalf("%q: %+v", value, s)
		}
		for _, m := range s.Results {
			if m.Method == "" || !strings.Contains(strings.ToLower(value), m.Method[:1]) {
				t.Fatalf("%q: method %q", value, m.Method)
			}
		}
		if s.sawPass("author.example") && !strings.Contains(strings.ToLower(value), "dmarc") {
			t.Fatalf("%q: DMARC passed out of nothing", value)
		}
	})
}
