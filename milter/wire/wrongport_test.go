package wire

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestPolicyClientIsTurnedAway(t *testing.T) {
	for _, sent := range []string{"request=smtpd_access_policy\nprotocol_state=RCPT\n\n", "request=smtpd_access_policy\n", "requ"} {
		conn := &scripted{in: iotest.OneByteReader(strings.NewReader(sent))}
		g := New(conn, Config{})
		if out, err := io.ReadAll(g); len(out) != 0 || err != nil || !errors.Is(g.Err(), ErrPolicyClient) {
			t.Errorf("%q: the library sees %q, %v; reason %v", sent, out, err, g.Err())
		}
		if len(conn.writes) != 1 || !strings.HasPrefix(string(conn.writes[0]), "this is the milter port") {
			t.Errorf("%q: told %q", sent, conn.writes)
		}
	}
	// Not so in a session: there, it is a broken frame.
	if _, g := readAll(t, strings.NewReader(connected+"request=x\n\n")); errors.Is(g.Err(), ErrPolicyClient) || g.Err() == nil {
		t.Errorf("in a session: %v", g.Err())
	}
}
