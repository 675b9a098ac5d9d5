package greylist_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/greylist"
)

// senders are real-world shapes with the sender part of their keys. The two
// spellings of a pair come from two mails of one sender.
var senders = []struct{ name, one, two, want string }{
	{"plain", "Alice@Example.org", "alice@example.org", "alice@example.org"},
	{"Amazon SES", "0100018f2a3b4c5d-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d-000000@amazonses.com", "0102018faaaaaaaa-bbbbbbbb-cccc-dddd-eeee-ffffffffffff-000001@amazonses.com", "#@amazonses.com"},
	{"Mandrill", "bounce-md_30012345.66f1a2b3.v1-0123456789abcdef0123456789abcdef@mandrillapp.com", "bounce-md_30012345.66f1ffff.v1-fedcba9876543210fedcba9876543210@mandrillapp.com", "bounce-md_#.#.v1-#@mandrillapp.com"},
	{"SendGrid VERP", "bounces+123456-ab12-bob=example.net@em1234.shop.example", "bounces+123456-ff99-bob=example.net@em1234.shop.example", "bounces@em1234.shop.example"},
	{"BATV", "prvs=0123456abc=carol@example.org", "prvs=9876543def=carol@example.org", "carol@example.org"},
	{"BATV, the other way round", "prvs=carol=0123456abc@example.org", "prvs=carol=9876543def@example.org", "carol@example.org"},
	{"Barracuda", "btv1==0123456abc==dave@example.org", "btv1==9990000aaa==dave@example.org", "dave@example.org"},
	{"SRS0", "SRS0=HHHH=TT=origin.example=erin@forward.example", "SRS0=Kk12=T4=origin.example=erin@forward.example", "srs0=origin.example=erin@forward.example"},
	{"SRS1", "SRS1=HHHH=first.example==HHHH=TT=origin.example=erin@forward.example", "SRS1=JJJ1=first.example==KKKK=T2=origin.example=erin@forward.example", "srs1=first.example==origin.example=erin@forward.example"},
	{"SparkPost", "msprvs1=18005x7yZ=bounces-228764@bounces.shop.example", "msprvs1=18006aBcD=bounces-228764@bounces.shop.example", "bounces-#@bounces.shop.example"},
	{"Mailman VERP", "list-bounces+bob=example.net@lists.example.org", "list-bounces+bob=example.net@lists.example.org", "list-bounces@lists.example.org"},
	{"UUID", "bounce-123e4567-e89b-12d3-a456-426614174000@news.example", "bounce-00000000-cafe-babe-dead-00000000beef@news.example", "bounce-#@news.example"},
	{"ezmlm numbers", "list-return-1234-bob=example.net@lists.example.org", "list-return-999-bob=example.net@lists.example.org", "list-return-#-bob=example.net@lists.example.org"},
	{"calendar", "3q9xKZAkKBfkT5aWOTGIRSGOR@calendar-server.bounces.google.com", "3aB1cD2eFgHiJkLmNoPqRsTuV@calendar-server.bounces.google.com", "#@calendar-server.bounces.google.com"},
	{"a word of hexadecimal letters", "deadbeef@example.org", "DeadBeef@example.org", "deadbeef@example.org"},
	{"a long word without digits", "abcdefabcdefabcdefabcdef@example.org", "ABCDEFabcdefabcdefabcdef@example.org", "abcdefabcdefabcdefabcdef@example.org"},
	{"a short number in a word", "web2mail@example.org", "web2mail@example.org", "web2mail@example.org"},
	{"joined words", "a-b-c-d@example.org", "a-b-c-d@example.org", "a-b-c-d@example.org"},
	{"null", "", "", "<>"},
	{"no domain", "mailer-daemon", "MAILER-DAEMON", "mailer-daemon"},
	{"SRS that is none", "srs0=a@example.org", "SRS0=a@example.org", "srs0=a@example.org"},
	{"SRS1 that is none", "srs1=a=b=@example.org", "SRS1=a=b=@example.org", "srs1=a=b=@example.org"},
	{"BATV that is none", "prvs=@example.org", "prvs=@example.org", "prvs=@example.org"},
	{"only an extension", "+tag@example.org", "+tag@example.org", "+tag@example.org"},
	{"UTF-8", "Jürgen1234@xn--bcher-kva.example", "jürgen9999@xn--bcher-kva.example", "jürgen#@xn--bcher-kva.example"},
}

func sender(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return greylist.Sender(address, "")
	}
	return greylist.Sender(address[:at], address[at+1:])
}

func TestSender(t *testing.T) {
	for _, s := range senders {
		if one, two := sender(s.one), sender(s.two); one != s.want || two != s.want {
			t.Errorf("%s: %q and %q, want %q", s.name, one, two, s.want)
		}
	}
}

// lines reads a table, without its comments.
func lines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, strings.TrimSuffix(line, "\n"))
		}
	}
	return all
}

// Two mails of one system have one key.
func TestTokens(t *testing.T) {
	table := lines(t, "tokens.tsv")
	if len(table) < 60 {
		t.Errorf("%d systems", len(table))
	}
	for _, line := range table {
		column := strings.Split(line, "\t")
		if one, two := sender(column[1]), sender(column[2]); one != two {
			t.Errorf("%s: %q and %q", column[0], one, two)
		}
	}
}

// A change of what senders are made of needs another Scheme, and a Migrate that
// brings the older form to it: raise both, then this.
func TestScheme(t *testing.T) {
	sum := sha256.New()
	for _, line := range lines(t, "tokens.tsv") {
		column := strings.Split(line, "\t")
		fmt.Fprintln(sum, sender(column[1]))
	}
	for _, s := range senders {
		fmt.Fprintln(sum, sender(s.one))
	}
	if got, want := fmt.Sprintf("%d %x", greylist.Scheme, sum.Sum(nil)[:8]), "2 d8c8d95d0c8e07c2"; got != want {
		t.Errorf("scheme and sum %q, want %q", got, want)
	}
}

// What the first scheme left is brought to the form of today, and that stays.
func TestMigrate(t *testing.T) {
	for old, want := range map[string]string{
		"192.0.2.0/24 b.q7w8e9r0t1y2@news.example bob@example.net": "192.0.2.0/24 b.#@news.example bob@example.net",
		"spf:a.example #.#_xk@a.example bob@example.net":           "spf:a.example #.#@a.example bob@example.net",
		"192.0.2.0/24 <> bob@example.net":                          "192.0.2.0/24 <> bob@example.net",
		"192.0.2.0/24 mailer-daemon bob@example.net":               "192.0.2.0/24 mailer-daemon bob@example.net",
		"good.example@192.0.2.0/24":                                "good.example@192.0.2.0/24",
	} {
		once := greylist.Migrate(greylist.Entry{ID: greylist.ID(old)})
		if once.ID != greylist.ID(want) {
			t.Errorf("%s: %s, want %s", old, once.ID, want)
		}
		if twice := greylist.Migrate(once); twice != once {
			t.Errorf("%s is not stable: %s", once.ID, twice.ID)
		}
	}
}

// No name is masked, alone, put together without a dot, or with a small number.
func TestNames(t *testing.T) {
	table := lines(t, "names.txt")
	if len(table) < 200 {
		t.Errorf("%d names", len(table))
	}
	for _, name := range table {
		for _, local := range []string{name, name + "7", name + "85", "x." + name, name + "_it"} {
			if got := greylist.Sender(local, "example.org"); got != local+"@example.org" {
				t.Errorf("%s is masked: %s", local, got)
			}
		}
	}
}

// TestRandomTokens measures the rule on tokens that no one has chosen: of a
// thousand of each kind at least so many are masked.
func TestRandomTokens(t *testing.T) {
	const letters, digits = "abcdefghijklmnopqrstuvwxyz", "0123456789"
	random := rand.New(rand.NewPCG(20261126, 0))
	for _, kind := range []struct {
		alphabet     string
		length, want int
	}{
		{letters, 9, 590}, {letters, 12, 770}, {letters, 16, 900}, {letters, 19, 950},
		{letters + "234567", 9, 750}, {letters + "234567", 13, 950},
		{letters + digits, 9, 790}, {letters + digits, 12, 940}, {letters + digits, 15, 980}, {letters + digits, 19, 990},
	} {
		masked := 0
		for range 1000 {
			token := make([]byte, kind.length)
			for i := range token {
				token[i] = kind.alphabet[random.IntN(len(kind.alphabet))]
			}
			if greylist.Sender(string(token), "example.org") == "#@example.org" {
				masked++
			}
		}
		t.Logf("%d of %d characters: %.1f %%", kind.length, len(kind.alphabet), float64(masked)/10)
		if masked < kind.want {
			t.Errorf("%d of %d characters: %d masked, want %d", kind.length, len(kind.alphabet), masked, kind.want)
		}
	}
}

func FuzzSender(f *testing.F) {
	for _, s := range senders {
		f.Add(s.one)
		f.Add(s.two)
	}
	f.Add("srs1=a=b==@x")
	f.Add("prvs==@")
	f.Add("#-#-#-#@x")
	f.Fuzz(func(t *testing.T, address string) {
		got := sender(address)
		k := greylist.NewKey("", "", "192.0.2.0/24", got, address)
		client, s, r := k.ByNetwork().Split()
		if client != "192.0.2.0/24" || s != k.Sender || r != k.Recipient || k.ByNetwork().IsClient() {
			t.Fatalf("%q does not survive: %q", address, k.ByNetwork())
		}
		if len(k.Sender) > 320 || len(k.Recipient) > 320 {
			t.Fatalf("%d and %d octets", len(k.Sender), len(k.Recipient))
		}
		if again := greylist.NewKey("", "", "192.0.2.0/24", k.Sender, k.Recipient); again != k {
			t.Fatalf("not stable: %+v and %+v", k, again)
		}
	})
}
