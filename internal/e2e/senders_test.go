package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// loginMap is what Postfix's own restriction and postern-policyd read. Alice owns a catch-all in the local domain
// and one elsewhere, which is what a spoofed form would have to get into.
const loginMap = `@local.example       alice@home.example
@owned.example       alice@home.example
ceo@victim.example   bob@home.example
ceo@local.example    bob@home.example
ceo@host.my.example  bob@home.example
ceo@host             bob@home.example
info                 bob@home.example
`

// senderShapes put a user and two domains into every form that Postfix completes,
// routes or takes apart. The reverse-path is written as a client writes it.
func senderShapes(user, near, far string) []string {
	return []string{
		user, user + "@" + far, user + "@" + far + ".", user + "@" + far + "..", user + "%" + far, user + "%" + far + ".", far + "!" + user, far + ".!" + user,
		user + "%" + far + "@" + near, far + "!" + user + "@" + near, user + "%" + far + "@" + near + ".", user + "@" + far + "@" + near,
		`"` + user + "@" + far + `"`, `"` + user + "@" + far + `"@` + near, `"` + user + "%" + far + `"`, `"` + user + "%" + far + `"@` + near,
		`"` + far + "!" + user + `"@` + near, `"` + user + `"@` + far, `"` + user + "@" + far + `."@` + near, `"a b%` + far + `"@` + near,
		"@" + near + ":" + user + "@" + far, "@" + near + ",@x.example:" + user + "@" + far, "@" + near + ":@x.example:" + user + "@" + far, "@" + near + ":" + user + "%" + far,
		user + "%" + far + "%" + near, near + "!" + far + "!" + user, near + "!" + user + "%" + far, user + "%" + near + "!" + far,
		user + "@", "@" + far, user + "." + "@" + far, user + "+tag@" + far, user + "+tag%" + far, strings.ToUpper(user + "@" + far), strings.ToUpper(user + "%" + far),
		user + "@[127.0.0.1]", user + "%" + far + "@[127.0.0.1]", `"` + user + "@" + far + `"@[127.0.0.1]`, user + `\%` + far, user + `\@` + far + "@" + near,
		user + "(x)@" + far, user + "@" + far + "(x)", user + "%", "!" + user, far + "!", `""@` + near, `"` + user + `\"@` + far + `"@` + near,
	}
}

func generatedSenders() []string {
	var senders []string
	for _, near := range []string{"local.example", "owned.example", "host"} {
		for _, far := range []string{"victim.example", "owned.example", "host", "local.example"} {
			senders = append(senders, senderShapes("ceo", near, far)...)
		}
	}
	senders = append(senders, senderShapes("alice", "local.example", "home.example")...)
	for _, far := range []string{"victim.example", "host", "local.example"} {
		senders = append(senders, senderShapes("info", "local.example", far)...)
	}
	senders = append(senders, senderShapes("alice", "home.example", "home.example")...)
	senders = append(senders, senderShapes("ceo", "home.example", "victim.example")...)
	slices.Sort(senders)
	return slices.Compact(senders)
}

// TestSendersAgainstPostfix asks Postfix's own reject_sender_login_mismatch and
// postern-policyd about the same senders, under each set of its rewriting
// settings: what Postfix refuses is never let through. What is plain and owned
// passes both.
func TestSendersAgainstPostfix(t *testing.T) {
	t.Parallel()
	senders := generatedSenders()
	if len(senders) < 500 {
		t.Fatalf("%d senders only", len(senders))
	}
	for name, settings := range map[string]struct{ main, flags []string }{
		"defaults":  {nil, nil},
		"mydomain":  {[]string{"append_dot_mydomain = yes"}, []string{"--append-dot-mydomain", "--mydomain=my.example"}},
		"no hacks":  {[]string{"allow_percent_hack = no", "swap_bangpath = no"}, []string{"--allow-percent-hack=false", "--swap-bangpath=false"}},
		"no origin": {[]string{"append_at_myorigin = no"}, []string{"--append-at-myorigin=false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSenderSite(t, settings.main, settings.flags)
			theirs, ours := newAsker(t, s, native), newAsker(t, s, postfixtest.Submission)
			stricter, refused := 0, 0
			wants, gots := theirs.ask(t, senders...), ours.ask(t, senders...)
			for i, sender := range senders {
				switch want, got := wants[i], gots[i]; {
				case !want.OK() && got.OK():
					t.Errorf("<%s>: Postfix says %s, we let it through", sender, want)
				case want.OK() && !got.OK():
					stricter++
				case !want.OK():
					refused++
				}
			}
			t.Logf("%d senders: both refuse %d, only we refuse %d", len(senders), refused, stricter)
			owned := []string{"alice@home.example", "any@owned.example", "any+tag@owned.example", "x@local.example", "any@owned.example.", "@x.example:any@owned.example"}
			for i, reply := range ours.ask(t, owned...) {
				if !reply.OK() {
					t.Errorf("<%s>, which is owned: %s", owned[i], reply)
				}
			}
		})
	}
}

func newSenderSite(t *testing.T, main, flags []string) *Site {
	t.Helper()
	limits := []string{"smtpd_hard_error_limit=100000", "smtpd_soft_error_limit=100000", "smtpd_error_sleep_time=0", "smtpd_junk_command_limit=100000"}
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	logins := dir + "/logins"
	if err := os.WriteFile(logins, []byte(loginMap), 0o644); err != nil {
		t.Fatal(err)
	}
	return newSite(t, SiteConfig{
		Dir: dir,
		Policyd: append([]string{"--owners=texthash:" + logins, "--owner-self=false", "--owners-unauthenticated=reject",
			"--local-domains=local.example", "--myorigin=local.example"}, flags...),
		Postfix: func(c *postfixtest.Config) {
			c.Main = append(c.Main, append([]string{"mydestination = local.example", "myorigin = local.example", "mydomain = my.example",
				"smtpd_sender_login_maps = texthash:" + dir + "/owners, texthash:" + logins}, main...)...)
			c.Submission = append(c.Submission, limits...)
			c.More = append(c.More, postfixtest.Service{Name: native, Login: true, Options: append(limits, "smtpd_sender_restrictions=reject_sender_login_mismatch")})
		},
	})
}

// asker is a session of alice's that asks about one sender after the other.
type asker struct{ *postfixtest.Client }

func newAsker(t *testing.T, s *Site, service string) asker {
	t.Helper()
	c, err := s.Postfix.Dial(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Hello("client.example"); err != nil {
		t.Fatal(err)
	}
	if err := c.Login(Alice, password); err != nil {
		t.Fatal(err)
	}
	return asker{c}
}

// batch is how many senders are asked about in one go.
const batch = 20

// ask returns the replies that decide about senders.
func (a asker) ask(t *testing.T, senders ...string) []postfixtest.Reply {
	t.Helper()
	var decided []postfixtest.Reply
	for some := range slices.Chunk(senders, batch) {
		var commands []string
		for _, sender := range some {
			commands = append(commands, "RSET", fmt.Sprintf("MAIL FROM:<%s>", sender), fmt.Sprintf("RCPT TO:<%s>", Dora))
		}
		replies, err := a.Pipeline(commands...)
		if err != nil {
			t.Fatalf("%q: %v", some, err)
		}
		for three := range slices.Chunk(replies, 3) {
			if reply := three[1]; !reply.OK() {
				decided = append(decided, reply)
			} else {
				decided = append(decided, three[2])
			}
		}
	}
	return decided
}
