package sign

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Exactly the causes that break a signature on the way are reported.
func TestFragile(t *testing.T) {
	keys := someKeysOf(t, "example.com/f.private")
	const from = "From: u@example.com"
	for _, test := range []struct {
		name, header, body string
		utf8               bool
		want               []Fragile
	}{
		{"plain", from + "|To: b@example.org", "text\r\n", false, nil},
		{"a long line", from, strings.Repeat("x", 999) + "\r\n", false, []Fragile{FragileLine}},
		{"the longest line", from, strings.Repeat("x", 998) + "\r\n", false, nil},
		{"a long field", from + "|Subject: " + strings.Repeat("x", 999), "", false, []Fragile{FragileLine}},
		{"8-bit, not declared", from, "gr\xfc\xdfe\r\n", false, []Fragile{Fragile8Bit}},
		{"8-bit at the end", from, strings.Repeat("a", 20) + "\xc3\xbc", false, []Fragile{Fragile8Bit}},
		{"8-bit, declared as 7bit", from + "|MIME-Version: 1.0|Content-Transfer-Encoding: 7bit", "ü\r\n", false, []Fragile{Fragile8Bit}},
		{"8-bit, without MIME-Version", from + "|Content-Transfer-Encoding: 8bit", "ü\r\n", false, []Fragile{Fragile8Bit}},
		{"8-bit, declared", from + "|MIME-Version: 1.0|Content-Transfer-Encoding: 8BIT", "ü\r\n", false, nil},
		{"8-bit in parts", from + "|MIME-Version: 1.0|Content-Type: multipart/mixed; boundary=x", "ü\r\n", false, nil},
		{"8-bit in a field", from + "|Subject: Grüße", "", false, []Fragile{FragileHeader}},
		{"8-bit in a field, under SMTPUTF8", from + "|Subject: Grüße", "", true, nil},
		{"8-bit in a field that is not signed", from + "|X-Other: Grüße", "", false, nil},
		{"an encoded field", from + "|Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "", false, nil},
		{"an address without a domain", from + "|To: root", "", false, []Fragile{FragileAddress}},
		{"a group", from + "|To: undisclosed-recipients:;", "", false, nil},
		{"everything", from + "|Subject: ü|Cc: root", strings.Repeat("ü", 600), false, []Fragile{FragileLine, Fragile8Bit, FragileHeader, FragileAddress}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var seen []Fragile
			s := New(Options{Observe: func(r *Outcome) { seen = r.Fragile }}, keys)
			m := s.Message(t.Context(), fields(test.header))
			if test.utf8 {
				m.UTF8()
			}
			for piece := range slices.Chunk([]byte(test.body), 13) {
				_, _ = m.Write(piece)
			}
			r := m.Close()
			if !slices.Equal(r.Fragile, test.want) || !slices.Equal(seen, test.want) || len(r.Notes) != len(test.want) {
				t.Errorf("causes %v, heard %v, notes %q; want %v", r.Fragile, seen, r.Notes, test.want)
			}
			if len(r.Fields) != 1 {
				t.Errorf("%d signatures: what is fragile is signed all the same", len(r.Fields))
			}
		})
	}
	if got := fmt.Sprint(Causes()); got != "[long_line 8bit 8bit_header bare_address]" {
		t.Errorf("causes %s", got)
	}
}
