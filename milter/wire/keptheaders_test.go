package wire

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// keptHeaders reads a stream as a library does that leaves header fields to the guard.
func keptHeaders(t testing.TB, in io.Reader) (seen string, fields []string, conn *scripted, g *Guard) {
	t.Helper()
	conn = &scripted{in: in}
	g = New(conn, Config{Header: func(payload []byte) { fields = append(fields, string(payload)) }})
	out, err := io.ReadAll(g)
	if err != nil {
		t.Fatal(err)
	}
	return string(out), fields, conn, g
}

// splitHeaders separates the payloads of header fields from the other frames.
func splitHeaders(all string) (others string, fields []string) {
	for len(all) > 4 {
		n := min(4+int(binary.BigEndian.Uint32([]byte(all))), len(all))
		if Command(all[4]) == Header {
			fields = append(fields, all[5:n])
		} else {
			others += all[:n]
		}
		all = all[n:]
	}
	return others, fields
}

// Header fields go only to the caller, and the library sees everything else unchanged.
func TestKeptHeaders(t *testing.T) {
	large := "X-Large\x00 " + strings.Repeat("y", 3*readSize) + "\x00"
	stream := inEnvelope + frame(Header, "From\x00 a\n b\x00") + frame(Macro, "Li\x001\x00") +
		frame(Header, "Empty\x00\x00") + frame(Header, large) + frame(EndHeader, "") + frame(EndBody, "")
	for name, in := range map[string]io.Reader{
		"whole":  strings.NewReader(stream),
		"octets": iotest.OneByteReader(strings.NewReader(stream)),
	} {
		seen, fields, _, g := keptHeaders(t, in)
		if seen != inEnvelope+frame(EndHeader, "")+frame(EndBody, "") || g.Err() != nil {
			t.Errorf("%s: the library sees %q, %v", name, seen, g.Err())
		}
		if !slices.Equal(fields, []string{"From\x00 a\n b\x00", "Empty\x00\x00", large}) {
			t.Errorf("%s: %d fields: %.200q", name, len(fields), fields)
		}
	}
}

// An MTA that waits for a reply to each field gets it.
func TestKeptHeadersAreAnswered(t *testing.T) {
	stream := inEnvelope + strings.Repeat(frame(Header, "A\x00b\x00"), 3)
	_, fields, conn, _ := keptHeaders(t, iotest.OneByteReader(strings.NewReader(stream)))
	if got := bytes.Join(conn.writes, nil); len(fields) != 3 || string(got) != strings.Repeat(goOn, 3) {
		t.Errorf("%d fields, replies %q", len(fields), got)
	}
}

// Fields beyond the bounds are dropped here too.
func TestKeptHeadersAreBounded(t *testing.T) {
	stream := inEnvelope + strings.Repeat(frame(Header, "A\x00b\x00"), MaxHeaders+5) + frame(EndHeader, "")
	seen, fields, _, g := keptHeaders(t, strings.NewReader(stream))
	if len(fields) != MaxHeaders || !g.HeaderOverflow() || seen != inEnvelope+frame(EndHeader, "") {
		t.Errorf("%d fields, overflow %v", len(fields), g.HeaderOverflow())
	}
}
