package milterd

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/milter/verify"
)

// found are the findings of a mail that fails.
func found() *verify.Findings {
	f := &verify.Findings{}
	f.Envelope = verify.Envelope{Client: netip.MustParseAddr("::ffff:192.0.2.1"), Sender: mailaddr.Parse("Secret+tag@List.Example")}
	f.MailFrom.Status, f.MailFrom.Domain = spf.Pass, "list.example"
	f.DKIM.Signatures = []dkim.Signature{{Status: dkim.Fail, Domain: "away.example", Selector: "s1"}, {Status: dkim.PermError, Domain: "no domain <", Selector: "x"}}
	f.DMARC.Verdict = dmarc.Result{
		Domain: "sub.away.example", Status: dmarc.Fail, Policy: dmarc.PolicyReject, Published: dmarc.PolicyReject, PolicyDomain: "away.example",
		Record: &dmarc.Record{P: dmarc.PolicyReject, SP: dmarc.PolicyQuarantine, StrictSPF: true, Test: true, FO: "1"},
	}
	f.Disposition = verify.Disposition{Action: verify.ActionQuarantine, Rule: "reject_list", Override: verify.OverrideMailingList, How: verify.Mark}
	return f
}

// TestReported shows what is counted of a mail, and that it holds no local part.
func TestReported(t *testing.T) {
	domain, p, r, ok := reported(found(), dmarc.MethodTreeWalk)
	if !ok || domain != "away.example" || p != (dmarcreport.Policy{P: "reject", SP: "quarantine", ADKIM: "r", ASPF: "s", FO: "1", Testing: true, Method: "treewalk"}) {
		t.Error(ok, domain, p)
	}
	if r.Source != "192.0.2.1" || r.Disposition != "quarantine" || r.HeaderFrom != "sub.away.example" || r.Envelope != "list.example" || r.SPFDomain != "list.example" || r.SPFResult != "pass" || r.DKIM || r.SPF || r.Report {
		t.Errorf("%+v", r)
	}
	if len(r.Signatures) != 1 || r.Signatures[0] != (dmarcreport.Signature{Domain: "away.example", Selector: "s1", Result: "fail"}) {
		t.Error(r.Signatures)
	}
	if len(r.Reasons) != 1 || r.Reasons[0].Type != "mailing_list" {
		t.Error(r.Reasons)
	}
}

// An address of the link has no zone in a report: the schema has none.
func TestReportedZone(t *testing.T) {
	f := found()
	f.Envelope.Client = netip.MustParseAddr("fe80::1%eth0")
	if _, _, r, _ := reported(f, dmarc.MethodTreeWalk); r.Source != "fe80::1" {
		t.Errorf("source %q", r.Source)
	}
}

// TestReportedReasons shows that whatever is less than the policy has a reason.
func TestReportedReasons(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*verify.Findings)
		want   string
	}{
		"as published":  {func(f *verify.Findings) { f.Disposition.Action = verify.ActionReject }, ""},
		"shadow":        {func(f *verify.Findings) { f.Disposition.Shadow = true }, "local_policy"},
		"no override":   {func(f *verify.Findings) { f.Disposition.Override = "" }, "local_policy"},
		"DNS":           {func(f *verify.Findings) { f.DMARC.Verdict.Status = dmarc.TempError }, "other"},
		"DMARC passed":  {func(f *verify.Findings) { f.DMARC.Verdict.Status = dmarc.Pass }, ""},
		"trusted":       {func(f *verify.Findings) { f.Disposition.Override = verify.OverrideTrustedForwarder }, "trusted_forwarder"},
		"tested policy": {func(f *verify.Findings) { f.Disposition.Override = verify.OverridePolicyTestMode }, "policy_test_mode"},
	} {
		f := found()
		test.change(f)
		_, _, r, _ := reported(f, dmarc.MethodTreeWalk)
		got := ""
		if len(r.Reasons) > 0 {
			got = r.Reasons[0].Type
		}
		if got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestReportedRefusal shows that a mail is reported as refused that another rule than
// DMARC's refuses.
func TestReportedRefusal(t *testing.T) {
	f := found()
	f.Refused = true
	_, _, r, _ := reported(f, dmarc.MethodTreeWalk)
	if r.Disposition != "reject" || len(r.Reasons) != 1 || r.Reasons[0].Type != "local_policy" {
		t.Errorf("%+v", r)
	}
}

// TestNotReported shows which mails are not counted, and which count as reports.
func TestNotReported(t *testing.T) {
	for name, change := range map[string]func(*verify.Findings){
		"no record":    func(f *verify.Findings) { f.DMARC.Verdict.Record = nil },
		"logged in":    func(f *verify.Findings) { f.Envelope.Authenticated = true },
		"this machine": func(f *verify.Findings) { f.Envelope.Client = netip.MustParseAddr("::1") },
		"no client":    func(f *verify.Findings) { f.Envelope.Client = netip.Addr{} },
	} {
		f := found()
		change(f)
		if _, _, _, ok := reported(f, dmarc.MethodTreeWalk); ok {
			t.Error(name, "is counted")
		}
	}
	f := found()
	f.Evidence.Traits.Report = true
	if _, _, r, _ := reported(f, dmarc.MethodTreeWalk); r.Report {
		t.Error("a forged report is a reason for none")
	}
	f.DMARC.Verdict.Status = dmarc.Pass
	if _, _, r, _ := reported(f, dmarc.MethodTreeWalk); !r.Report {
		t.Error("a report is not seen")
	}
}

// TestReportStore shows that mail is counted, over a reload too.
func TestReportStore(t *testing.T) {
	zone := resolvertest.New(t, "_dmarc.away.example. IN TXT \"v=DMARC1; p=quarantine; rua=mailto:a@away.example\"\n")
	args := []string{"--resolver=" + zone.Addr(), "--report-store=sqlite:" + filepath.Join(t.TempDir(), "reports.db")}
	d, _, _ := start(t, args...)
	_ = sendOver(t, d, "--listen-verify", "From: <a@away.example>\r\n")
	d.reload(t, append(args, "--dmarc-enforce=off")...)
	_ = sendOver(t, d, "--listen-verify", "From: <a@away.example>\r\nSubject: Report Domain: x.example\r\n")
	_ = sendOver(t, d, "--listen-verify", "From: <a@none.example>\r\n")
	c := partOf[*reportPart](t, d.now()).counts
	if err := c.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := c.store.Days(t.Context())
	if err != nil || len(days) == 0 {
		t.Fatal(days, err)
	}
	var all []string
	var sum int64
	for _, day := range days { // midnight may have come
		list, err := c.store.Domains(t.Context(), day)
		if err != nil {
			t.Fatal(err)
		}
		for _, domain := range list {
			all = append(all, domain.Name)
			sum += domain.Plain
		}
	}
	if sum != 2 || slices.ContainsFunc(all, func(name string) bool { return name != "away.example" }) {
		t.Error(all, sum)
	}
}

// storeUp returns the gauge of the store.
func storeUp(t *testing.T, d *running) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(reportMetrics(d.current)...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "postern_dmarc_report_store_up" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("there is no gauge")
	return 0
}

// A Redis that is full is noticed before the first row.
func TestReportStoreFull(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	server.Command("config", "set", "maxmemory", "1")
	d, _, _ := start(t, "--report-store=redis://"+server.Addr)
	for t.Context().Err() == nil && storeUp(t, d) != 0 {
		runtime.Gosched()
	}
}

// TestReportStoreUp shows that the gauge is 0 while the file cannot be written.
func TestReportStoreUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, _, _ := start(t, "--report-store=sqlite:"+filepath.Join(dir, "reports.db"))
	up := func() float64 { t.Helper(); return storeUp(t, d) }
	flush := partOf[*reportPart](t, d.now()).counts.Flush
	if err := flush(t.Context()); err != nil || up() != 1 {
		t.Error(up(), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := flush(t.Context()); err == nil || up() != 0 {
		t.Error(up(), err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := flush(t.Context()); err != nil || up() != 1 {
		t.Error(up(), err)
	}
}

func TestReportMistakes(t *testing.T) {
	for _, args := range [][]string{
		{"--report-store=reports.db"},
		{"--report-store=sqlite:reports.db"},
		{"--report-store=sqlite:/no/such/folder/reports.db"},
		{"--report-store=redis://user:password@127.0.0.1"},
		{"--report-store=sqlite:/tmp/x.db", "--report-password-file=/x"},
		{"--report-store=redis://127.0.0.1", "--report-password-file=/no/such/file"},
	} {
		if _, _, err := open(t, args...); err == nil || !strings.Contains(err.Error(), "report-") {
			t.Errorf("%q: %v", args, err)
		}
	}
}
