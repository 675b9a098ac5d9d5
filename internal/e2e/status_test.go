package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

// ringSize is how many records a daemon has in its memory.
const ringSize = 10_000

// hostile are what strangers may send, to attack who reads it in a browser.
var hostile = []string{
	`<script>window.pwned=1</script>`,
	`"><img src=x onerror=window.pwned=1>`,
	`</td></tr></table><b>bold</b>`,
	`<svg/onload=window.pwned=1>`,
	"\u202egro.elpmaxe\u202c\u2066",
	"\u200b\ufeff\u00ad",
	"\x1b[31m\x07\x7f\u0085",
	"&lt;b&gt;&amp;{{7*7}}${7*7}",
	"javascript:window.pwned=1",
	strings.Repeat("x", 4<<10),
	"\xff\xfe\xc0",
}

// statusSite is a site whose daemons have status pages: policyd's shows both.
func statusSite(t *testing.T) (s *Site, page, metricsAddr string) {
	t.Helper()
	var addrs []string
	for range 3 {
		addr, err := postfixtest.FreeAddr()
		if err != nil {
			t.Fatal(err)
		}
		addrs = append(addrs, addr)
	}
	s = newSite(t, SiteConfig{
		Signing: true,
		Policyd: []string{
			"--checks", "ownership,limit,greylist", "--limit", "login.recipients=50/1h", "--limit-store", "memory:", "--limit-count-at", "rcpt",
			"--status-listen", "inet:" + addrs[0], "--status-peers", "http://" + addrs[1], "--metrics-listen", "inet:" + addrs[2],
		},
		Milterd: []string{"--status-listen", "inet:" + addrs[1], "--received-reports", receivedReports(t)},
	})
	return s, "http://" + addrs[0] + "/", addrs[2]
}

// receivedReports is a file with DMARC reports about us, by a receiver and by an
// attacker.
func receivedReports(t *testing.T) string {
	t.Helper()
	postern, err := binaries.Path(t.Context(), "postern")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "received.db")
	for i, r := range []struct{ org, domain, source, result string }{
		{"receiver.example", "home.example", "192.0.2.25", "pass"}, {hostile[1], hostile[0] + hostile[4], "203.0.113.66", "fail"},
	} {
		const form = `<feedback><report_metadata><org_name>%s</org_name><report_id>%d</report_id><date_range><begin>%d</begin><end>%d</end></date_range></report_metadata>
			<policy_published><domain>%s</domain><p>reject</p></policy_published>
			<record><row><source_ip>%s</source_ip><count>1310</count><policy_evaluated><disposition>none</disposition><dkim>%[7]s</dkim><spf>%[7]s</spf></policy_evaluated></row>
			<identifiers><header_from>%[5]s</header_from></identifiers><auth_results><spf><domain>%[5]s</domain><result>%[7]s</result></spf></auth_results></record></feedback>`
		now := time.Now().Unix()
		cmd := exec.CommandContext(t.Context(), postern, "dmarc", "read", "--dns=false", "--store", file, "-")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(form, html.EscapeString(r.org), i, now-86400, now, html.EscapeString(r.domain), r.source, r.result))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return file
}

// questioner asks postern-policyd as Postfix does.
type questioner struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (s *Site) questioner(t *testing.T) questioner {
	t.Helper()
	conn, err := net.Dial("tcp", s.PolicyAddr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return questioner{t, conn, bufio.NewReader(conn)}
}

// ask puts a question about a recipient: names and values.
func (a questioner) ask(pairs ...string) {
	a.t.Helper()
	text := "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=" + Alice + "\n"
	for i := 0; i < len(pairs); i += 2 {
		text += pairs[i] + "=" + pairs[i+1] + "\n"
	}
	if _, err := io.WriteString(a.conn, text+"\n"); err != nil {
		a.t.Fatal(err)
	}
	for range 2 { // the action and the empty line
		if _, err := a.in.ReadString('\n'); err != nil {
			a.t.Fatal(err)
		}
	}
}

// mixed is traffic: real mail, many questions, and those of attackers, which come
// last.
func (s *Site) mixed(t *testing.T) {
	t.Helper()
	expect(t, s, postfixtest.Submission, As(Alice, Alice, Bob), 250)
	expect(t, s, postfixtest.Submission, As(Bob, Alice, Dora), 553)
	expect(t, s, postfixtest.MX, postfixtest.Mail{From: "away@away.example", To: []string{Alice}, Client: "198.51.100.9"}, 250)
	a := s.questioner(t)
	for i := range ringSize {
		client := fmt.Sprintf("198.51.%d.%d", i/4%100, i%250)
		switch i % 10 {
		case 0:
			a.ask("sender", Alice, "sasl_username", Bob, "client_address", client)
		case 1:
			a.ask("sender", Bob, "sasl_username", Bob, "client_address", client)
		default:
			a.ask("sender", fmt.Sprintf("news%d@away.example", i%70), "client_address", client, "client_name", "mail.away.example", "helo_name", "mail.away.example")
		}
	}
	for _, text := range hostile {
		a.ask("sender", text+"@evil.example", "helo_name", text, "client_name", text, "sasl_username", text, "client_address", "203.0.113.66")
	}
	for range hostile { // a decision is counted and recorded a moment after its answer
		if _, err := s.Policyd.WaitRecord(t.Context(), func(r postfixtest.Record) bool { return r.Client == "203.0.113.66" }); err != nil {
			t.Fatal(err)
		}
	}
}

// counted are the decisions of /metrics: by reason, and by the verdict that the page
// shows.
func counted(t *testing.T, addr string) (reasons, verdicts map[string]int, all int) {
	t.Helper()
	reasons, verdicts = map[string]int{}, map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^postern_decisions_total\{check="[^"]*",mode="(\w+)",reason="(\w+)",verdict="(\w+)"\} (\d+)`).FindAllStringSubmatch(scrape(t, addr), -1) {
		n, err := strconv.Atoi(m[4])
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			continue
		}
		verdict := m[3]
		if m[1] == record.ModeShadow {
			verdict = "shadow"
		}
		reasons[m[2]+" "+verdict] += n
		verdicts[verdict] += n
		all += n
	}
	return reasons, verdicts, all
}

// visible is how the page shows a text: what has no shape by its number.
func visible(text string) string {
	return regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}\x{ad}\x{200b}-\x{200f}\x{2028}-\x{202f}\x{2060}-\x{206f}\x{feff}]`).ReplaceAllStringFunc(text, func(c string) string {
		return fmt.Sprintf(`\u{%x}`, []rune(c)[0])
	})
}

// The page shows, while mixed traffic comes in, what the metrics count and the records
// say; what attackers send is text; it can be used by keyboard, on a small screen and
// in the dark, and by people who need help to read it. It runs alone: Chromium ends when
// it gets too little of the processor.
func TestStatusPage(t *testing.T) {
	s, page, metricsAddr := statusSite(t)
	b := openBrowser(t)
	b.show(1280, 900, "light")
	b.open(page)
	s.mixed(t)
	reasons, verdicts, all := counted(t, metricsAddr)
	if all < ringSize+len(hostile) || len(reasons) < 4 {
		t.Fatalf("%d decisions, %v", all, reasons)
	}
	b.eval(`document.querySelector('[data-source="0"]').click(); document.querySelector('#reasons-span [data-span=start]').click()`, nil)
	b.until(fmt.Sprintf(`[...document.querySelectorAll("#bars li")].reduce((n, li) => n + Number(li.dataset.count || 0), 0) >= %d`, all))
	compareCounts(t, b, "reasons", `Object.fromEntries([...document.querySelectorAll("#bars li")].map((li) => [li.dataset.key, li.querySelector("b").textContent]))`, reasons)
	compareCounts(t, b, "the chart", `Object.fromEntries([...document.querySelectorAll("#legend li")].map((li) => [li.dataset.verdict, li.querySelector("b").textContent]))`, verdicts)
	lookAtHostile(t, s, b)
	lookAtDetail(t, s, b)
	lookAtParts(t, b)
	lookAtSenders(t, b)
	b.eval(`document.querySelector("#clear").click()`, nil)
	lookAtShapes(t, b, page)
	if all := b.complaints(); len(all) > 0 {
		t.Errorf("the browser complains: %q", all)
	}
}

// compareCounts compares numbers that the page shows with those that it should show.
func compareCounts(t *testing.T, b *browser, what, expression string, want map[string]int) {
	t.Helper()
	var shown map[string]string
	b.eval(expression, &shown)
	for key, n := range want {
		if got := strings.ReplaceAll(shown[key], ",", ""); got != strconv.Itoa(n) {
			t.Errorf("%s: %s is shown as %q, counted are %d", what, key, got, n)
		}
	}
	if len(shown) != len(want) {
		t.Errorf("%s: shown are %v, counted %v", what, shown, want)
	}
}

// lookAtHostile reads the newest rows, which are those of the attackers.
func lookAtHostile(t *testing.T, s *Site, b *browser) {
	t.Helper()
	var rows []struct{ Reason, Sender, Client, Login string }
	b.eval(`[...document.querySelectorAll("#rows tr")].map((tr) => { const of = (n) => tr.querySelector("[data-name=" + n + "]")?.textContent ?? "";
		return { Reason: of("reason"), Sender: of("from"), Client: of("client"), Login: of("login") }; })`, &rows)
	records := s.Policyd.Records()
	if len(rows) != 200 || len(records) < 200 {
		t.Fatalf("%d rows, %d records", len(rows), len(records))
	}
	for i := range hostile {
		r := records[len(records)-1-i]
		want := []string{r.Reason, visible(r.Sender), visible(r.Client + " " + r.ClientName), visible(r.SASLUsername)}
		if got := []string{rows[i].Reason, rows[i].Sender, rows[i].Client, rows[i].Login}; !slices.Equal(got, want) {
			t.Errorf("row %d is %.300q, want %.300q", i, got, want)
		}
	}
	var made []string
	b.eval(`[...new Set([...document.querySelectorAll("#rows *")].map((e) => e.tagName))].sort()`, &made)
	if !slices.Equal(made, []string{"BDI", "BUTTON", "SPAN", "TD", "TR"}) {
		t.Errorf("the rows are made of %q", made)
	}
}

// lookAtDetail finds a record by the filter and opens it by keyboard.
func lookAtDetail(t *testing.T, s *Site, b *browser) {
	t.Helper()
	b.eval(`document.activeElement.blur()`, nil)
	b.press("/")
	b.typed("sender=evil.example <img")
	b.until(`document.querySelectorAll("#rows tr").length === 1 && document.querySelector("#rows").textContent.includes("onerror")`)
	b.eval(`document.activeElement.blur()`, nil)
	b.press("j")
	b.press("Enter")
	b.until(`document.querySelector("#detail").open`)
	var detail struct {
		Reason string
		Keys   map[string]string
		Tags   []string
	}
	b.eval(`({ Reason: document.querySelector("#detail .reason").textContent,
		Keys: Object.fromEntries([...document.querySelectorAll("#detail-body > dl > dt")].map((dt) => [dt.textContent, dt.nextSibling.textContent])),
		Tags: [...document.querySelectorAll("#detail-body img, #detail-body script, #detail-body svg, #detail-body a")].map((e) => e.tagName) })`, &detail)
	records := s.Policyd.Records()
	i := slices.IndexFunc(records, func(r postfixtest.Record) bool { return strings.Contains(r.Sender, "<img") })
	r := records[i]
	for key, want := range map[string]string{"sender": r.Sender, "helo": r.Helo, "sasl_username": r.SASLUsername, "reason": r.Reason, "verdict": r.Verdict, "client_address": r.Client, "action": r.Action} {
		if detail.Keys[key] != visible(want) {
			t.Errorf("%s is shown as %q, want %q", key, detail.Keys[key], visible(want))
		}
	}
	if want := record.Meanings()[record.Reason(r.Reason)]; want == "" || !strings.Contains(detail.Reason, want) || len(detail.Tags) > 0 {
		t.Errorf("explained as %q, want %q; elements %q", detail.Reason, want, detail.Tags)
	}
	b.sound("with a record open")
	b.press("Escape")
	b.until(`!document.querySelector("#detail").open`)
}

// lookAtParts looks at what is not compared with numbers.
func lookAtParts(t *testing.T, b *browser) {
	t.Helper()
	b.eval(`document.querySelector('[data-source="-1"]').click()`, nil)
	b.until(`document.querySelectorAll("#daemons .pill.good").length === 2`)
	b.until(`document.querySelector("#keylist").textContent.includes("._domainkey.home.example")`)
	b.until(`document.querySelector("#uses").textContent.includes("login.recipients=50/1h")`)
	for selector, want := range map[string]string{
		"#daemons": "milterd on ", "#lamps": "greylist store", "#histograms": "decision", "#uses": Bob, "#keylist": "signs", "#chart": "",
	} {
		var text string
		if b.eval(`document.querySelector("`+selector+`").textContent`, &text); text == "" || !strings.Contains(text, want) {
			t.Errorf("%s shows %q, want %q in it", selector, text, want)
		}
	}
}

// lookAtSenders reads who sends in our name. The report of an attacker is text.
func lookAtSenders(t *testing.T, b *browser) {
	t.Helper()
	b.until(`document.querySelectorAll("#senderlist details").length === 2`)
	var shown []struct {
		Summary, Reporters, Source, Why string
		Cells                           []string
	}
	b.eval(`[...document.querySelectorAll("#senderlist details")].map((d) => ({ Summary: d.querySelector("summary").textContent, Reporters: d.querySelector("p").textContent,
		Source: d.querySelector("tbody th bdi").textContent, Why: d.querySelector(".why")?.textContent ?? "", Cells: [...d.querySelectorAll("td")].map((td) => td.textContent) }))`, &shown)
	ours, theirs := shown[0], shown[1]
	if ours.Summary != "home.example: 1,310 mails, 100\u00a0% pass DMARC" || ours.Reporters != "p=reject; reported by receiver.example" || ours.Source != "192.0.2.25" || !slices.Equal(ours.Cells, []string{"1,310", "100\u00a0%", "100\u00a0%", "0"}) {
		t.Errorf("our domain: %q", ours)
	}
	if !strings.HasPrefix(theirs.Summary, visible(hostile[0]+hostile[4])) || !strings.HasSuffix(theirs.Reporters, visible(hostile[1])) || !strings.Contains(theirs.Why, visible(hostile[4])) || theirs.Cells[3] != "1,310" {
		t.Errorf("the attacker's domain: %q", theirs)
	}
	var made []string
	b.eval(`[...new Set([...document.querySelectorAll("#senderlist *")].map((e) => e.tagName))].sort()`, &made)
	if !slices.Equal(made, []string{"BDI", "DETAILS", "P", "SUMMARY", "TABLE", "TBODY", "TD", "TH", "THEAD", "TR"}) {
		t.Errorf("the list is made of %q", made)
	}
}

// lookAtShapes draws the page light, dark and narrow, with all records, and has it
// looked at by axe.
func lookAtShapes(t *testing.T, b *browser, page string) {
	t.Helper()
	var paints []float64
	for _, shape := range []struct {
		name          string
		width, height int
		scheme        string
	}{{"light", 1280, 900, "light"}, {"dark", 1280, 900, "dark"}, {"narrow", 360, 740, "light"}} {
		b.show(shape.width, shape.height, shape.scheme)
		b.open(page)
		b.until(`document.querySelectorAll("#rows tr").length === 200 && document.querySelectorAll("#daemons .pill.good").length === 2`)
		var paint float64
		b.eval(`new Promise((done) => new PerformanceObserver((list, o) => {
			for (const e of list.getEntriesByName("first-contentful-paint")) { o.disconnect(); done(e.startTime); }
		}).observe({ type: "paint", buffered: true }))`, &paint)
		paints = append(paints, paint)
		var wide []string
		b.eval(`document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName + "#" + e.id + "." + e.className).slice(0, 5)`, &wide)
		if len(wide) > 0 {
			t.Errorf("%s: the page is wider than the screen: %q", shape.name, wide)
		}
		if shape.name != "light" { // which it has looked at with a record open
			b.sound(shape.name)
		}
		b.screenshot(filepath.Join(t.ArtifactDir(), shape.name+".png"))
	}
	var pwned bool
	if b.eval(`window.pwned !== undefined`, &pwned); pwned {
		t.Error("a script of an attacker has run")
	}
	slices.Sort(paints)
	t.Logf("first paint with %d records: %.0f ms", ringSize, paints)
}

// sound has axe look for what keeps people from using the page.
func (b *browser) sound(when string) {
	b.t.Helper()
	axe, err := os.ReadFile("testdata/axe/axe.min.js")
	if err != nil {
		b.t.Fatal(err)
	}
	b.eval(`typeof axe === "undefined" && (() => {`+string(axe)+"\n})()", nil)
	var found []json.RawMessage
	b.eval(`axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => ({ id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 200) + " " + (n.any[0]?.message ?? "")) })))`, &found)
	for _, v := range found {
		b.t.Errorf("%s: %s", when, v)
	}
}
