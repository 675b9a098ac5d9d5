package arc

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseResults(t *testing.T) {
	tests := []struct {
		name, value string
		want        string // instance, authserv-id and results
		err         string
	}{
		{"plain", " i=1; mx.example; dmarc=pass header.from=a.example", "1 mx.example [dmarc pass header.from=a.example]", ""},
		{"white space", "\r\n\ti = 2 ;\tMX.example ;\n dmarc\t=\r\n pass  header.from = a.example ;", "2 mx.example [dmarc pass header.from=a.example]", ""},
		{"comments", " (x) i=3 (y); mx (z) 1; dkim/1 (v) = pass (2048-bit (key)) header.d=b.example", "3 mx [dkim pass header.d=b.example]", ""},
		{"quotes", ` i=4; "mx"; spf=pass smtp.mailfrom="a; \"dmarc=pass"`, `4 mx [spf pass smtp.mailfrom=a; "dmarc=pass]`, ""},
		{"none", " i=5; mx; none", "5 mx", ""},
		{"no results", " i=6; mx", "6 mx", ""},
		{"two results", " i=7; mx; spf=fail; dmarc=none", "7 mx [spf fail] [dmarc none]", ""},
		{"property twice", " i=8; mx; dmarc=pass header.from=a header.from=b", "8 mx [dmarc pass header.from=a]", ""},
		{"case", " i=9; mx; DMARC=Pass Header.From=A", "9 mx [dmarc pass header.from=A]", ""},
		{"reason", ` i=10; mx; dkim=fail reason="bad; worse" header.d=x`, "10 mx [dkim fail reason=bad; worse header.d=x]", ""},
		{"fifty", " i=50; mx", "50 mx", ""},
		{"fifty-one", " i=51; mx", "", "i= is not"},
		{"zero", " i=0; mx", "", "i= is not"},
		{"sign", " i=+1; mx", "", "i= is not"},
		{"three digits", " i=001; mx", "", "i= is not"},
		{"no number", " i=; mx", "", "i= is not"},
		{"other name", " a=1; mx", "", "does not begin"},
		{"empty", "", "", "does not begin"},
		{"no authserv-id", " i=1; ; dmarc=pass", "", "no authserv-id"},
		{"instance alone", " i=1", "", "no authserv-id"},
		{"open quote", ` i=1; mx; spf=pass smtp.mailfrom="x`, "", "quoted string without an end"},
		{"open escape", ` i=1; mx; spf=pass smtp.mailfrom="x\`, "", "quoted string without an end"},
		{"open comment", " i=1; mx; spf=pass (x", "", "comment without an end"},
		{"NUL", " i=1; mx; spf=pass \x00", "", "control character"},
		{"too long", " i=1; mx; " + strings.Repeat("x", maxResults), "", "too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseResults(tt.value)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if got := describe(s); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	s, err := parseResults(" i=1; mx" + strings.Repeat("; spf=pass", maxMethods+5))
	if err != nil || len(s.Results) != maxMethods {
		t.Errorf("%d results, %v", len(s.Results), err)
	}
}

func describe(s Set) string {
	text := fmt.Sprintf("%d %s", s.Instance, s.AuthServID)
	for _, m := range s.Results {
		text += fmt.Sprintf(" [%s %s", m.Method, m.Value)
		for _, name := range []string{"reason", "header.from", "header.d", "smtp.mailfrom"} {
			if value, ok := m.Props[name]; ok {
				text += " " + name + "=" + value
			}
		}
		text += "]"
	}
	return text
}
