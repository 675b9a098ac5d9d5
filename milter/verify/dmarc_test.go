package verify

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// dmarcZone has domains of each policy. 192.0.2.1 is their own server,
// 192.0.2.2 one with a clean name, 192.0.2.3 one without any.
const dmarcZone = `reject.example. TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.reject.example. TXT "v=DMARC1; p=reject; sp=quarantine"
quarantine.example. TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.quarantine.example. TXT "v=DMARC1; p=quarantine"
_dmarc.none.example. TXT "v=DMARC1; p=none"
_dmarc.test.example. TXT "v=DMARC1; p=reject; t=y"
_dmarc.broken.example. TXT "v=DMARC1; p=eject"
mx.reject.example. A 192.0.2.1
1.2.0.192.in-addr.arpa. PTR mx.reject.example.
mx.away.example. A 192.0.2.2
2.2.0.192.in-addr.arpa. PTR mx.away.example.
4.2.0.192.in-addr.arpa. PTR elsewhere.example.
elsewhere.example. A 192.0.2.44
`

// judged is the outcome of a message in the words of these tests.
type judged struct {
	dmarc   string // the result in our field, with its comment
	action  Action
	rule    string
	refused string
	marked  bool
	held    string
	reason  record.Reason
}

// dmarcCase is one message; a zero field has a default.
type dmarcCase struct {
	name    string
	client  string // 192.0.2.2
	helo    string // mx.away.example
	sender  string // x@away.example
	header  string // what is beside "From: a@<domain>"
	from    string
	login   bool
	options func(o *DMARCOptions)
	want    judged
}

func (c dmarcCase) result(t *testing.T, r Resolver) Result {
	t.Helper()
	e := Envelope{Client: netip.MustParseAddr("192.0.2.2"), Helo: "mx.away.example", Sender: mailaddr.Parse("x@away.example"), MTA: goldenHost, Authenticated: c.login}
	if c.client != "" {
		e.Client = netip.MustParseAddr(c.client)
	}
	if c.helo != "" {
		e.Helo = c.helo
	}
	if c.sender != "" {
		e.Sender = mailaddr.Parse(c.sender)
	}
	o := Options{Resolver: r, Now: goldenNow}
	if c.options != nil {
		c.options(&o.DMARC)
	}
	fields, _ := readMessage(t, c.header+"From: "+c.from+"\n\n")
	m := New(o).Start(t.Context(), e)
	defer m.Close()
	m.Header(fields)
	return m.Finish(t.Context())
}

func judge(r Result) judged {
	ours := foldsIn.ReplaceAllString(r.Fields[0].Value, " ")
	_, text, _ := strings.Cut(ours, "; dmarc=")
	j := judged{dmarc: text, action: r.Findings.Disposition.Done(), rule: r.Findings.Disposition.Rule, held: r.Quarantine, reason: r.Reason}
	if r.Refusal != nil {
		j.refused = r.Refusal.Status + " " + r.Refusal.Text
	}
	for _, f := range r.Fields {
		j.marked = j.marked || f.Name == QuarantineField && f.Value == " dmarc"
	}
	return j
}

func enforce(e Enforcement) func(*DMARCOptions) {
	return func(o *DMARCOptions) { o.Enforce = e }
}

func TestDMARC(t *testing.T) {
	const (
		rejectDMARC = "fail (p=reject sp=quarantine dis=quarantine) header.from=reject.example policy.dmarc=reject"
		refusedText = "5.7.1 Email rejected per DMARC policy for reject.example"
	)
	list := "List-Id: <l.away.example>\n"
	refused := judged{"fail (p=reject sp=quarantine dis=reject) header.from=reject.example policy.dmarc=reject", ActionReject, "", refusedText, false, "", record.DMARCRejected}
	refusedBy := func(rule string) judged { j := refused; j.rule = rule; return j }
	marked := func(rule string) judged {
		return judged{rejectDMARC, ActionQuarantine, rule, "", true, "", record.DMARCQuarantined}
	}
	untouched := func(rule string) judged {
		return judged{"fail (p=reject sp=quarantine dis=none) header.from=reject.example policy.dmarc=reject", ActionNone, rule, "", false, "", record.Verified}
	}
	cases := []dmarcCase{
		{name: "SPF aligned", client: "192.0.2.1", helo: "mx.reject.example", sender: "x@reject.example", from: "a@reject.example",
			want: judged{"pass (p=reject sp=quarantine dis=none) header.from=reject.example policy.dmarc=reject", ActionPass, "pass", "", false, "", record.Verified}},
		{name: "null sender, HELO aligned", client: "192.0.2.1", helo: "reject.example", sender: "<>", from: "a@reject.example",
			want: judged{"pass (p=reject sp=quarantine dis=none) header.from=reject.example policy.dmarc=reject", ActionPass, "pass", "", false, "", record.Verified}},
		{name: "HELO passes beside a MAIL FROM of somebody else", client: "192.0.2.1", helo: "reject.example", from: "a@reject.example", want: marked("reject")},
		{name: "p=reject", from: "a@reject.example", want: marked("reject")},
		{name: "p=reject, off", from: "a@reject.example", options: enforce(EnforceOff), want: untouched("reject")},
		{name: "p=reject, strict", from: "a@reject.example", options: enforce(EnforceStrict), want: refusedBy("reject")},
		{name: "p=reject, evidence but none", from: "a@reject.example", options: enforce(EnforceEvidence), want: marked("reject")},
		{name: "one signal", client: "192.0.2.4", helo: "[192.0.2.4]", from: "a@reject.example", options: enforce(EnforceEvidence), want: marked("reject")},
		{name: "two signals", client: "192.0.2.3", from: "a@reject.example", options: enforce(EnforceEvidence), want: refusedBy("reject_evidence")},
		{name: "two signals, quarantine", client: "192.0.2.3", from: "a@reject.example", want: marked("reject_evidence")},
		{name: "two signals and a list", client: "192.0.2.3", header: list, from: "a@reject.example", options: enforce(EnforceEvidence), want: marked("reject_list")},
		{name: "two signals and a forwarder", client: "192.0.2.3", header: "Resent-From: b@away.example\n", from: "a@reject.example", options: enforce(EnforceEvidence), want: marked("reject_forwarded")},
		{name: "our own domain and no reverse name", client: "192.0.2.3", helo: "[192.0.2.3]", from: "a@reject.example",
			options: func(o *DMARCOptions) {
				o.Enforce, o.OurDomain = EnforceEvidence, func(d string) bool { return d == "reject.example" }
			}, want: refusedBy("reject_evidence")},
		{name: "listed and a bad HELO", helo: "nobody.example", from: "a@reject.example",
			options: func(o *DMARCOptions) { o.Enforce, o.BlockList = EnforceEvidence, listing{} }, want: refusedBy("reject_evidence")},
		{name: "held", from: "a@reject.example", options: func(o *DMARCOptions) { o.Quarantine = Hold },
			want: judged{rejectDMARC, ActionQuarantine, "reject", "", false, "DMARC policy of reject.example", record.DMARCQuarantined}},
		{name: "quarantine means reject", from: "a@quarantine.example", options: func(o *DMARCOptions) { o.Quarantine = RejectAll },
			want: judged{"fail (p=quarantine dis=reject) header.from=quarantine.example policy.dmarc=quarantine", ActionReject, "policy_quarantine",
				"5.7.1 Email rejected per DMARC policy for quarantine.example", false, "", record.DMARCRejected}},
		{name: "quarantine means reject, but a list", header: list, from: "a@quarantine.example", options: func(o *DMARCOptions) { o.Quarantine = RejectAll },
			want: judged{"fail (p=quarantine dis=quarantine) header.from=quarantine.example policy.dmarc=quarantine", ActionQuarantine, "policy_quarantine", "", true, "", record.DMARCQuarantined}},
		{name: "shadow", from: "a@reject.example", options: func(o *DMARCOptions) { o.Enforce, o.Shadow = EnforceStrict, true }, want: untouched("reject")},
		{name: "subdomain, sp", from: "a@sub.reject.example", want: judged{"fail (p=reject sp=quarantine dis=quarantine) header.from=sub.reject.example policy.dmarc=quarantine",
			ActionQuarantine, "policy_quarantine", "", true, "", record.DMARCQuarantined}},
		{name: "p=none", from: "a@none.example", want: judged{"fail (p=none dis=none) header.from=none.example policy.dmarc=\"none\"", ActionNone, "policy_none", "", false, "", record.Verified}},
		{name: "t=y", from: "a@test.example", options: enforce(EnforceStrict), want: judged{"fail (p=reject t=y dis=quarantine) header.from=test.example policy.dmarc=quarantine",
			ActionQuarantine, "policy_quarantine", "", true, "", record.DMARCQuarantined}},
		{name: "broken record", from: "a@broken.example", want: judged{"permerror (bad_record dis=none) header.from=broken.example", ActionNone, "no_policy", "", false, "", record.Verified}},
		{name: "no record", from: "a@away.example", want: judged{"none header.from=away.example", ActionNone, "no_policy", "", false, "", record.Verified}},
		{name: "DNS is down", from: "a@down.example", options: enforce(EnforceStrict), want: judged{"temperror (DNS lookup failed) header.from=down.example", ActionNone, "temperror", "", false, "", record.VerifyUnsure}},
		{name: "the strictest of two", from: "a@none.example, b@reject.example", want: marked("reject")},
		{name: "no From that can be judged", from: "a@b..c", want: judged{"permerror (from_unusable dis=quarantine)", ActionQuarantine, "from_unusable", "", true, "", record.DMARCQuarantined}},
		{name: "no From that can be judged, refused", from: "a@b..c", options: func(o *DMARCOptions) { o.Quarantine = RejectAll },
			want: judged{"permerror (from_unusable dis=reject)", ActionReject, "from_unusable", "5.7.1 Email rejected: its author (From) has an address without a valid domain", false, "", record.DMARCRejected}},
		{name: "authenticated", from: "a@reject.example", login: true, options: enforce(EnforceStrict), want: untouched("authenticated")},
		{name: "from this machine", client: "127.0.0.1", from: "a@reject.example", options: enforce(EnforceStrict), want: untouched("local_allow")},
		{name: "trusted forwarder", from: "a@reject.example", options: lists(t, enforce(EnforceStrict), "192.0.2.0/24", "", ""), want: untouched("trusted_forwarder")},
		{name: "trusted forwarder by its confirmed name", from: "a@reject.example", options: lists(t, enforce(EnforceStrict), "away.example", "", ""), want: untouched("trusted_forwarder")},
		{name: "a name that is not confirmed", client: "192.0.2.4", from: "a@reject.example", options: lists(t, enforce(EnforceQuarantine), "elsewhere.example", "", ""), want: marked("reject_evidence")},
		{name: "allowed", from: "a@reject.example", options: lists(t, enforce(EnforceStrict), "", "reject.example 192.0.2.2", ""), want: untouched("local_allow")},
		{name: "allowed for others", from: "a@reject.example", options: lists(t, enforce(EnforceQuarantine), "", "reject.example 192.0.2.7", ""), want: marked("reject")},
		{name: "one of two is allowed", from: "a@reject.example, b@none.example", options: lists(t, enforce(EnforceQuarantine), "", "reject.example", ""), want: marked("reject")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			zone := resolvertest.NewZone(t, dmarcZone)
			zone.Fail("_dmarc.down.example", resolvertest.ServFail)
			r := c.result(t, zone)
			checkFields(t, r)
			if got := judge(r); got != c.want {
				t.Errorf("got\n%+v\nwant\n%+v", got, c.want)
			}
		})
	}
}

// lists adds files of trusted forwarders, allowed authors and sealers.
func lists(t *testing.T, more func(*DMARCOptions), forwarders, allow, sealers string) func(*DMARCOptions) {
	t.Helper()
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	clients, err1 := allowlist.ReadClients(write("forwarders", forwarders))
	authors, err2 := allowlist.ReadAuthors(write("allow", allow))
	domains, err3 := allowlist.ReadDomains(write("sealers", sealers))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return func(o *DMARCOptions) {
		more(o)
		o.Forwarders, o.Allow, o.Sealers = clients, authors, domains
	}
}

// A trusted sealer vouches for the one author that it has seen, and for no From field that
// may have been added since.
func TestVouching(t *testing.T) {
	var o DMARCOptions
	lists(t, func(*DMARCOptions) {}, "", "", "lists.example")(&o)
	saw := arc.MethodResult{Method: "dmarc", Value: "pass", Props: map[string]string{"header.from": "reject.example"}}
	chain := &arc.Result{Status: arc.Pass, Sets: []arc.Set{{Instance: 1, Sealer: "lists.example", Results: []arc.MethodResult{saw}}}}
	for name, test := range map[string]struct {
		fields  int
		domains []string
		want    string
	}{
		"its author":           {1, []string{"reject.example"}, "lists.example"},
		"another author":       {1, []string{"away.example"}, ""},
		"both":                 {1, []string{"reject.example", "away.example"}, ""},
		"another From field":   {2, []string{"reject.example"}, ""},
		"none that has failed": {1, nil, ""},
	} {
		report := &dmarc.Report{Author: author.Author{Fields: test.fields}}
		for _, domain := range test.domains {
			report.Results = append(report.Results, dmarc.Result{Domain: domain, Status: dmarc.Fail})
		}
		if got := vouching(&o, chain, report); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// listing is a list that has everybody on it.
type listing struct{}

func (listing) Check(context.Context, dnsbl.Query) (dnsbl.Result, error) {
	return dnsbl.Result{Outcome: dnsbl.Listed, Hits: []dnsbl.Hit{{Zone: "zen.example", Weight: 1, Counted: true}}}, nil
}

// deadList always fails.
type deadList struct{}

func (deadList) Check(context.Context, dnsbl.Query) (dnsbl.Result, error) {
	return dnsbl.Result{Outcome: dnsbl.Undecided}, errors.New("list is down")
}

// panickingList has a defect.
type panickingList struct{}

func (panickingList) Check(context.Context, dnsbl.Query) (dnsbl.Result, error) { panic("list") }

// An error of DNS is not evidence, and is recorded.
func TestUnknownSignals(t *testing.T) {
	for name, list := range map[string]BlockList{"down": deadList{}, "defect": panickingList{}} {
		t.Run(name, func(t *testing.T) {
			zone := resolvertest.NewZone(t, dmarcZone)
			zone.Fail("helo.down.example", resolvertest.ServFail)
			c := dmarcCase{client: "192.0.2.3", helo: "helo.down.example", from: "a@reject.example", options: func(o *DMARCOptions) { o.Enforce, o.BlockList = EnforceEvidence, list }}
			r := c.result(t, zone)
			e := r.Findings.Evidence
			if len(e.Unknown) != 2 || len(e.Signals) != 1 || e.Signals[0].Kind != SignalReverseName || r.Refusal != nil {
				t.Errorf("evidence %+v, refusal %+v", e, r.Refusal)
			}
			step := r.Steps[len(r.Steps)-1]
			if step.Check != "evidence" || step.Verdict != evidenceNone || step.Err == nil || !strings.Contains(step.Detail, "reverse_name") {
				t.Errorf("step %+v", step)
			}
		})
	}
}

// Mail that passes, or fails under less than reject, costs no question for
// evidence.
func TestEvidenceIsAskedWhenItMatters(t *testing.T) {
	for _, from := range []string{"a@none.example", "a@quarantine.example", "a@away.example"} {
		zone := resolvertest.NewZone(t, dmarcZone)
		c := dmarcCase{client: "192.0.2.3", from: from, options: func(o *DMARCOptions) { o.BlockList = panickingList{} }}
		if e := c.result(t, zone).Findings.Evidence; len(e.Signals)+len(e.Unknown) != 0 {
			t.Errorf("%s: %+v", from, e)
		}
	}
}

// The record has the rule, the alignment of each identifier, the walk and the
// signals; in the shadow, what would have been done.
func TestDMARCSteps(t *testing.T) {
	zone := resolvertest.NewZone(t, dmarcZone)
	c := dmarcCase{client: "192.0.2.3", helo: "x.example", sender: "x@reject.example", header: "List-Post: <mailto:l@away.example>\n", from: "a@sub.reject.example",
		options: func(o *DMARCOptions) { o.Shadow = true }}
	steps := c.result(t, zone).Steps
	i := slices.IndexFunc(steps, func(s record.Step) bool { return s.Check == "dmarc" })
	want := "rule policy_quarantine; not_aligned; policy quarantine of reject.example; walk sub.reject.example > reject.example* > example: reject.example"
	if s := steps[i]; s.Verdict != "fail" || s.Mode != "shadow" || s.Reason != record.DMARCQuarantined || s.Detail != want {
		t.Errorf("step %+v", s)
	}
	c.from = "a@reject.example"
	r := c.result(t, zone)
	last := r.Steps[len(r.Steps)-1]
	want = "reverse_name: the client has no reverse name; helo: HELO x.example does not lead to the client; list: List-Post"
	if last.Check != "evidence" || last.Verdict != evidenceEnough || last.Detail != want || !r.Shadowed {
		t.Errorf("step %+v, shadowed %v", last, r.Shadowed)
	}
}

// A slow sender cannot use up the time: the questions at the end of the body have
// time of their own.
func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &policyDNS{slowDNS: &slowDNS{delay: time.Second, err: errAbsent}, texts: map[string]string{
			"_dmarc.reject.example.": "v=DMARC1; p=reject",
			"evil.example.":          "v=spf1 +all",
		}}
		e := envelope()
		e.Sender = mailaddr.Parse("x@evil.example")
		m := New(Options{Resolver: dns, Deadline: 12 * time.Second}).Start(t.Context(), e)
		defer m.Close()
		m.Header([]Field{{Name: "From", Value: " a@reject.example"}})
		for range 60 {
			time.Sleep(time.Second)
			m.Write([]byte("x\r\n"))
		}
		r := m.Finish(t.Context())
		if v := r.Findings.DMARC.Verdict; v.Status != dmarc.Fail || r.Reason != record.DMARCQuarantined {
			t.Errorf("%s %s %v, reason %s", v.Status, v.Reason, v.Err, r.Reason)
		}
	})
}

// policyDNS has a few records, and takes its time.
type policyDNS struct {
	*slowDNS
	texts map[string]string
}

func (d *policyDNS) LookupTXT(ctx context.Context, name string) ([]string, error) {
	if err := d.wait(ctx); !errors.Is(err, errAbsent) {
		return nil, err
	}
	if text := d.texts[strings.TrimSuffix(name, ".")+"."]; text != "" {
		return []string{text}, nil
	}
	return nil, errAbsent
}

// Marks that come from outside are removed, whatever they say.
func TestMarksFromOutside(t *testing.T) {
	c := dmarcCase{header: "X-Postern-Quarantine: dmarc\nx-postern-quarantine: no\n", from: "a@none.example"}
	r := c.result(t, resolvertest.NewZone(t, dmarcZone))
	if want := []Position{{QuarantineField, 2}, {QuarantineField, 1}}; !slices.Equal(r.Remove, want) || judge(r).marked {
		t.Errorf("removes %v, fields %v", r.Remove, r.Fields)
	}
}

// Under RFC 7489, pct= takes mail out of the policy by the number drawn for it.
func TestSample(t *testing.T) {
	zone := resolvertest.NewZone(t, `_dmarc.half.example. TXT "v=DMARC1; p=quarantine; pct=50"`)
	for sample, want := range map[int]Action{49: ActionQuarantine, 50: ActionNone} {
		c := dmarcCase{from: "a@half.example", options: func(o *DMARCOptions) { o.Method, o.Sample = dmarc.MethodPSL, func() int { return sample } }}
		if got := c.result(t, zone).Findings.Disposition.Action; got != want {
			t.Errorf("%d: %s", sample, got)
		}
	}
}

// SPF never refuses clients that have logged in, and refuses nothing in shadow mode.
func TestSPFShadow(t *testing.T) {
	zone := resolvertest.NewZone(t, failZone)
	for _, c := range []struct {
		shadow, login     bool
		refused, shadowed bool
	}{{false, false, true, false}, {true, false, false, true}, {false, true, false, false}, {true, true, false, false}} {
		e := envelope()
		e.Authenticated = c.login
		m := New(Options{Resolver: zone, SPFReject: true, SPFShadow: c.shadow, Deadline: time.Minute}).Start(t.Context(), e)
		early := m.Refused(t.Context()) != nil
		m.Header(signedFields())
		r := m.Finish(t.Context())
		m.Close()
		if early != c.refused || (r.Refusal != nil) != c.refused || r.Shadowed != c.shadowed {
			t.Errorf("%+v: early %v, refusal %v, shadowed %v", c, early, r.Refusal, r.Shadowed)
		}
		if s := r.Steps[0]; (s.Mode == record.ModeShadow && s.Reason == record.SPFFailed) != c.shadowed {
			t.Errorf("%+v: step %+v", c, s)
		}
	}
}
