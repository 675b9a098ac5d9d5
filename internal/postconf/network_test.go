package postconf

import "testing"

func TestNetwork(t *testing.T) {
	for element, want := range map[string]string{
		"192.0.2.7":           "192.0.2.7/32",
		"192.0.2.0/24":        "192.0.2.0/24",
		"[::1]":               "::1/128",
		"[2001:db8::]/32":     "2001:db8::/32",
		"2001:db8::/32":       "2001:db8::/32",
		"!192.0.2.0/24":       "",
		"cidr:/etc/postfix/n": "",
		"example.org":         "",
		"192.0.2.0/33":        "",
	} {
		got, ok := Network(element)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: %s, %v, want %q", element, got, ok, want)
		}
	}
}
