package mailaddr

import "testing"

// A bracket alone does not make an address literal.
func TestParseHeloLiteral(t *testing.T) {
	for helo, want := range map[string]string{
		"[192.0.2.2]": "192.0.2.2", "[IPv6:2001:db8::1]": "2001:db8::1", "[ipv6:::ffff:192.0.2.2]": "192.0.2.2",
		"192.0.2.2]": "", "[192.0.2.2": "", "192.0.2.2": "", "[]": "", "]": "", "[IPv6:]": "", "[mx.example]": "", "": "",
	} {
		addr, ok := ParseHeloLiteral(helo)
		if ok != (want != "") || ok && addr.String() != want {
			t.Errorf("%q: %v, %v", helo, addr, ok)
		}
	}
}
