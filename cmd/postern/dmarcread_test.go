package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/reportread"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// reportFile is a report of two sources. The name of who reports is a stranger's text.
func reportFile(t *testing.T, id string) string {
	t.Helper()
	row := func(source, count, dkim, spf, disposition string) string {
		return fmt.Sprintf(`<record><row><source_ip>%s</source_ip><count>%s</count><policy_evaluated><disposition>%s</disposition><dkim>%s</dkim><spf>%s</spf></policy_evaluated></row><identifiers><header_from>example.com</header_from></identifiers><auth_results><dkim><domain>example.com</domain><selector>s1</selector><result>%[4]s</result></dkim><spf><domain>=cmd|x.example</domain><result>%[5]s</result></spf></auth_results></record>`, source, count, disposition, dkim, spf)
	}
	text := `<feedback><report_metadata><org_name>=R&#x202e;&#x9b;31m</org_name><report_id>` + id + `</report_id><date_range><begin>1700006400</begin><end>1700092799</end></date_range></report_metadata><policy_published><domain>example.com</domain><p>reject</p></policy_published>` +
		row("203.0.113.1", "90", "pass", "pass", "none") + row("198.51.100.9", "10", "fail", "fail", "reject") + `</feedback>`
	name := filepath.Join(t.TempDir(), id+".xml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDMARCRead(t *testing.T) {
	code, out, stderr := postern(t, "dmarc", "read", "--dns=false", reportFile(t, "a"), reportFile(t, "a"))
	want := `reports: 1; read again: 1

example.com (p=reject), 2023-11-15 to 2023-11-15
mails: 100; DMARC passes: 90%; quarantined: 0; rejected: 10
reported by =R\u202e\u009b31m (100)

DAY         MAILS  PASS  FAIL  
2023-11-15  100    90%   10    ##################..

SOURCE        MAILS  DKIM  SPF   FAIL  WHO IT PROBABLY IS
203.0.113.1   90     100%  100%  0     -
198.51.100.9  10     0%    0%    10    -
  10: DKIM: fail for example.com, selector s1; SPF: fail for =cmd|x.example
`
	if code != exitYes || out != want || stderr != "" {
		t.Errorf("exit %d, %s, got\n%s\nwant\n%s", code, stderr, out, want)
	}
	if _, out, _ = postern(t, "dmarc", "read", "--dns=false", "--top=1", reportFile(t, "a")); !strings.HasSuffix(out, "\n1 more; --top=0 lists all\n") {
		t.Errorf("--top=1: %s", out)
	}
}

// Who the sources are, from a name server.
func TestDMARCReadAsks(t *testing.T) {
	server := resolvertest.New(t, "$ORIGIN example.com.\n@ TXT \"v=spf1 include:_spf.sender.example -all\"\n_spf.sender.example. TXT \"v=spf1 ip4:203.0.113.0/24\"\n1.113.0.203.in-addr.arpa. PTR out.sender.example.\nout.sender.example. A 203.0.113.1\n")
	store := filepath.Join(t.TempDir(), "reports.db")
	_, _, stderr := postern(t, "dmarc", "read", "--dns=false", "--store", store, reportFile(t, "old"))
	if stderr != store+": 0 reports were added, 0 were there, 1 are older than --keep-days\n" {
		t.Errorf("got %q", stderr)
	}
	args := []string{"--resolver", server.Addr(), "--keep-days=0", "--store", "sqlite:" + store, reportFile(t, "a")}
	_, out, stderr := postern(t, append([]string{"dmarc", "read"}, args...)...)
	if stderr != store+": 1 reports were added, 0 were there\n" {
		t.Errorf("got %q", stderr)
	}
	lines := []string{"203.0.113.1   90     100%  100%  0     out.sender.example; include _spf.sender.example\n", "198.51.100.9  10     0%    0%    10    not in the SPF record of example.com\n"}
	asked := server.Total()
	_, stored, stderr := postern(t, "dmarc", "read", "--store", store)
	for _, line := range lines {
		if !strings.Contains(out, line) || !strings.Contains(stored, line) {
			t.Errorf("%q is missing in\n%s\nor\n%s (%s)", line, out, stored, stderr)
		}
	}
	if server.Total() != asked {
		t.Error("the DNS was asked about what is in the store")
	}
	_, out, _ = postern(t, "dmarc", "read", "--store", store, "--by", "sender", "--csv")
	if !strings.Contains(out, "out.sender.example,true") {
		t.Errorf("by sender: %s", out)
	}
}

// The errors of files name the file themselves.
func TestDMARCReadMissingFile(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "gone")
	code, _, stderr := postern(t, "dmarc", "read", "--dns=false", gone)
	if code != exitNo || stderr != "stat "+gone+": no such file or directory\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// A broken mail of a stranger is counted, and a broken report is a problem.
func TestDMARCReadOddMails(t *testing.T) {
	folder := t.TempDir()
	const mail = "Subject: invoice\nContent-Type: application/zip; name=%q\nContent-Transfer-Encoding: base64\n\nUEsDBAo=\n"
	odd, broken := filepath.Join(folder, "1\x1b"), filepath.Join(folder, "2")
	if err := os.WriteFile(odd, fmt.Appendf(nil, mail, "x.zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := postern(t, "dmarc", "read", "--dns=false", folder, reportFile(t, "a"))
	want := "1 of 2 files and mails have no report\n1 of 2 files and mails could not be read, and do not look like reports; the first is " +
		folder + "/1\\x1b: \"x.zip\": zip: zip: not a valid zip file\n"
	if code != exitYes || stderr != want {
		t.Errorf("exit %d, got\n%s\nwant\n%s", code, stderr, want)
	}
	if err := os.WriteFile(broken, fmt.Appendf(nil, mail, "r.example!example.com!1!2.zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr = postern(t, "dmarc", "read", "--dns=false", folder); code != exitNo || !strings.HasPrefix(stderr, broken+": ") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestDMARCReadForms(t *testing.T) {
	file := reportFile(t, "a")
	_, out, _ := postern(t, "dmarc", "read", "--dns=false", "--json", file)
	var sum reportread.Summary
	if err := json.Unmarshal([]byte(out), &sum); err != nil || sum.Domains[0].Sources[0].Passed != 90 || sum.Domains[0].Rejected != 10 {
		t.Errorf("%v: %s", err, out)
	}
	_, out, _ = postern(t, "dmarc", "read", "--dns=false", "--csv", file)
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) != 3 || rows[1][2] != "203.0.113.1" || rows[1][7] != "90" {
		t.Fatalf("%v: %s", err, out)
	}
	for _, row := range rows {
		for _, cell := range row {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r|") {
				t.Errorf("a spreadsheet would run %q", cell)
			}
		}
	}
	for text, want := range map[string]string{"=1+1": "'=1+1", "-2": "'-2", "@x": "'@x", "+1": "'+1", " =1": "' =1", "\t=1": `\t=1`, "a=1": "a=1", "": ""} {
		if got := cells(text)[0]; got != want {
			t.Errorf("cell %q: %q", text, got)
		}
	}
	if got := cells(int64(-5))[0]; got != "-5" {
		t.Errorf("a number: %q", got)
	}
}

func TestDMARCReadTLS(t *testing.T) {
	name := filepath.Join(t.TempDir(), "tls.json")
	const text = `{"organization-name":"Sender","report-id":"1","date-range":{"start-datetime":"2026-11-25T00:00:00Z","end-datetime":"2026-11-25T23:59:59Z"},"policies":[{"policy":{"policy-type":"sts","policy-domain":"example.com"},"summary":{"total-successful-session-count":97,"total-failure-session-count":3},"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"192.0.2.7","receiving-mx-hostname":"mx.example.com","failed-session-count":3,"failure-reason-code":"\u001b[2J"}]}]}`
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := postern(t, "dmarc", "read", name)
	want := `reports: 1

TLS to the mail hosts of example.com, 2026-11-25 to 2026-11-25
sessions: 100; failed: 3
reported by Sender (100)

DAY         SESSIONS  ENCRYPTED  FAIL  
2026-11-25  100       97%        3     ###################.

FAILED  POLICY  RESULT               OUR HOST        SENDER     WHY
3       sts     certificate-expired  mx.example.com  192.0.2.7  \x1b[2J
`
	if code != exitYes || out != want || stderr != "" {
		t.Errorf("exit %d, %s, got\n%s\nwant\n%s", code, stderr, out, want)
	}
	if _, out, _ = postern(t, "dmarc", "read", "--csv", name); strings.Count(out, "\n") != 3 || !strings.Contains(out, "tls-failure,example.com,192.0.2.7,1,,,,3,0,3,") {
		t.Errorf("CSV: %s", out)
	}
}

func TestDMARCReadRefuses(t *testing.T) {
	good := reportFile(t, "a")
	future := filepath.Join(t.TempDir(), "future.xml")
	text, err := os.ReadFile(good)
	if err == nil {
		err = os.WriteFile(future, bytes.ReplaceAll(text, []byte("<end>17"), []byte("<end>57")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.xml")
	if err := os.WriteFile(broken, []byte("<!DOCTYPE x><feedback/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitFailed, "usage: postern dmarc read"},
		{[]string{"--json", "--csv", good}, exitFailed, "choose one"},
		{[]string{"--by", "x", good}, exitFailed, "write address or sender"},
		{[]string{"--top", "-1", good}, exitFailed, "numbers from 0"},
		{[]string{"--since", "soon", good}, exitFailed, "--since: "},
		{[]string{"--domain", "a b", good}, exitFailed, "--domain a b: "},
		{[]string{"--dns=false", "--store", filepath.Join(t.TempDir(), "future.db"), future}, exitYes, ": 0 reports were added, 0 were there, 1 are dated in the future"},
		{[]string{"--resolver", "nowhere", good}, exitFailed, "--dns=false"},
		{[]string{"--store", "/nowhere/x.db"}, exitFailed, "no such file"},
		{[]string{"--dns=false", "/nowhere/x.xml"}, exitNo, "no such file"},
		{[]string{"--dns=false", broken, good}, exitNo, broken + ": XML: it has a document type declaration"},
	} {
		code, out, stderr := postern(t, append([]string{"dmarc", "read"}, test.args...)...)
		if code != test.code || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit %d, %s", test.args, code, stderr)
		}
		if test.code == exitNo && len(test.args) == 3 && !strings.Contains(out, "203.0.113.1") {
			t.Errorf("%q: what can be read is not printed: %s", test.args, out)
		}
	}
}
