package spf

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestReceivedSPF(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 ip4:192.0.2.1 ip6:2001:db8::/32 ~all", "none.example TXT x",
		"perm.example TXT v=spf1 foo", "temp.example SERVFAIL", "mx.client.example TXT v=spf1 ?exists:d.example", "fail.example TXT v=spf1 -all",
		"neutral.example TXT v=spf1")
	tests := []struct {
		ip, from string
		helo     bool
		want     string
	}{
		{"192.0.2.1", "a@d.example", false, `pass
	(mx.our.example: domain of a@d.example designates 192.0.2.1 as permitted sender)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.1;
	envelope-from="a@d.example"; helo=mx.client.example;
	mechanism="ip4:192.0.2.1";`},
		{"2001:db8::1", "a b\"\\@d.example", false, `pass
	(mx.our.example: domain of a b"?@d.example designates 2001:db8::1 as permitted sender)
	receiver=mx.our.example; identity=mailfrom; client-ip="2001:db8::1";
	envelope-from="a b\"\\@d.example"; helo=mx.client.example;
	mechanism="ip6:2001:db8::/32";`},
		{"192.0.2.2", "a@d.example", false, `softfail
	(mx.our.example: transitioning domain of a@d.example does not designate 192.0.2.2 as permitted sender)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@d.example"; helo=mx.client.example; mechanism=~all;`},
		{"192.0.2.2", "a@fail.example", false, `fail
	(mx.our.example: domain of a@fail.example does not designate 192.0.2.2 as permitted sender)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@fail.example"; helo=mx.client.example; mechanism=-all;`},
		{"192.0.2.2", "a@none.example", false, `none
	(mx.our.example: domain of a@none.example does not designate permitted sender hosts)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@none.example"; helo=mx.client.example;`},
		{"192.0.2.2", "a@neutral.example", false, `neutral
	(mx.our.example: 192.0.2.2 is neither permitted nor denied by domain of a@neutral.example)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@neutral.example"; helo=mx.client.example; mechanism=default;`},
		{"192.0.2.2", "a@perm.example", false, `permerror
	(mx.our.example: permanent error in processing domain of a@perm.example)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@perm.example"; helo=mx.client.example;
	problem="perm.example: term \"foo\": unknown mechanism";`},
		{"192.0.2.2", "a@temp.example", false, `temperror
	(mx.our.example: error in DNS while checking domain of a@temp.example)
	receiver=mx.our.example; identity=mailfrom; client-ip=192.0.2.2;
	envelope-from="a@temp.example"; helo=mx.client.example;
	problem="temp.example: TXT temp.example.: lookup temp.example.: server misbehaving";`},
		{"192.0.2.2", "a@d.example", true, `neutral
	(mx.our.example: 192.0.2.2 is neither permitted nor denied by domain of postmaster@mx.client.example)
	receiver=mx.our.example; identity=helo; client-ip=192.0.2.2;
	envelope-from="a@d.example"; helo=mx.client.example; mechanism=default;`},
	}
	for _, tt := range tests {
		args := argsFor(tt.ip, tt.from)
		args.Receiver = "mx.our.example"
		got := CheckMailFrom(t.Context(), z, args).ReceivedSPF(args)
		if tt.helo {
			got = CheckHelo(t.Context(), z, args).ReceivedSPF(args)
		}
		if unfold(got) != unfold(tt.want) {
			t.Errorf("%s %s:\n%s\nwant:\n%s", tt.ip, tt.from, got, tt.want)
		}
		for line := range strings.SplitSeq("Received-SPF: "+strings.ReplaceAll(got, "\t", "        "), "\n") {
			// A problem is one quoted string, which stays in one line.
			if len(line) > headerColumns && !strings.HasPrefix(line, "        problem=") {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
		if keys := fieldKeys(t, got); keys[0] != "receiver" || keys[1] != "identity" {
			t.Errorf("keys %v", keys)
		}
	}
}

func unfold(s string) string { return strings.ReplaceAll(s, "\n\t", " ") }

// fieldKeys reads a Received-SPF value strictly: a result, a comment, then
// key=value pairs, values being dot-atoms or quoted strings. It returns the
// keys, and fails the test on anything else.
func fieldKeys(t *testing.T, value string) []string {
	t.Helper()
	flat := unfold(value)
	for i := range len(flat) {
		if flat[i] < ' ' || flat[i] > '~' {
			t.Fatalf("byte %#x in %q", flat[i], value)
		}
	}
	result, rest, _ := strings.Cut(flat, " (")
	if !slices.Contains([]string{"none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"}, result) {
		t.Fatalf("result %q", result)
	}
	comment, rest, ok := strings.Cut(rest, ")")
	if !ok || strings.ContainsAny(comment, "(\\") {
		t.Fatalf("comment in %q", flat)
	}
	var keys []string
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		key, after, ok := strings.Cut(rest, "=")
		if !ok || key == "" || strings.ContainsAny(key, " ;\"()") {
			t.Fatalf("key at %q", rest)
		}
		keys = append(keys, key)
		end := valueEnd(after)
		if end <= 0 || after[end] != ';' {
			t.Fatalf("value at %q", after)
		}
		rest = after[end+1:]
	}
	return keys
}

// valueEnd returns where the value at the start of s ends, or -1.
func valueEnd(s string) int {
	if s[0] != '"' {
		return strings.IndexAny(s, ";\"() ")
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

func FuzzReceivedSPF(f *testing.F) {
	f.Add("h", "a", "d.example", "r", "m", "e")
	f.Add("x; result=pass", `a" ; identity=helo; x="`, "d.example\r\nX: y", "r) (", `ip4:"`, "problem\\")
	f.Add(strings.Repeat("(", 300), strings.Repeat(`\`, 300), "\xff\x00", ".a.", "..", "\u2028")
	f.Fuzz(func(t *testing.T, helo, local, domain, receiver, mechanism, problem string) {
		args := Args{IP: netip.MustParseAddr("2001:db8::1"), Helo: helo, Sender: Sender{local, domain}, Receiver: receiver}
		for _, r := range []Result{
			{Status: Pass, Mechanism: mechanism, Sender: local + "@" + domain},
			{Status: PermError, Err: &stop{PermError, &parseError{problem}}},
		} {
			keys := fieldKeys(t, MailFromResult{Result: r}.ReceivedSPF(args))
			want := []string{"receiver", "identity", "client-ip", "envelope-from", "helo"}
			if !slices.Equal(keys[:5], want) || len(keys) > 6 {
				t.Fatalf("keys %v", keys)
			}
		}
	})
}

type parseError struct{ text string }

func (e *parseError) Error() string { return e.text }
