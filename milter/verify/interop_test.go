package verify

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/spf"
)

// These tests compare the golden cases with what Debian ships: python3-spf,
// postfix-policyd-spf-python, python3-dkim and opendkim, which .ci/setup
// installs. The Python ones ask the same zones over the network. Without them
// the tests are skipped, but for continuous integration.

func needs(t *testing.T, paths ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("compares with another program, and the tests run without (-short)")
	}
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
}

const python, modules = "/usr/bin/python3", "/usr/lib/python3/dist-packages/"

// others judges one case for each line of its input, through the DNS server at
// the port that the line names.
const others = `
import io, json, sys, contextlib, dns.resolver, dkim, spf, spf_engine.policyd_spf as policyd
spf.MAX_PER_LOOKUP_TIME = 2
def policyd_spf(case):
    request = "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=%s\nclient_address=%s\nhelo_name=%s\nsender=%s\nrecipient=bob@home.example\n\n" % (
        case["name"], case["ip"], case["helo"], case["sender"])
    out = io.StringIO()
    stdin, argv = sys.stdin, sys.argv
    sys.stdin, sys.argv = io.TextIOWrapper(io.BytesIO(request.encode())), ["policyd-spf", case["conf"]]
    try:
        with contextlib.redirect_stdout(out):
            policyd.main()
    finally:
        sys.stdin, sys.argv = stdin, argv
    return out.getvalue().strip()
for line in sys.stdin.buffer.read().decode().splitlines():
    case = json.loads(line)
    r = dns.resolver.Resolver(configure=False)
    r.nameservers, r.port, r.cache, r.lifetime, r.timeout = ["127.0.0.1"], case["port"], None, 1, 1
    dns.resolver.default_resolver = r
    got = {"name": case["name"], "spf": spf.check2(case["ip"], case["sender"], case["helo"], timeout=1, querytime=5)[0]}
    got["policyd"] = policyd_spf(case)
    message, got["dkim"] = case["message"].encode("latin-1"), []
    n = sum(name.lower() == b"dkim-signature" for name, _ in dkim.DKIM(message).headers)
    for i in range(n):
        try:
            got["dkim"].append("pass" if dkim.DKIM(message).verify(idx=i) else "fail")
        except Exception as e:
            got["dkim"].append("no")
    print(json.dumps(got))
`

// verdict is the result of the other programs for a case.
type verdict struct {
	Name    string   `json:"name"`
	SPF     string   `json:"spf"`
	Policyd string   `json:"policyd"`
	DKIM    []string `json:"dkim"`
}

// isTimed leaves out cases whose verdict depends on the time of the test.
func (g golden) isTimed() bool { return strings.Contains(g.message, " x=") }

// askOthers runs every case past the Python programs.
func askOthers(t *testing.T, cases []golden) []verdict {
	t.Helper()
	needs(t, python, modules+"spf.py", modules+"spf_engine", modules+"dkim", modules+"nacl", modules+"dns")
	conf := filepath.Join(t.TempDir(), "policyd-spf.conf")
	if err := os.WriteFile(conf, []byte("debugLevel = -1\nHELO_reject = Null\nMail_From_reject = Fail\nHeader_Type = SPF\nskip_addresses = 127.0.0.0/8,::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var input bytes.Buffer
	for _, g := range cases {
		server := resolvertest.New(t, g.zone)
		g.spoil(server.Fail)
		_, port, err := net.SplitHostPort(server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		sender := g.envelope.Sender.Key()
		if err := json.NewEncoder(&input).Encode(map[string]any{
			"name": g.name, "ip": g.envelope.Client.String(), "helo": g.envelope.Helo, "sender": sender, "conf": conf,
			"port": json.Number(port), "message": latin1(strings.ReplaceAll(g.message, "\n", "\r\n")),
		}); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(python, "-c", others)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = &input, &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var all []verdict
	for line := range strings.Lines(string(out)) {
		var v verdict
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if len(all) != len(cases) {
		t.Fatalf("%d verdicts for %d cases\n%s", len(all), len(cases), errs.String())
	}
	return all
}

// latin1 gives every octet as the character of its number, for JSON.
func latin1(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// compare asserts that two verdicts differ exactly where it is known.
func compare(t *testing.T, who, name, ours, theirs string, known map[string]string) {
	t.Helper()
	why, differs := known[who+" "+name]
	if agree := ours == theirs; agree == differs {
		t.Errorf("%s %s: ours %q, theirs %q, known difference: %q", who, name, ours, theirs, why)
	}
}

func TestAgainstDebian(t *testing.T) {
	cases := readGolden(t)
	known := differences()
	for i, v := range askOthers(t, cases) {
		g := cases[i]
		zone := resolvertest.NewZone(t, g.zone)
		g.spoil(zone.Fail)
		r := g.run(t, zone)
		compare(t, "pyspf", g.name, string(r.Findings.MailFrom.Status), v.SPF, known)
		refused := ""
		if strings.HasPrefix(v.Policyd, "action=550") {
			refused = "refused"
		}
		ours := map[bool]string{true: "refused"}[r.Findings.MailFrom.Status == spf.Fail]
		compare(t, "policyd-spf", g.name, ours, refused, known)
		if g.isTimed() {
			continue
		}
		var passes, theirs []string
		for _, s := range r.Findings.DKIM.Signatures {
			passes = append(passes, map[bool]string{true: "pass", false: "no"}[s.Status == "pass"])
		}
		for _, s := range v.DKIM {
			theirs = append(theirs, map[bool]string{true: "pass", false: "no"}[s == "pass"])
		}
		compare(t, "dkimpy", g.name, strings.Join(passes, " "), strings.Join(theirs, " "), known)
	}
}

var zoneTXT = regexp.MustCompile(`(?m)^(\S+)\. IN TXT (.*)$`)

// opendkimZone gives the keys of a zone as opendkim's test data.
func (g golden) opendkimZone() string {
	var b strings.Builder
	for _, m := range zoneTXT.FindAllStringSubmatch(g.zone, -1) {
		text := strings.ReplaceAll(strings.Trim(m[2], `"`), `" "`, "")
		b.WriteString(m[1] + " " + text + "\n")
	}
	return b.String()
}

func TestAgainstOpenDKIM(t *testing.T) {
	needs(t, "/usr/sbin/opendkim")
	known := differences()
	for _, g := range readGolden(t) {
		signatures := strings.Count(g.want, "dkim=") - strings.Count(g.want, "dkim=none")
		if signatures != 1 || g.isTimed() || len(g.faults) > 0 || strings.Contains(g.zone, "CNAME") || strings.HasPrefix(g.name, "forged-") {
			continue // its test mode names one signature, and knows TXT records alone
		}
		dir := t.TempDir()
		conf, zone, mail := filepath.Join(dir, "conf"), filepath.Join(dir, "zone"), filepath.Join(dir, "mail")
		for path, text := range map[string]string{conf: "Mode v\nTestDNSData " + zone + "\n", zone: g.opendkimZone(), mail: strings.ReplaceAll(g.message, "\n", "\r\n")} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		// It exits with an error, and often in silence, when it refuses a message.
		out, _ := exec.Command("/usr/sbin/opendkim", "-x", conf, "-t", mail).CombinedOutput()
		ours := map[bool]string{true: "pass", false: "no"}[strings.Contains(g.want, "dkim=pass (") || strings.Contains(g.want, "dkim=pass header")]
		theirs := map[bool]string{true: "pass", false: "no"}[strings.Contains(string(out), "succeeded")]
		compare(t, "opendkim", g.name, ours, theirs, known)
	}
}

// differences are the verdicts of others that are not ours, and why. The
// milter/CONFORMANCE.md explains them.
func differences() map[string]string {
	return map[string]string{
		"dkimpy dkim-capped":              "has no cap on signatures (RFC 6376 section 8.4 leaves it to verifiers)",
		"dkimpy dkim-many-from":           "refuses a second From; here DKIM judges signatures, and the policy for the author judges From (section 8.15)",
		"dkimpy dkim-permerror-from":      "does not insist on a signed From (section 5.4)",
		"dkimpy dkim-permerror-strict":    "does not insist on t=s (section 3.6.1)",
		"dkimpy dkim-policy-5120":         "has no upper bound for RSA keys (RFC 8301 section 3.2 asks for 4096 bits at most)",
		"dkimpy dkim-policy-l-appended":   "passes a mail to which somebody has appended (section 8.2)",
		"opendkim dkim-policy-5120":       "the same as dkimpy",
		"opendkim dkim-policy-l-appended": "the same as dkimpy",
		"opendkim inject-i":               "does not read an equals sign in a quoted local part of i= (section 3.5 would have it encoded)",
		"pyspf refuse-not-local":          "judges loopback clients; policyd-spf, which calls it, leaves them out as we do",
		"pyspf spf-none-loopback":         "the same",
		"pyspf spf-none-loopback6":        "the same",
	}
}

// Every known difference is about a case.
func TestDifferencesNameCases(t *testing.T) {
	var names []string
	for _, g := range readGolden(t) {
		names = append(names, g.name)
	}
	for key := range differences() {
		if _, name, _ := strings.Cut(key, " "); !slices.Contains(names, name) {
			t.Errorf("%s is no case", key)
		}
	}
}
