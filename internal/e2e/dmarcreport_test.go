package e2e

import (
	"bytes"
	"compress/gzip"
	"database/sql"
	"encoding/base64"
	"encoding/xml"
	"io"
	"mime"
	"mime/multipart"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// reportZone asks for reports to a mailbox of another organization, which agrees.
const reportZone = `_dmarc.bank.example. TXT "v=DMARC1; p=none; rua=mailto:bob@home.example!1m"
bank.example._report._dmarc.home.example. TXT "v=DMARC1"
`

// TestDMARCReports has three days of mail counted, and the reports about them sent
// through Postfix to a mailbox: their sums are what was sent. Days are moved into the
// past in the store, while the daemon is away.
func TestDMARCReports(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	if err := s.DNS.Replace(strings.Replace(bankZone, "_dmarc.bank.example. TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@bank.example\"\n", reportZone, 1)); err != nil {
		t.Fatal(err)
	}
	store, admin := filepath.Join(s.Dir, "reports.db"), "unix:"+filepath.Join(s.Dir, "reports.sock")
	if err := s.milterdWith(t.Context(), []string{"--report-store=sqlite:" + store, "--report-from=reports@" + homeDomain, "--report-org=Home",
		"--report-smtp=inet:" + s.Postfix.Addr(postfixtest.MX), "--admin=" + admin}); err != nil {
		t.Fatal(err)
	}
	began := utcDay()
	cases := DMARCCases()
	own, list := cases[0].Mail, cases[2].Mail
	for day := range 3 {
		for range day + 1 {
			deliver(t, s, postfixtest.MX, own)
		}
		deliver(t, s, postfixtest.MX, list)
		if day == 0 {
			if out, err := s.Postern(t.Context(), "dmarc", "report", "preview", "bank.example", "--admin", admin); err != nil || !strings.Contains(out, "<source_ip>192.0.2.40</source_ip>") {
				t.Fatal(out, err)
			}
		}
		moveReports(t, s, store, 1)
	}
	moveReports(t, s, store, 1) // so that the last day is over, however late it is
	for range 2 {
		if out, err := s.Postern(t.Context(), "dmarc", "report", "send", "--admin", admin); err != nil {
			t.Fatal(out, err)
		}
	}
	ended := utcDay()
	sums, files := make(map[string]int), make(map[string]bool)
	for left := 1 + 2 + 3 + 3; left > 0; {
		d, err := s.Postfix.Delivered(t.Context(), Bob)
		if err != nil {
			t.Fatal(err)
		}
		name, report := reportIn(t, d)
		if files[name] || !strings.Contains(d.Header("DKIM-Signature"), "d="+homeDomain) || !strings.HasPrefix(d.Header("Subject"), "Report Domain: bank.example Submitter: home.example Report-ID: <") ||
			!strings.HasPrefix(d.Sender, "reports+b.") {
			t.Errorf("%s from %s: %s", name, d.Sender, d.Header("Subject"))
		}
		files[name] = true
		for _, r := range report.Rows {
			sums[r.Source+" "+r.Disposition] += r.Count
			left -= r.Count
		}
	}
	if len(files) != 3 && (began == ended || len(files) != 4) { // midnight may have come between the mails of one day
		t.Errorf("%d reports", len(files))
	}
	if len(sums) != 2 || sums["192.0.2.40 pass"] != 1+2+3 || sums["192.0.2.41 none"] != 3 {
		t.Error(sums)
	}
	if out, err := s.Postern(t.Context(), "dmarc", "report", "list", "--admin", admin); err != nil || strings.Count(out, "bob@home.example sent") != len(files) {
		t.Error(out, err)
	}
}

// utcDay returns the day for which reports count now.
func utcDay() string { return time.Now().UTC().Format(time.DateOnly) }

// moveDays moves what was counted in Redis two days into the past, the earliest day first.
const moveDays = `for _, day in ipairs(redis.call('ZRANGE', '{postern}:ry', 0, -1)) do
  local past = tostring(day - 2)
  for _, key in ipairs(redis.call('KEYS', '{postern}:r[dsrc]:' .. day .. '*')) do
    redis.call('RENAME', key, (string.gsub(key, ':' .. day, ':' .. past, 1)))
  end
  redis.call('ZREM', '{postern}:ry', day)
  redis.call('ZADD', '{postern}:ry', past, past)
end`

// TestDMARCReportTwoHosts has two hosts count on one Redis, and send at the same time:
// there is one report, about the mail of both.
func TestDMARCReportTwoHosts(t *testing.T) {
	t.Parallel()
	redistest.Require(t)
	redis := redistest.Start(t)
	hosts := []*Site{newSigningSite(t, SiteConfig{}), newSigningSite(t, SiteConfig{})}
	admin := func(s *Site) string { return "--admin=unix:" + filepath.Join(s.Dir, "reports.sock") }
	for _, s := range hosts {
		if err := s.DNS.Replace(strings.Replace(bankZone, "_dmarc.bank.example. TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@bank.example\"\n", reportZone, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.milterdWith(t.Context(), []string{"--report-store=redis://" + redis.Addr, "--report-from=reports@" + homeDomain,
			"--report-smtp=inet:" + hosts[0].Postfix.Addr(postfixtest.MX), admin(s)}); err != nil {
			t.Fatal(err)
		}
	}
	for day := ""; day != utcDay(); {
		redis.Command("FLUSHALL") // if midnight has come between the mails of the hosts
		day = utcDay()
		for _, s := range hosts {
			deliver(t, s, postfixtest.MX, DMARCCases()[0].Mail)
			if out, err := s.Postern(t.Context(), "dmarc", "report", "list", admin(s)); err != nil { // writes what is counted
				t.Fatal(out, err)
			}
		}
	}
	redis.Command("-e", "EVAL", moveDays, "0")
	said := make(chan string)
	for range 3 {
		for _, s := range hosts {
			go func() {
				out, err := s.Postern(t.Context(), "dmarc", "report", "send", admin(s))
				if err != nil {
					t.Error(out, err)
				}
				said <- out
			}()
		}
	}
	all := ""
	for range 3 * len(hosts) {
		all += <-said
	}
	if strings.Count(all, " sent "+Bob) != 1 {
		t.Errorf("the hosts have sent:\n%s", all)
	}
	d, err := hosts[0].Postfix.Delivered(t.Context(), Bob)
	if err != nil {
		t.Fatal(err)
	}
	if _, report := reportIn(t, d); len(report.Rows) != 1 || report.Rows[0].Count != 2 {
		t.Errorf("%+v", report)
	}
	for _, s := range hosts {
		if out, err := s.Postern(t.Context(), "dmarc", "report", "list", admin(s)); err != nil || strings.Count(out, Bob+" sent") != 1 {
			t.Error(out, err)
		}
	}
}

// TestDMARCReportBounce has a report come back. Postfix passes the bounce to the command,
// as milter/REPORTS.md describes it. While the daemon is away, Postfix keeps a bounce.
func TestDMARCReportBounce(t *testing.T) {
	t.Parallel()
	const gone, from = "gone@home.example", "reports@" + homeDomain
	s := newSigningSite(t, SiteConfig{Postfix: func(c *postfixtest.Config) {
		c.Mailboxes = append(c.Mailboxes, gone, from)
		c.Main = append(c.Main, "alias_maps = hash:"+filepath.Join(c.Dir, "reports"),
			"transport_maps = inline:{ { "+gone+" = local }, { "+from+" = local } }")
	}})
	if err := s.DNS.Replace(strings.Replace(bankZone, "mailto:dmarc@bank.example", "mailto:"+gone, 1) + "bank.example._report._dmarc.home.example. TXT \"v=DMARC1\"\n"); err != nil {
		t.Fatal(err)
	}
	store, admin := filepath.Join(s.Dir, "reports.db"), "unix:"+filepath.Join(s.Dir, "reports.sock")
	aliasReports(t, s, admin)
	if err := s.milterdWith(t.Context(), []string{"--report-store=sqlite:" + store, "--report-from=" + from,
		"--report-smtp=inet:" + s.Postfix.Addr(postfixtest.MX), "--admin=" + admin, "--admin-mode=0666"}); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, postfixtest.MX, DMARCCases()[0].Mail)
	moveReports(t, s, store, 2)
	if out, err := s.Postern(t.Context(), "dmarc", "report", "send", "--admin", admin); err != nil {
		t.Fatal(out, err)
	}
	passed := func(id, status string) (line string) {
		t.Helper()
		line, err := s.Postfix.WaitLog(t.Context(), func(line string) bool {
			return strings.Contains(line, id+": to=<reports+b.") && strings.Contains(line, "relay=local") && strings.Contains(line, status)
		})
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	_, to, _ := strings.Cut(passed("", "status=sent (delivered to command: "), "to=<")
	to, _, _ = strings.Cut(to, ">")
	if out, err := s.Postern(t.Context(), "dmarc", "report", "list", "--admin", admin); err != nil || !strings.Contains(out, gone+" bounced (5.3.0 ") || !strings.Contains(out, "no reports to "+gone+" until ") {
		t.Error(out, err)
	}
	got := send(t, s, postfixtest.MX, postfixtest.Mail{From: "person@elsewhere.example", To: []string{to}})
	if got.Code != 250 {
		t.Fatal(got)
	}
	passed(queued(got), "status=sent (delivered to command: ")
	if got := s.milterdMetrics(t); !strings.Contains(got, `postern_dmarc_report_mails_total{state="bounced"} 1`+"\n") {
		t.Error(got)
	}
	if err := s.Milterd.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := send(t, s, postfixtest.MX, postfixtest.Mail{To: []string{to}}); got.Code != 250 {
		t.Fatal(got)
	}
	passed("", "status=deferred (temporary failure. Command output: ")
}

// queued returns Postfix's name for a mail that it has accepted.
func queued(r postfixtest.Reply) string {
	_, id, _ := strings.Cut(r.String(), "queued as ")
	return id
}

// aliasReports makes the alias that passes bounces of reports to the command, and an
// address whose mail comes back.
func aliasReports(t *testing.T, s *Site, admin string) {
	t.Helper()
	command, err := s.config.Binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.Postfix.Dir(), "reports")
	if err := os.WriteFile(path, []byte(`reports: "|`+command+` dmarc bounce --admin `+admin+"\"\ngone: \"|exit 1\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "postalias", "-c", s.Postfix.ConfigDir(), "hash:"+path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	owner, err := user.Lookup(daemonUser)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path+".db", uid, -1); err != nil {
		t.Fatal(err)
	}
}

// moveReports moves what was counted into the past.
func moveReports(t *testing.T, s *Site, store string, days int) {
	t.Helper()
	if err := s.Milterd.StopUnlessEnded(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("UPDATE reports SET day = day - ?", days); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.StartMilterd(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reportIn reads the report that a mail carries.
func reportIn(t *testing.T, d postfixtest.Delivery) (name string, report reportedRows) {
	t.Helper()
	_, body, _ := bytes.Cut(d.Data, []byte("\r\n\r\n"))
	_, params, err := mime.ParseMediaType(d.Header("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatalf("no report in %s: %v", d.Data, err)
		}
		if p.FileName() == "" {
			continue
		}
		z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(text, &report); err != nil {
			t.Fatal(err)
		}
		return p.FileName(), report
	}
}
