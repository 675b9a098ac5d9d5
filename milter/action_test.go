package milter

import (
	"strings"
	"testing"

	library "github.com/emersion/go-milter"
)

func TestReplyTo(t *testing.T) {
	as, bs := strings.Repeat("a", 300), strings.Repeat("b", 300)
	tests := []struct {
		name string
		a    Answer
		code byte
		want string
	}{
		{"continue", Answer{Reply: Reply{Text: "ignored"}}, 'c', ""},
		{"accept", Answer{Verdict: Accept}, 'a', ""},
		{"reject", Answer{Verdict: Reject}, 'y', "550 5.7.1 Message rejected\x00"},
		{"defer", Answer{Verdict: Defer}, 'y', "451 4.7.1 Try again later\x00"},
		{"complete", Answer{Verdict: Reject, Reply: Reply{Code: 554, Status: "5.7.23", Text: "SPF"}}, 'y', "554 5.7.23 SPF\x00"},
		{"code of the other class", Answer{Verdict: Reject, Reply: Reply{Code: 451, Status: "4.7.1", Text: "x"}}, 'y', "550 5.7.1 x\x00"},
		{"success as a code", Answer{Verdict: Defer, Reply: Reply{Code: 250, Status: "2.0.0", Text: "x"}}, 'y', "451 4.7.1 x\x00"},
		{"closing code", Answer{Verdict: Defer, Reply: Reply{Code: 421, Text: "x"}}, 'y', "451 4.7.1 x\x00"},
		{"code of four digits", Answer{Verdict: Reject, Reply: Reply{Code: 5500, Text: "x"}}, 'y', "550 5.7.1 x\x00"},
		{"negative code", Answer{Verdict: Reject, Reply: Reply{Code: -550, Text: "x"}}, 'y', "550 5.7.1 x\x00"},
		{"percent", Answer{Verdict: Reject, Reply: Reply{Text: "100% of %s"}}, 'y', "550 5.7.1 100%% of %%s\x00"},
		{"controls", Answer{Verdict: Reject, Reply: Reply{Text: "a\x00b\r\x1b[1mc\td\x7f"}}, 'y', "550 5.7.1 ab[1mc d\x00"},
		{"not ASCII", Answer{Verdict: Reject, Reply: Reply{Text: "schön \xff"}}, 'y', "550 5.7.1 sch?n ?\x00"},
		{"lines", Answer{Verdict: Reject, Reply: Reply{Text: "one\r\n\r\n two \nthree\n"}}, 'y',
			"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\x00"},
		{"reply in a reply", Answer{Verdict: Reject, Reply: Reply{Text: "a\r\n250 2.0.0 ok"}}, 'y',
			"550-5.7.1 a\r\n550 5.7.1 250 2.0.0 ok\x00"},
		{"only controls", Answer{Verdict: Defer, Reply: Reply{Text: "\r\n\x00\n"}}, 'y', "451 4.7.1 Try again later\x00"},
		{"long", Answer{Verdict: Reject, Reply: Reply{Text: as + "  " + bs}}, 'y',
			"550-5.7.1 " + as + "\r\n550 5.7.1 " + bs + "\x00"},
		{"without spaces", Answer{Verdict: Reject, Reply: Reply{Text: strings.Repeat("x", 401)}}, 'y',
			"550-5.7.1 " + strings.Repeat("x", 400) + "\r\n550 5.7.1 x\x00"},
		{"too many lines", Answer{Verdict: Reject, Reply: Reply{Text: strings.Repeat("x\n", 100)}}, 'y',
			strings.Repeat("550-5.7.1 x\r\n", 7) + "550 5.7.1 x\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := replyTo(tt.a)
			m := r.Response()
			if m.Code != tt.code || string(m.Data) != tt.want {
				t.Errorf("reply %c %q, want %c %q", m.Code, m.Data, tt.code, tt.want)
			}
			if !r.Continue() {
				t.Error("the library would forget the session")
			}
		})
	}
}

func TestValidStatus(t *testing.T) {
	for status, want := range map[string]bool{
		"5.7.1": true, "5.0.0": true, "5.999.999": true,
		"": false, "5": false, "5.7": false, "4.7.1": false, "5.7.1.2": false, "5.7.1000": false,
		"5.7.01": false, "5.-7.1": false, "5.+7.1": false, "5.7.1 x": false, "5.7.": false, "5.7.1\r\n": false,
	} {
		if got := validStatus(status, 5); got != want {
			t.Errorf("validStatus(%q) = %v", status, got)
		}
	}
}

func TestFieldValue(t *testing.T) {
	for value, want := range map[string]string{
		"":                        " ",
		"x":                       " x",
		" x":                      " x",
		"\tx":                     "\tx",
		"a;\r\n b":                " a;\n b",
		"a;\n\tb":                 " a;\n\tb",
		"a\r\nB: c":               " aB: c",
		"a\nB: c":                 " aB: c",
		"a\rB: c":                 " aB: c",
		"a\r\n\r\nbody":           " abody",
		"a\r\n \r\n b":            " a \n b",
		"a\r\n ":                  " a",
		"a\x00b\x7fc\x1bd":        " abcd",
		"schön":                   " schön",
		"trailing \t\r\n\r\n":     " trailing",
		"a\n\n b":                 " a\n b",
		"a;\r\n b;\r\n\tc=\r\n d": " a;\n b;\n\tc=\n d",
	} {
		if got, err := fieldValue(value); got != want || err != nil {
			t.Errorf("fieldValue(%q) = %q, %v, want %q", value, got, err, want)
		}
	}
}

func TestDescribeIsBounded(t *testing.T) {
	d := Decision{Delete: make([]Position, 5000), Quarantine: "x"}
	if got := describe(&d); len(got) > 200 || !strings.HasSuffix(got, "and 4990 more, quarantine") {
		t.Errorf("%d octets: %q", len(got), got)
	}
}

func TestCRLF(t *testing.T) {
	for value, want := range map[string]string{
		" x": " x", " a\n b": " a\r\n b", " a\r\n b": " a\r\n b", "\n": "\r\n", " a\n\n b\n": " a\r\n\r\n b\r\n", "\r": "\r",
	} {
		if got := crlf(value); got != want {
			t.Errorf("crlf(%q) = %q", value, got)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for arg, want := range map[string]string{
		"<a@example.org>": "a@example.org", "a@example.org": "a@example.org", "<>": "", "": "", "<a": "<a", "<<a@b>>": "<a@b>",
	} {
		if got := parseAddress(arg).Raw; got != want {
			t.Errorf("parseAddress(%q).Raw = %q, want %q", arg, got, want)
		}
	}
}

// FuzzReply checks that every reply has lines of one code and status, as Postfix
// requires, and cannot contain a second reply, for any text.
func FuzzReply(f *testing.F) {
	f.Add(550, "5.7.1", "text")
	f.Add(0, "", "a\r\n250 ok\x00%")
	f.Add(421, "4.7.1\r\n", strings.Repeat("%", 1000))
	f.Fuzz(func(t *testing.T, code int, status, text string) {
		for _, v := range []Verdict{Reject, Defer} {
			m := replyTo(Answer{Verdict: v, Reply: Reply{code, status, text}}).Response()
			checkReply(t, m, v)
		}
	})
}

func checkReply(t *testing.T, m *library.Message, v Verdict) {
	data, ok := strings.CutSuffix(string(m.Data), "\x00")
	if m.Code != 'y' || !ok || strings.Contains(data, "\x00") {
		t.Fatalf("reply %c %q", m.Code, m.Data)
	}
	if plain := strings.ReplaceAll(data, "%%", ""); strings.Contains(plain, "%") {
		t.Fatalf("a single percent sign in %q", data)
	}
	lines := strings.Split(data, "\r\n")
	for i, line := range lines {
		class := map[Verdict]byte{Reject: '5', Defer: '4'}[v]
		separator := byte('-')
		if i == len(lines)-1 {
			separator = ' '
		}
		if len(line) < 10 || line[0] != class || line[3] != separator || line[4] != class || line[:3] != lines[0][:3] || line[:3] == "421" {
			t.Fatalf("line %d of %q", i, data)
		}
		if strings.IndexFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			t.Fatalf("line %d of %q is not printable", i, data)
		}
	}
	if len(lines) > maxReplyLines {
		t.Fatalf("%d lines", len(lines))
	}
}

// FuzzFieldValue checks that any value makes exactly one header field.
func FuzzFieldValue(f *testing.F) {
	for _, seed := range []string{"x", "a\r\n b", "a\r\nB: c", "\n\n", "a\r\n \r\n", " \n \n x", "\x00", "\r\r\n\t\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, err := fieldValue(value)
		if err != nil {
			return
		}
		if got == "" || (got[0] != ' ' && got[0] != '\t') || strings.ContainsAny(got, "\r\x00") {
			t.Fatalf("%q gives %q", value, got)
		}
		for i, line := range strings.Split(got, "\n") {
			if i == 0 {
				continue
			}
			if line == "" || (line[0] != ' ' && line[0] != '\t') || strings.Trim(line, " \t") == "" {
				t.Fatalf("%q gives %q with line %q", value, got, line)
			}
		}
		if again, _ := fieldValue(got); strings.TrimRight(again, " \t") != strings.TrimRight(got, " \t") {
			t.Fatalf("%q gives %q, then %q", value, got, again)
		}
		if c := crlf(value); strings.Count(c, "\n") != strings.Count(value, "\n") || strings.ReplaceAll(c, "\r", "") != strings.ReplaceAll(value, "\r", "") {
			t.Fatalf("crlf(%q) = %q", value, c)
		}
	})
}
