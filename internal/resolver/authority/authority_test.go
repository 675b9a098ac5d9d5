package authority

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const zone = `
example.org.          IN NS  ns.example.org.
ns.example.org.       IN A   127.0.0.1
a.example.org. 60     IN TXT "v=DKIM1; " "p=abc"
bytes.example.org.    IN TXT "a\"b\\c\007\255 d"
alias.example.org.    IN CNAME a.example.org.
`

func start(t *testing.T) (*resolvertest.Server, *Asker) {
	t.Helper()
	s := resolvertest.New(t, zone)
	s.SetAuthoritative()
	dns := resolvertest.New(t, zone)
	return s, &Asker{DNS: dns.Resolver(t), Timeout: time.Minute, Port: netip.MustParseAddrPort(s.Addr()).Port()}
}

func ask(t *testing.T, a *Asker, name string) *Reply {
	t.Helper()
	answer, err := a.TXT(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Zone != "example.org." || len(answer.Replies) != 1 {
		t.Fatalf("answer %+v", answer)
	}
	return &answer.Replies[0]
}

func TestTXT(t *testing.T) {
	_, a := start(t)
	r := ask(t, a, "A.example.org")
	if len(r.Records) != 1 || !slices.Equal(r.Records[0], []string{"v=DKIM1; ", "p=abc"}) || r.TTL != time.Minute || r.Err != nil {
		t.Errorf("reply %+v", r)
	}
	if got := r.String(); got != "ns.example.org [127.0.0.1]" {
		t.Errorf("server %q", got)
	}
	if got := ask(t, a, "bytes.example.org").Texts(); !slices.Equal(got, []string{"a\"b\\c\x07\xff d"}) {
		t.Errorf("octets %q", got)
	}
	if r := ask(t, a, "alias.example.org"); r.Alias != "a.example.org." || r.Absent || len(r.Records) != 0 {
		t.Errorf("alias %+v", r)
	}
	if r := ask(t, a, "gone.example.org"); !r.Absent || r.Err != nil {
		t.Errorf("absent name %+v", r)
	}
}

// An answer that is too large for UDP is asked for over TCP.
func TestLongRecord(t *testing.T) {
	s, a := start(t)
	long := strings.Repeat("x", 3000)
	if err := s.AddRecord("long.example.org.", "TXT", long); err != nil {
		t.Fatal(err)
	}
	r := ask(t, a, "long.example.org")
	if got := r.Texts(); !slices.Equal(got, []string{long}) || r.Err != nil {
		t.Errorf("%d texts, error %v", len(got), r.Err)
	}
}

func TestNoServers(t *testing.T) {
	_, a := start(t)
	if answer, err := a.TXT(t.Context(), "a.example.net"); err == nil {
		t.Errorf("answer %+v of a zone that no server has", answer)
	}
}

// A record is returned with its exact octets, whatever they are.
func FuzzUnescaped(f *testing.F) {
	f.Add("plain")
	f.Add("a\"b\\c\x07\xff;")
	f.Fuzz(func(t *testing.T, text string) {
		if got := unescaped([]string{escaped(text)}); got[0] != text {
			t.Errorf("%q became %q", text, got[0])
		}
	})
}

// escaped escapes octets as the library does (RFC 1035 section 5.1).
func escaped(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('\\')
			b.WriteByte('0' + c/100)
			b.WriteByte('0' + c/10%10)
			b.WriteByte('0' + c%10)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
