package postfixtest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// filter is a milter that answers as a test has it. It notes the commands that
// come, with the text of headers.
type filter struct {
	flags   uint32            // that it negotiates
	replies map[byte][]string // of a command, in turn, then "c"; each may be several packets
	heard   chan string       // gets all commands at the end
}

// serve takes one session.
func (f *filter) serve(l net.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	var heard []string
	defer func() { f.heard <- strings.Join(heard, " ") }()
	quiet := map[byte]uint32{'L': quietHeader, 'N': quietEnd, 'B': quietBody, 'C': quietConnect, 'H': quietHelo}
	in := bufio.NewReader(conn)
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		text := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(in, text); err != nil {
			return
		}
		code := head[4]
		switch code {
		case 'D':
			continue
		case 'L':
			heard = append(heard, "L("+strings.ReplaceAll(string(text), "\x00", "|")+")")
		default:
			heard = append(heard, string(code))
		}
		if code == 'Q' || code == 'A' || f.flags&quiet[code] != 0 {
			continue
		}
		for _, packet := range f.answer(code) {
			size := binary.BigEndian.AppendUint32(nil, uint32(len(packet)))
			if _, err := conn.Write(append(size, packet...)); err != nil {
				return
			}
		}
	}
}

func (f *filter) answer(code byte) []string {
	if left := f.replies[code]; len(left) > 0 {
		f.replies[code] = left[1:]
		return strings.Split(left[0], "&")
	}
	if code == 'O' {
		options := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 6, 0, 0, 0, 0}, f.flags)
		return []string{"O" + string(options)}
	}
	return []string{"c"}
}

func TestMilterClient(t *testing.T) {
	const message = "From: a\r\nSubject:  two\r\n lines\r\n\r\nHello.\r\n"
	const huge = "h\x00" // a reply cut short, see below
	cases := []struct {
		name    string
		flags   uint32
		replies map[byte][]string
		want    MilterVerdict
		heard   string
		err     string
	}{
		{name: "every step", want: MilterVerdict{Code: 'c'}, heard: "O C H M R T L(From|a|) L(Subject| two\n lines|) N B E Q"},
		{name: "no replies", flags: quietConnect | quietHelo | quietHeader | quietEnd | quietBody, want: MilterVerdict{Code: 'c'},
			heard: "O C H M R T L(From|a|) L(Subject| two\n lines|) N B E Q"},
		{name: "spaces kept", flags: leadingSpace, want: MilterVerdict{Code: 'c'}, heard: "O C H M R T L(From| a|) L(Subject|  two\n lines|) N B E Q"},
		{name: "few steps", flags: noConnect | noHelo | noMail | noRecipient | noData | noHeader | noEnd | noBody, want: MilterVerdict{Code: 'c'}, heard: "O E Q"},
		{name: "refused recipient", replies: map[byte][]string{'R': {"y550 5.7.1 No\x00"}}, want: MilterVerdict{Code: 'y', Reply: "550 5.7.1 No"}, heard: "O C H M R A Q"},
		{name: "enough of the body", replies: map[byte][]string{'B': {"s"}}, want: MilterVerdict{Code: 'c'}, heard: "O C H M R T L(From|a|) L(Subject| two\n lines|) N B E Q"},
		{name: "changes", replies: map[byte][]string{'E': {"p&i\x00\x00\x00\x00X-One\x00 1\x00&hX-Two\x002\x00&m\x00\x00\x00\x01X-Old\x00\x00&qwhy\x00&a"}},
			want:  MilterVerdict{Code: 'a', Fields: []string{"X-One: 1", "X-Two: 2"}, Quarantine: "why"},
			heard: "O C H M R T L(From|a|) L(Subject| two\n lines|) N B E Q"},
		{name: "refused client", replies: map[byte][]string{'C': {"r"}}, err: `'C': reply 'r'`},
		{name: "no negotiation", replies: map[byte][]string{'O': {"Oxx"}}, err: "negotiation"},
		{name: "empty packet", replies: map[byte][]string{'M': {""}}, err: "a reply of 0 bytes"},
		{name: "huge packet", replies: map[byte][]string{'M': {huge + strings.Repeat("x", maxMilterReply)}}, err: "a reply of 1048578 bytes"},
		{name: "short insertion", replies: map[byte][]string{'E': {"i\x00&c"}}, want: MilterVerdict{Code: 'c', Fields: []string{": "}},
			heard: "O C H M R T L(From|a|) L(Subject| two\n lines|) N B E Q"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			f := &filter{flags: c.flags, replies: c.replies, heard: make(chan string, 1)}
			go f.serve(l) // ends with the session
			verdict, err := milterVerdict(t, socket, message)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if verdict.Code != c.want.Code || verdict.Reply != c.want.Reply || verdict.Quarantine != c.want.Quarantine || !slices.Equal(verdict.Fields, c.want.Fields) {
				t.Errorf("%+v, want %+v", verdict, c.want)
			}
			if got := <-f.heard; got != c.heard {
				t.Errorf("heard %q, want %q", got, c.heard)
			}
		})
	}
}

// milterVerdict sends one message in a session of its own.
func milterVerdict(t *testing.T, socket, message string) (MilterVerdict, error) {
	t.Helper()
	c, err := DialMilter(t.Context(), socket, MilterSession{Client: "192.0.2.1", Helo: "mx.example", MTA: "mail.example"})
	if err != nil {
		return MilterVerdict{}, err
	}
	defer c.Close()
	return c.Send(MilterMail{Sender: "a@example.org", Recipient: "b@example.org", Message: message})
}

func TestDialMilterWithoutServer(t *testing.T) {
	if _, err := milterVerdict(t, filepath.Join(t.TempDir(), "none"), ""); err == nil {
		t.Error("a session with nobody")
	}
}

func TestNameserverAddr(t *testing.T) {
	if a := NameserverAddr(); !a.Addr().IsLoopback() || a.Port() != 53 {
		t.Errorf("%v", a)
	}
}
