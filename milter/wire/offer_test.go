package wire

import (
	"io"
	"strings"
	"testing"
)

// The answer of the library, with its lists of macros, is reduced to the offer, even
// if it is written in several pieces.
func TestAnswerFitsTheOffer(t *testing.T) {
	const wantActions, wantProtocol = 0x131, 0x183180
	lists := "\x00\x00\x00\x00j {daemon_name}\x00\x00\x00\x00\x02i\x00"
	answer := offer(2, wantActions, wantProtocol)
	withLists := frame(Negotiate, answer[5:]+lists)
	tests := []struct {
		name    string
		offer   string
		agreed  Offer
		version uint32
		lists   bool
	}{
		{"6", offer(6, 0x1ff, 0x1fffff), Offer{wantActions, wantProtocol}, 6, true},
		{"6 and more", offer(7, 0xffffffff, 0xffffffff), Offer{wantActions, wantProtocol}, 7, true},
		{"4", offer(4, 0x3f, 0x3ff), Offer{0x31, 0x180}, 4, false},
		{"3", offer(3, 0x3f, 0x17f), Offer{0x31, 0x100}, 3, false},
		{"2", offer(2, 0x3f, 0x7f), Offer{0x31, 0}, 2, false},
		{"nothing", offer(2, 0, 0), Offer{}, 2, false},
		{"one action short", offer(6, 0x1ff&^0x20, 0x1fffff), Offer{wantActions &^ 0x20, wantProtocol}, 6, true},
		{"one option short", offer(6, 0x1ff, 0x1fffff&^(1<<20)), Offer{wantActions, wantProtocol &^ (1 << 20)}, 6, true},
	}
	for _, test := range tests {
		for _, piece := range []int{1, 7, len(withLists)} {
			conn := &scripted{in: strings.NewReader(test.offer)}
			g := New(conn, Config{})
			if _, err := io.ReadFull(g, make([]byte, len(test.offer))); err != nil {
				t.Fatal(err)
			}
			for rest := withLists; rest != ""; {
				n := min(piece, len(rest))
				if _, err := g.Write([]byte(rest[:n])); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			if _, err := g.Write([]byte(goOn)); err != nil {
				t.Fatal(err)
			}
			if err := g.Flush(); err != nil {
				t.Fatal(err)
			}
			want := offer(2, test.agreed.Actions, test.agreed.Protocol)
			if test.lists {
				want = frame(Negotiate, want[5:]+lists)
			}
			if got := string(conn.writes[0]); got != want+goOn {
				t.Errorf("%s in pieces of %d: the MTA is told %x, want %x", test.name, piece, got, want+goOn)
			}
			if g.Agreed() != test.agreed || g.Version() != test.version {
				t.Errorf("%s: agreed %+v, version %d", test.name, g.Agreed(), g.Version())
			}
		}
	}
}

// Missing or unusual commands of some MTAs do not end a session.
func TestGuardPassesOddSessions(t *testing.T) {
	const helo, mail = "\x00\x00\x00\x03Hh\x00", "\x00\x00\x00\x04M<>\x00"
	envelope := negotiated + frame(Mail, "<a@example.org>\x00") + frame(Rcpt, "<b@example.com>\x00")
	tests := []struct{ name, sent, library string }{
		{"no CONNECT", negotiated + helo + mail, ""},
		{"no CONNECT, no HELO", envelope, ""},
		{"null sender of cleanup(8)", connected + frame(Mail, "\x00"), ""},
		{"no end of header", envelope + frame(Header, "A\x00 b\x00") + frame(Body, "x") + frame(EndBody, ""), ""},
		{"no header at all", envelope + frame(Body, "x") + frame(Body, "y") + frame(EndBody, ""), ""},
		{"no header and no body", envelope + frame(EndBody, "") + mail, ""},
		{"HELO in a body", inContent + helo + frame(Abort, ""), ""},
		{"negotiation twice", negotiated + negotiated + mail, ""},
		{"QUIT_NC", connected + mail + frame(QuitNC, "") + frame(Connect, "h\x00U") + mail,
			connected + mail + frame(Abort, "") + frame(Connect, "h\x00U") + mail},
		{"QUIT_NC, and negotiation", inContent + frame(QuitNC, "") + negotiated + frame(Connect, "h\x00U") + mail,
			inContent + frame(Abort, "") + negotiated + frame(Connect, "h\x00U") + mail},
		{"QUIT_NC at once", negotiated + frame(QuitNC, "") + mail, negotiated + frame(Abort, "") + mail},
		{"unknown SMTP command", connected + frame(Unknown, "NOOP\x00") + mail + frame(Unknown, ""), connected + mail},
	}
	for _, test := range tests {
		want := test.library
		if want == "" {
			want = test.sent
		}
		got, g := readAll(t, strings.NewReader(test.sent+frame(Quit, "")))
		if got != want+frame(Quit, "") || g.Err() != nil {
			t.Errorf("%s: the library sees %q, want %q; reason %v", test.name, got, want, g.Err())
		}
	}
}

// Macros of a session do not reach the next one on the same connection.
func TestQuitForNewConnectionClearsMacros(t *testing.T) {
	in := connected[:len(negotiated)] + frame(Macro, "Cj\x00mx\x00") + connected[len(negotiated):] + frame(QuitNC, "")
	_, g := readAll(t, strings.NewReader(in))
	if !g.NewPeer() || g.Macros().Get("j") != "" {
		t.Errorf("new peer %t, macro %q", g.NewPeer(), g.Macros().Get("j"))
	}
}
