package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/sqlitestore"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/internal/store/sqlitefile"
)

// senderZones authorise good.example at two networks; other.example is in one
// of them without a word about it.
const senderZones = `
good.example.     IN TXT "v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"
`

// greylistSite is a site whose MX hook asks the greylist.
func greylistSite(t *testing.T, flags ...string) *Site {
	t.Helper()
	dns := resolvertest.New(t, senderZones).Addr()
	return newSite(t, SiteConfig{
		Policyd: append([]string{"--checks=ownership,greylist", "--resolver=" + dns}, flags...),
		Postfix: askGreylist,
	})
}

// askGreylist turns the MX hook to the greylist.
func askGreylist(c *postfixtest.Config) {
	context := regexp.MustCompile(`policy_context ?= ?` + ownership)
	for i := range c.MX {
		c.MX[i] = context.ReplaceAllString(c.MX[i], "policy_context=greylist")
	}
}

var greylisted = regexp.MustCompile(`^4\.2\.0 <[^>]*>: Recipient address rejected: Greylisted, please try again in (\d+) seconds`)

// comeBack sends m until it is taken, as a mail server does, and returns how
// many times it was told to wait. It waits a second more than it was told: the
// recipients of a mail are seen one after the other, and all should be due when
// it comes back.
func comeBack(t *testing.T, s *Site, m postfixtest.Mail) int {
	t.Helper()
	for waits := 0; ; waits++ {
		reply := send(t, s, postfixtest.MX, m)
		if reply.OK() {
			return waits
		}
		told := greylisted.FindStringSubmatch(reply.Lines[0])
		if reply.Code != 450 || told == nil {
			t.Fatalf("after %d waits: %s", waits, reply)
		}
		seconds, err := strconv.Atoi(told[1])
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-time.After(time.Duration(seconds+1) * time.Second):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

func TestGreylist(t *testing.T) {
	t.Parallel()
	s := greylistSite(t, "--greylist-delay=1s", "--greylist-awl-after=1")
	mail := client("192.0.2.7", "mx.good.example", "news@good.example", Alice)
	mail.To = []string{Alice, Bob, Dora}
	if comeBack(t, s, mail) == 0 {
		t.Error("the first mail was not delayed")
	}
	for _, to := range mail.To {
		d, err := s.Postfix.Delivered(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		if h := d.Headers("X-Greylist"); len(h) != 1 || !strings.HasPrefix(h[0], "delayed ") {
			t.Errorf("%s: X-Greylist %q, want one", to, h)
		}
	}
	// The domain has earned its credit at this network, for any sender.
	if waits := comeBack(t, s, client("192.0.2.99", "", "other@good.example", Press)); waits != 0 {
		t.Errorf("an allowed client waited %d times", waits)
	}
	want := map[string]record.Reason{"other@good.example": record.GreylistAutoAllowed}
	for sender, reason := range want {
		r, err := s.Record(t.Context(), client("", "", sender, Press))
		if err != nil || r.Reason != string(reason) {
			t.Errorf("%s: %+v, %v", sender, r, err)
		}
	}
	// Another network of the domain is known by the triplet, not by credit.
	if waits := comeBack(t, s, client("198.51.100.7", "", "news@good.example", Alice)); waits != 0 {
		t.Errorf("the domain's other network waited %d times", waits)
	}
	if waits := comeBack(t, s, client("203.0.113.7", "", "stranger@other.example", Alice)); waits == 0 {
		t.Error("another sender was not delayed")
	}
}

func TestGreylistNeverDelays(t *testing.T) {
	t.Parallel()
	s := greylistSite(t, "--greylist-delay=1h")
	for _, m := range []postfixtest.Mail{
		client("10.1.2.3", "", "x@other.example", Alice),
		client("fd00::7", "", "x@other.example", Alice),
		client("209.85.1.1", "mail-x.google.com", "x@other.example", Alice),
	} {
		expect(t, s, postfixtest.MX, m, 250)
	}
	expect(t, s, postfixtest.Submission, As(Alice, Alice, Bob), 250)
	expect(t, s, postfixtest.MX, client("203.0.113.8", "", "x@other.example", Alice), 450)
}

// TestGreylistRedis takes the store away and brings it back.
func TestGreylistRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := greylistSite(t, "--greylist-delay=1h", "--greylist-store=redis://"+server.Addr, "--deadline=3s")
	expect(t, s, postfixtest.MX, client("203.0.113.1", "", "a@other.example", Alice), 450)
	server.Kill()
	m := client("203.0.113.2", "", "b@other.example", Alice)
	expect(t, s, postfixtest.MX, m, 250)
	if _, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool {
		return r.Sender == m.From && len(r.Steps) == 1 && r.Steps[0].Reason == string(record.GreylistUnavailable)
	}); err != nil {
		t.Error(err)
	}
	server.Restart()
	for i := 0; send(t, s, postfixtest.MX, client("203.0.113.3", "", fmt.Sprint(i, "x@other.example"), Alice)).OK(); i++ {
		if t.Context().Err() != nil {
			t.Fatal("greylisting did not return with the store")
		}
	}
}

// TestGreylistCommand asks the running daemon as an administrator would.
func TestGreylistCommand(t *testing.T) {
	t.Parallel()
	s := greylistSite(t, "--greylist-delay=1h", "--greylist-store=sqlite:"+filepath.Join(t.TempDir(), "greylist.db"))
	expect(t, s, postfixtest.MX, client("203.0.113.1", "", "ann@other.example", Alice), 450)
	postern := func(args ...string) string {
		t.Helper()
		path, err := binaries.Path(t.Context(), "postern")
		if err != nil {
			t.Fatal(err)
		}
		args = append([]string{"greylist", args[0], "--admin", filepath.Join(s.Dir, "policyd.sock")}, args[1:]...)
		cmd := exec.CommandContext(t.Context(), path, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil && cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("postern %v: %v\n%s", args, err, stderr.String())
		}
		return string(out)
	}
	var entry struct{ Client, Sender, Recipient, State string }
	if err := json.Unmarshal([]byte(postern("list", "--json", "--sender", "ann@*")), &entry); err != nil ||
		entry.Client != "203.0.113.0/24" || entry.Recipient != Alice || entry.State != "waiting" {
		t.Errorf("list: %+v, %v", entry, err)
	}
	if out := postern("show", "203.0.113.77", "ann@other.example", Alice); !strings.HasPrefix(out, "defer (greylist_early), to wait ") {
		t.Errorf("show: %s", out)
	}
	postern("allow", "203.0.113.0/24")
	expect(t, s, postfixtest.MX, client("203.0.113.1", "", "bea@other.example", Alice), 250)
	if out := postern("stats"); !strings.Contains(out, "clients allowed by hand  1") || !strings.Contains(out, "triplets waiting") {
		t.Errorf("stats: %s", out)
	}
	if out := postern("delete", "--kind", "clients"); out != "1 entries deleted\n" {
		t.Errorf("delete: %s", out)
	}
	dump := filepath.Join(t.TempDir(), "dump")
	now := time.Now().Unix()
	text := fmt.Sprintf("VERSION=3\nformat=print\ntype=btree\nHEADER=END\n 198.51.100.0/eve@other.example/%s\n %d,%d\nDATA=END\n", Alice, now-86400, now-3600)
	if err := os.WriteFile(dump, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := postern("import", "--postgrey", dump); !strings.HasPrefix(out, "1 entries imported, 0 skipped") {
		t.Errorf("import: %s", out)
	}
	expect(t, s, postfixtest.MX, client("198.51.100.9", "", "eve@other.example", Alice), 250)
}

// promise is how much of the past a crash may take.
const promise = time.Second

// TestGreylistKilled ends the daemon under load and looks for what it had
// answered.
func TestGreylistKilled(t *testing.T) { // not beside others, whose load would be measured
	path := filepath.Join(t.TempDir(), "greylist.db")
	binary, err := binaries.Path(t.Context(), "postern-policyd")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	d := postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: binary, Args: []string{
		"--config=", "--checks=greylist", "--greylist-key=network", "--greylist-store=sqlite:" + path, "--greylist-flood-network=0",
		"--greylist-allow-senders=none", "--listen=inet:" + addr, "--admin=", "--metrics-listen="}})
	const enough = 3 * promise
	answered := newAnswers()
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() { answered.ask(t.Context(), addr, c) })
	}
	killed := answered.after(t.Context(), enough)
	d.Kill()
	wg.Wait()

	store, err := sqlitestore.Open(sqlitestore.Options{Path: path, Report: func(e sqlitefile.Event) { t.Errorf("event: %+v", e) }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	missing := map[string]time.Time{}
	for sender, at := range answered.at {
		if at.Before(killed.Add(-promise)) {
			missing[sender] = at
		}
	}
	if len(missing) < 100 {
		t.Fatalf("only %d answers: no load", len(missing))
	}
	t.Logf("%d answers older than %s when the daemon was killed, %d in all", len(missing), promise, len(answered.at))
	if err := store.Walk(t.Context(), func(e greylist.Entry) error {
		_, sender, _ := e.ID.Split()
		delete(missing, sender)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for sender, at := range missing {
		t.Errorf("%s, answered %s before the end, is lost", sender, killed.Sub(at))
	}
}

// answers are the senders that got an answer, and when.
type answers struct {
	mu    sync.Mutex
	at    map[string]time.Time
	first time.Time
	news  chan struct{}
}

func newAnswers() *answers { return &answers{at: map[string]time.Time{}, news: make(chan struct{}, 1)} }

// ask asks about ever new senders until the connection ends.
func (a *answers) ask(ctx context.Context, addr string, c int) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	for i := 0; ; i++ {
		sender := "s" + strings.Repeat(strconv.Itoa(c), 2) + word(i) + "@other.example"
		fmt.Fprintf(conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=203.0.%d.7\nhelo_name=x\nsender=%s\nrecipient=bob@home.example\ninstance=%d.%d\n\n", i%200, sender, c, i)
		for line := ""; line != "\n"; {
			if line, err = replies.ReadString('\n'); err != nil {
				return
			}
		}
		a.note(sender)
	}
}

// word spells a number without digits, which keys would mask.
func word(n int) string {
	var b []byte
	for ; n > 0; n /= 20 {
		b = append(b, byte('g'+n%20))
	}
	return string(b)
}

func (a *answers) note(sender string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.first.IsZero() {
		a.first = now
	}
	a.at[sender] = now
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// after returns once answers have come for that long.
func (a *answers) after(ctx context.Context, d time.Duration) time.Time {
	for {
		select {
		case <-a.news:
		case <-ctx.Done():
			return time.Now()
		}
		a.mu.Lock()
		long := time.Since(a.first) > d
		a.mu.Unlock()
		if long {
			return time.Now()
		}
	}
}
