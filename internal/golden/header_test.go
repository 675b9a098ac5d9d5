package golden

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

func TestHeader(t *testing.T) {
	tests := []struct {
		name, text string
		fields     int
		body, err  string
	}{
		{"plain", "A: b\r\n c\r\nD:e\r\n\r\nbody", 2, "body", ""},
		{"LF", "A: b\n\nbody", 1, "body", ""},
		{"no body", "A: b\r\n", 1, "", ""},
		{"no final line break", "A: b", 1, "", ""},
		{"empty", "", 0, "", ""},
		{"no header", "\r\nbody", 0, "body", ""},
		{"continuation first", " x\r\n", 0, "", "continuation"},
		{"no colon", "A: b\r\nhello\r\n", 1, "", "header line 2 has no colon"},
		{"too long", "A: " + strings.Repeat("x", maxHeader), 0, "", "too large"},
		{"too many", strings.Repeat("A:b\r\n", maxFields+1), maxFields, "", "too large"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := bufio.NewReader(strings.NewReader(tt.text))
			fields, err := Header[struct{ Name, Value string }](r)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			body, _ := io.ReadAll(r)
			if err != nil || len(fields) != tt.fields || string(body) != tt.body {
				t.Errorf("%d fields, body %q, error %v", len(fields), body, err)
			}
		})
	}
}
