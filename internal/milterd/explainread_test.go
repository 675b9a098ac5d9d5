package milterd

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/milter/wire"
)

func TestReadMessage(t *testing.T) {
	tests := []struct {
		name, message string
		fields        []dkim.Field
		body          string
	}{
		{"a message", "A: b\r\nC: d\r\n e\r\n\r\nhi\r\n", []dkim.Field{{Name: "A", Value: " b"}, {Name: "C", Value: " d\r\n e"}}, "hi\r\n"},
		{"of a mailbox", "From x Sat\nA: b\n\nhi\n", []dkim.Field{{Name: "A", Value: " b"}}, "hi\r\n"},
		{"no body", "A: b\n", []dkim.Field{{Name: "A", Value: " b"}}, ""},
		{"no end of line", "A: b", []dkim.Field{{Name: "A", Value: " b"}}, ""},
		{"blanks before the colon", "From : b\n\n", []dkim.Field{{Name: "From ", Value: " b"}}, ""},
		// Postfix ends the header there; what follows is the body.
		{"a line that is no field", "A: b\nhello\nC: d\n", []dkim.Field{{Name: "A", Value: " b"}}, "hello\r\nC: d\r\n"},
		{"a blank in a name", "A: b\nhello you: c\n\nhi\n", []dkim.Field{{Name: "A", Value: " b"}}, "hello you: c\r\n\r\nhi\r\n"},
		{"no name", "A: b\n: c\n", []dkim.Field{{Name: "A", Value: " b"}}, ": c\r\n"},
		{"a name that is not ASCII", "A: b\nß: c\n", []dkim.Field{{Name: "A", Value: " b"}}, "ß: c\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fields, body, err := readMessage(strings.NewReader(tt.message))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(body)
			if err != nil || string(text) != tt.body {
				t.Errorf("body %q, %v", text, err)
			}
			if len(fields) != len(tt.fields) {
				t.Fatalf("fields %q", fields)
			}
			for i := range fields {
				if fields[i] != tt.fields[i] {
					t.Errorf("field %q, want %q", fields[i], tt.fields[i])
				}
			}
		})
	}
}

func TestReadMessageRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ message, want string }{
		"no header":     {"hello\n", "header line 1 has no colon"},
		"a binary file": {"\x7fELF\x02:\n", "header line 1 has no colon"},
		"many fields":   {strings.Repeat("A: b\n", wire.MaxHeaders+1), "the daemon refuses this message"},
		"much header":   {"A: b\n" + strings.Repeat(" "+strings.Repeat("x", 1000)+"\n", wire.MaxHeaderBytes/1000), "the daemon refuses this message"},
		"a long line":   {"A: " + strings.Repeat("x", wire.MaxHeaderBytes), "the daemon refuses this message"},
	} {
		if _, _, err := readMessage(strings.NewReader(tt.message)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	if _, _, err := readMessage(io.MultiReader(strings.NewReader("A: b\n"), brokenReader{broken})); !errors.Is(err, broken) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestArrival(t *testing.T) {
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	received := func(value string) dkim.Field { return dkim.Field{Name: "Received", Value: value} }
	tests := []struct {
		name   string
		fields []dkim.Field
		want   time.Time
	}{
		{"one", []dkim.Field{{Name: "Subject", Value: " x"}, received(" from a by b;\r\n\tSat, 21 Nov 2026 03:00:00 +0100 (CET)")}, at},
		{"the topmost", []dkim.Field{received(" by b; Sat, 21 Nov 2026 02:00:00 +0000"), received(" by a; Sat, 21 Nov 2026 01:00:00 +0000")}, at},
		{"one without a date above", []dkim.Field{received(" by b"), received(" by a; Sat, 21 Nov 2026 02:00:00 +0000")}, at},
		{"none", []dkim.Field{{Name: "Date", Value: " Sat, 21 Nov 2026 02:00:00 +0000"}}, time.Time{}},
	}
	for _, tt := range tests {
		got, ok := arrival(tt.fields)
		if ok != !tt.want.IsZero() || !got.Equal(tt.want) {
			t.Errorf("%s: %v, %t", tt.name, got, ok)
		}
	}
}
