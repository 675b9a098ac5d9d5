package e2e

import (
	"cmp"
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

// oddSenders have local parts that no mailbox has, or are looked up as local users.
var oddSenders = []string{
	`"<>"`, `"<>"@local.example`, `"<ceo@victim.example>"`, `"<ceo@victim.example>"@local.example`, `"> "`, `"\\"`,
	"info@my.example", "info+tag@my.example", "INFO@MY.example", "info+tag@[127.0.0.1]", "info@[127.0.0.2]", "info@[IPv6:::1]", `"info"@[127.0.0.1]`,
	"ceo\x01@local.example", "\x7f@local.example", "info\x02", "info+\x02", "info+\x02@local.example", "info@local.example\x01", `"ceo` + "\t" + `"@local.example`,
	strings.Repeat("l", 1200) + "@local.example", "info+" + strings.Repeat("l", 1200) + "@local.example", "info+" + strings.Repeat("l", 1200),
	"x@-dash.example", "x@dash-.example", "x@under_score.example", "x@" + strings.Repeat("l", 70) + ".example", "x@local..example", "x@1.2.3.4", "x@local.example:25",
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

// TestSendersAgainstPostfix asks Postfix's own restrictions and postern-policyd about
// the same senders, under each set of its rewriting settings: what Postfix refuses is
// never let through, with a login or without. What is plain and owned passes both.
func TestSendersAgainstPostfix(t *testing.T) {
	t.Parallel()
	senders := append(generatedSenders(), oddSenders...)
	if len(senders) < 500 {
		t.Fatalf("%d senders only", len(senders))
	}
	for name, settings := range map[string]senderSettings{
		"defaults":      {},
		"mydomain":      {main: []string{"append_dot_mydomain = yes"}, flags: []string{"--append-dot-mydomain", "--mydomain=my.example"}},
		"no hacks":      {main: []string{"allow_percent_hack = no", "swap_bangpath = no"}, flags: []string{"--allow-percent-hack=false", "--swap-bangpath=false"}},
		"no origin":     {main: []string{"append_at_myorigin = no"}, flags: []string{"--append-at-myorigin=false"}},
		"known senders": {rule: "reject_known_sender_login_mismatch", main: []string{"myorigin = my.example"}, flags: []string{"--owners-unlisted=pass", "--myorigin=my.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSenderSite(t, settings)
			ours := newAsker(t, s, postfixtest.Submission)
			compareSenders(t, senders, newAsker(t, s, native), ours)
			if name == "defaults" || name == "known senders" {
				compareSenders(t, senders, newStranger(t, s, native), newStranger(t, s, postfixtest.Submission))
			}
			owned := []string{"alice@home.example", "any@owned.example", "any+tag@owned.example", "x@local.example", "any@owned.example.", "@x.example:any@owned.example"}
			for i, reply := range ours.ask(t, owned...) {
				if !reply.OK() {
					t.Errorf("<%s>, which is owned: %s", owned[i], reply)
				}
			}
		})
	}
}

// loginRules tell upper case from lower case: their flag i turns "ignore case" off.
const loginRules = `/^ceo@victim\.example$/i bob@home.example
/^Ceo@capital\.example$/i bob@home.example
/^(.*)@Owned\.example$/ alice@home.example
/^([a-z]+)@mine\.example$/i $1@home.example
`

// TestSenderPatternsAgainstPostfix holds that the rules of regexp: and pcre: tables match
// what they match in smtpd_sender_login_maps, whatever the case of a sender.
func TestSenderPatternsAgainstPostfix(t *testing.T) {
	t.Parallel()
	var senders []string
	for _, sender := range []string{"ceo@victim.example", "ceo@capital.example", "any+Tag@owned.example", "alice@mine.example", "bob@mine.example", "ceo%victim.example", "none@none.example"} {
		user, domain, _ := strings.Cut(sender, "@")
		senders = append(senders, sender, strings.ToUpper(sender), strings.ToUpper(user[:1])+user[1:]+strings.TrimSuffix("@"+domain, "@"), user+strings.ToUpper(strings.TrimSuffix("@"+domain, "@")))
	}
	for _, kind := range []string{"regexp", "pcre"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newSenderSite(t, senderSettings{rule: "reject_known_sender_login_mismatch", table: kind, flags: []string{"--owners-unlisted=pass"}})
			for who, ask := range map[string]func(*testing.T, *Site, string) asker{"alice": newAsker, "a stranger": newStranger} {
				wants, gots := ask(t, s, native).ask(t, senders...), ask(t, s, postfixtest.Submission).ask(t, senders...)
				for i, sender := range senders {
					if wants[i].OK() != gots[i].OK() {
						t.Errorf("%s as <%s>: Postfix says %s, we say %s", who, sender, wants[i], gots[i])
					}
				}
			}
		})
	}
}

// compareSenders reports senders that Postfix refuses and we let through.
func compareSenders(t *testing.T, senders []string, theirs, ours asker) {
	t.Helper()
	stricter, refused := 0, 0
	wants, gots := theirs.ask(t, senders...), ours.ask(t, senders...)
	for i, sender := range senders {
		switch want, got := wants[i], gots[i]; {
		case !want.OK() && got.OK():
			t.Errorf("<%.80q>: Postfix says %s, we let it through", sender, want)
		case want.OK() && !got.OK():
			stricter++
		case !want.OK():
			refused++
		}
	}
	t.Logf("%d senders: both refuse %d, only we refuse %d", len(senders), refused, stricter)
}

// senderSettings are Postfix's restriction (reject_sender_login_mismatch if empty), its
// settings, and our flags that mean the same.
type senderSettings struct {
	rule        string
	table       string // the type of a table with loginRules; "" is a text with loginMap
	main, flags []string
}

func newSenderSite(t *testing.T, settings senderSettings) *Site {
	t.Helper()
	limits := []string{"smtpd_hard_error_limit=100000", "smtpd_soft_error_limit=100000", "smtpd_error_sleep_time=0", "smtpd_junk_command_limit=100000"}
	dir, err := postfixtest.MakeDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	logins := dir + "/logins"
	text, table := loginMap, "texthash:"+logins
	if settings.table != "" {
		text, table = loginRules, settings.table+":"+logins
	}
	if err := os.WriteFile(logins, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return newSite(t, SiteConfig{
		Dir: dir,
		Policyd: append([]string{"--owners=" + table, "--owner-self=false", "--owners-unauthenticated=reject",
			"--local-domains=local.example", "--myorigin=local.example"}, settings.flags...),
		Postfix: func(c *postfixtest.Config) {
			c.Main = append(c.Main, append([]string{"mydestination = local.example", "mydomain = my.example",
				"smtpd_sender_login_maps = texthash:" + dir + "/owners, " + table}, settings.main...)...)
			if !slices.ContainsFunc(settings.main, func(line string) bool { return strings.HasPrefix(line, "myorigin") }) {
				c.Main = append(c.Main, "myorigin = local.example")
			}
			c.Submission = append(c.Submission, limits...)
			c.More = append(c.More, postfixtest.Service{Name: native, Login: true, Options: append(limits, "smtpd_sender_restrictions="+cmp.Or(settings.rule, "reject_sender_login_mismatch"))})
		},
	})
}

// asker is a session of alice's that asks about one sender after the other.
type asker struct{ *postfixtest.Client }

func newAsker(t *testing.T, s *Site, service string) asker {
	t.Helper()
	a := newStranger(t, s, service)
	if err := a.Login(Alice, password); err != nil {
		t.Fatal(err)
	}
	return a
}

// newStranger returns a session without a login.
func newStranger(t *testing.T, s *Site, service string) asker {
	t.Helper()
	c, err := s.Postfix.Dial(t.Context(), service)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Hello("client.example"); err != nil {
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
