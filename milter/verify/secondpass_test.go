package verify

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/mark"
)

// passes is a mail on its way through hosts that share a key.
type passes struct {
	t      *testing.T
	o      Options
	header []Field
	body   string
}

const (
	forger = "192.0.2.3" // may not send for reject.example
	owner  = "192.0.2.1" // may
	relay  = "198.51.100.7"
	here   = "127.0.0.1"
)

func newPasses(t *testing.T, from string) *passes {
	return &passes{
		t: t,
		o: Options{
			Resolver: resolvertest.NewZone(t, dmarcZone), Now: goldenNow, Marks: mark.New([]byte("0123456789abcdef")),
			Relays: allowlist.Networks{netip.MustParsePrefix(relay + "/32")},
		},
		header: []Field{{Name: "From", Value: " " + from}, {Name: "Subject", Value: " x"}},
		body:   "Hello\r\n",
	}
}

// pass has the mail judged, and changed as Postfix would.
func (p *passes) pass(client string) Result {
	p.t.Helper()
	sender := mailaddr.Parse("x@reject.example")
	m := New(p.o).Start(p.t.Context(), Envelope{Client: netip.MustParseAddr(client), Helo: "helo.example", Sender: sender, MTA: goldenHost})
	defer m.Close()
	if r := m.Refused(p.t.Context()); r != nil {
		return Result{Refusal: r, Reason: r.Reason}
	}
	if r := m.Header(p.header); r != nil {
		return Result{Refusal: r, Reason: r.Reason}
	}
	_, _ = m.Write([]byte(p.body))
	r := m.Finish(p.t.Context())
	for _, gone := range r.Remove {
		p.remove(gone)
	}
	p.header = slices.Concat(r.Fields, p.header)
	return r
}

func (p *passes) remove(gone Position) {
	n := 0
	for i, f := range p.header {
		if f.Is(gone.Name) {
			if n++; n == gone.Index {
				p.header = slices.Delete(slices.Clone(p.header), i, i+1)
				return
			}
		}
	}
	p.t.Errorf("no field %+v", gone)
}

func (p *passes) count(name string) (n int) {
	for _, f := range p.header {
		if f.Is(name) {
			n++
		}
	}
	return n
}

// want checks what the mail carries: one field of results with this DMARC result,
// whether it is marked, and one mark of ours at most.
func (p *passes) want(what, dmarc string, marked bool) {
	p.t.Helper()
	var results []string
	for _, f := range p.header {
		if f.Is(resultsField) {
			results = append(results, strings.Join(strings.Fields(f.Value), " "))
		}
	}
	if len(results) != 1 || !strings.Contains(results[0], "; dmarc="+dmarc+" ") {
		p.t.Errorf("%s: results %q, want dmarc=%s", what, results, dmarc)
	}
	if n := p.count(QuarantineField); n != map[bool]int{true: 1}[marked] {
		p.t.Errorf("%s: %d marks, want %t", what, n, marked)
	}
	if n := p.count(mark.Field); n > 1 {
		p.t.Errorf("%s: %d sealed marks", what, n)
	}
}

// filter changes the header like a content filter.
func (p *passes) filter() {
	p.header = append([]Field{
		{Name: "Received", Value: " from mx (localhost [127.0.0.1]) by mx (Postfix) with ESMTP id 2; date"},
		{Name: "X-Virus-Scanned", Value: " amavis"},
	}, p.header...)
	for i, f := range p.header {
		if f.Is("Subject") {
			p.header[i].Value = " ***SPAM*** x"
		}
		if f.Is(resultsField) || f.Is(mark.Field) {
			p.header[i].Value = " " + strings.Join(strings.Fields(f.Value), "\r\n  ")
		}
	}
}

func TestSecondPass(t *testing.T) {
	for first, want := range map[string]struct {
		dmarc  string
		marked bool
	}{forger: {"fail", true}, owner: {"pass", false}} {
		for _, second := range []string{here, relay, "::1"} {
			p := newPasses(t, "a@reject.example")
			p.pass(first)
			p.want("first pass", want.dmarc, want.marked)
			for range 3 {
				p.filter()
				r := p.pass(second)
				if r.Reason != record.VerdictKept || r.Kept == nil || len(r.Fields)+len(r.Remove) != 0 {
					t.Errorf("from %s: %s, %+v, fields %v, removed %v", second, r.Reason, r.Kept, r.Fields, r.Remove)
				}
				p.want("second pass", want.dmarc, want.marked)
			}
		}
	}
}

// A bad verdict is kept wherever the mail comes from and however it changed; a good
// one is not.
func TestVerdictAndBody(t *testing.T) {
	for _, second := range []string{here, relay, forger, owner} {
		p := newPasses(t, "a@reject.example")
		p.pass(forger)
		p.filter()
		p.body = "Hello\r\nThis mail was scanned.\r\n"
		p.header = slices.DeleteFunc(p.header, func(f Field) bool { return f.Is(QuarantineField) })
		for range 2 {
			r := p.pass(second)
			if p.count(QuarantineField) != 1 || p.count(mark.Field) != 1 || r.Findings == nil || r.Findings.Disposition.Rule != "marked" {
				t.Errorf("from %s: %s, header %v", second, r.Reason, p.header)
			}
		}
	}
	p := newPasses(t, "a@reject.example")
	p.pass(owner)
	p.body = "Another text\r\n"
	p.pass(here)
	for _, f := range p.header {
		if f.Is(resultsField) && strings.Contains(f.Value, "pass") {
			t.Errorf("a pass for another body: %q", f.Value)
		}
	}
}

// A good verdict proves nothing when a stranger brings it, or for another author.
func TestGoodVerdictDoesNotMove(t *testing.T) {
	for name, change := range map[string]func(p *passes) string{
		"stranger":       func(*passes) string { return forger },
		"another author": func(p *passes) string { p.setFrom(" ceo@reject.example"); return here },
		"a second From": func(p *passes) string {
			p.header = append(p.header, Field{Name: "From", Value: " ceo@reject.example"})
			return here
		},
		"other results": func(p *passes) string {
			p.header[0].Value = strings.Replace(p.header[0].Value, "dkim=none", "dkim=pass header.d=bank.example", 1)
			return here
		},
		"expired": func(p *passes) string {
			p.o.Now = func() time.Time { return goldenNow().Add(mark.Lifetime + time.Minute) }
			return here
		},
		"another key": func(p *passes) string { p.o.Marks = mark.New([]byte("fedcba9876543210")); return here },
		"no key":      func(p *passes) string { p.o.Marks = nil; return here },
	} {
		p := newPasses(t, "a@reject.example")
		p.pass(owner)
		client := change(p)
		if r := p.pass(client); r.Kept != nil {
			t.Errorf("%s: kept", name)
		}
		if n := p.count(resultsField); n != 1 {
			t.Errorf("%s: %d fields of results", name, n)
		}
		for _, f := range p.header {
			if f.Is(resultsField) && (strings.Contains(f.Value, "dmarc=pass") || strings.Contains(f.Value, "dkim=pass")) {
				t.Errorf("%s: %q", name, f.Value)
			}
		}
	}
}

func (p *passes) setFrom(value string) {
	for i, f := range p.header {
		if f.Is("From") {
			p.header[i].Value = value
		}
	}
}

// Mail that was held and released is not held again, and our own mail gets no mark.
func TestHeldOnceAndOwnMail(t *testing.T) {
	p := newPasses(t, "a@reject.example")
	p.o.DMARC.Quarantine = Hold
	if r := p.pass(forger); r.Quarantine == "" {
		t.Fatal("not held")
	}
	p.filter()
	if r := p.pass(here); r.Quarantine != "" || r.Reason != record.VerdictKept || p.count(QuarantineField) != 0 {
		t.Errorf("after its release: %+v", r)
	}
	p = newPasses(t, "a@reject.example")
	if p.pass(here); p.count(mark.Field) != 0 {
		t.Error("mail of this machine is marked as from outside")
	}
}

// Mail of a relay is judged by the client that the relay names.
func TestTrustedRelay(t *testing.T) {
	received := func(client string) Field {
		return Field{Name: "Received", Value: " from helo.example (unknown [" + client + "]) by mx2 (Postfix) with ESMTP id 1; date"}
	}
	forgedResults := Field{Name: resultsField, Value: " " + goldenHost + "; dmarc=pass header.from=reject.example"}
	forgedMark := Field{Name: QuarantineField, Value: " dmarc"}
	tests := []struct {
		name       string
		header     []Field // above From
		spf, dmarc string
		marked     bool
		results    int
	}{
		{"a stranger", []Field{received(forger)}, "fail", "fail", true, 1},
		{"the owner", []Field{received(owner)}, "pass", "pass", false, 1},
		{"no Received", nil, "none", "fail", false, 1},
		{"begun on the relay", []Field{{Name: "Received", Value: " by mx2 (Postfix, from userid 0) id 1; date"}}, "none", "fail", false, 1},
		{"results of the relay", []Field{forgedResults, received(owner)}, "pass", "pass", false, 2},
		{"mark of the relay", []Field{forgedMark, received(owner)}, "pass", "pass", true, 1},
		{"both marked", []Field{forgedMark, received(forger)}, "fail", "fail", true, 1},
		{"results of a stranger", []Field{received(forger), forgedResults}, "fail", "fail", true, 1},
		{"mark of a stranger", []Field{received(owner), forgedMark}, "pass", "pass", false, 1},
	}
	for _, enforcement := range []Enforcement{EnforceQuarantine, EnforceStrict} {
		for _, spfReject := range []bool{false, true} {
			for _, test := range tests {
				p := newPasses(t, "a@reject.example")
				p.o.DMARC.Enforce, p.o.SPFReject, p.o.DMARC.Quarantine = enforcement, spfReject, RejectAll
				p.header = slices.Concat(test.header, p.header)
				r := p.pass(relay)
				what := fmt.Sprintf("%s (%s, spf-reject %t)", test.name, enforcement, spfReject)
				if r.Refusal != nil || r.Findings == nil {
					t.Fatalf("%s: refused: %+v", what, r)
				}
				if string(r.Findings.MailFrom.Status) != test.spf || string(r.Findings.DMARC.Verdict.Status) != test.dmarc {
					t.Errorf("%s: spf=%s dmarc=%s", what, r.Findings.MailFrom.Status, r.Findings.DMARC.Verdict.Status)
				}
				if marked := p.count(QuarantineField); marked != map[bool]int{true: 1}[test.marked] || p.count(resultsField) != test.results {
					t.Errorf("%s: %d marks, %d fields of results", what, marked, p.count(resultsField))
				}
				if p.count(mark.Field) != 1 {
					t.Errorf("%s: no seal: sendmail(1) would sign it on its way out", what)
				}
			}
		}
	}
}

// Trusted forwarders are not refused for SPF, at RCPT or later, by address or name.
func TestSPFRejectSparesForwarders(t *testing.T) {
	for listed, refused := range map[string]bool{"192.0.2.2": false, "mx.away.example": false, "192.0.2.77": true} {
		list, err := allowlist.ReadClients(listFile(t, listed))
		if err != nil {
			t.Fatal(err)
		}
		p := newPasses(t, "a@reject.example")
		p.o.SPFReject, p.o.DMARC.Forwarders = true, list
		if r := p.pass("192.0.2.2"); (r.Refusal != nil) != refused {
			t.Errorf("%s is trusted: refused: %v", listed, r.Refusal)
		}
	}
}

func TestTooManyResults(t *testing.T) {
	for n, refused := range map[int]bool{MaxRemoved: false, MaxRemoved + 1: true} {
		p := newPasses(t, "a@none.example")
		for range n {
			p.header = append(p.header, Field{Name: resultsField, Value: " " + goldenHost + "; dkim=pass"})
		}
		r := p.pass(owner)
		if (r.Refusal != nil) != refused || refused && (r.Refusal.Code != 552 || r.Reason != record.TooManyResults) {
			t.Errorf("%d: %+v", n, r.Refusal)
		}
		if !refused && p.count(resultsField) != 1 {
			t.Errorf("%d fields are left", p.count(resultsField))
		}
	}
	// Results of other servers do not count.
	p := newPasses(t, "a@none.example")
	for range 500 {
		p.header = append(p.header, Field{Name: resultsField, Value: " mx.other.example; dkim=pass"})
	}
	if r := p.pass(owner); r.Refusal != nil || p.count(resultsField) != 501 {
		t.Errorf("%+v", r.Refusal)
	}
}

func listFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A good mark that a stranger puts on another mail does not reach the sign socket
// by way of a relay whose Received field names no client.
func TestReplayedMarkEndsAtARelay(t *testing.T) {
	first := newPasses(t, "a@reject.example")
	first.pass(owner)
	for name, received := range map[string]string{"unreadable": " somehow", "begun there": " by mx2 (Postfix, from userid 0) id 1; date", "none": ""} {
		p := newPasses(t, "b@reject.example")
		p.body = "Forged.\r\n"
		for _, f := range first.header {
			if f.Is(mark.Field) || f.Is(resultsField) {
				p.header = append(p.header, f)
			}
		}
		if received != "" {
			p.header = slices.Insert(p.header, 0, Field{Name: "Received", Value: received})
		}
		p.pass(relay)
		found, _ := p.o.Marks.Find(func(yield func(string, string) bool) {
			for _, f := range p.header {
				if !yield(f.Name, f.Value) {
					return
				}
			}
		}, goldenNow())
		if found == nil || found.Passed() || p.count(mark.Field) != 1 {
			t.Errorf("%s: the mark says %+v, %d fields", name, found, p.count(mark.Field))
		}
	}
}

// A good mark that a stranger brings by way of a relay proves nothing, also on the mail that
// it was made for: the Subject and more may be new. One that the relay made is kept.
func TestReplayedMailByARelay(t *testing.T) {
	received := Field{Name: "Received", Value: " from helo.example (unknown [" + forger + "]) by mx2 (Postfix) with ESMTP id 1; date"}
	for name, brought := range map[string]bool{"in the mail": true, "made by the relay": false} {
		p := newPasses(t, "a@reject.example")
		p.pass(owner)
		p.header[len(p.header)-1].Value = " pay at once"
		if brought {
			p.header = slices.Insert(p.header, 0, received)
		} else {
			p.header = slices.Insert(p.header, p.count(resultsField)+p.count(mark.Field), received)
		}
		p.filter() // of the relay
		if r := p.pass(relay); (r.Kept == nil) != brought {
			t.Errorf("%s: kept %+v, header %q", name, r.Kept, p.header)
		}
		p.want(name, map[bool]string{true: "fail", false: "pass"}[brought], brought)
	}
}

// A relay that removes Received fields passes on what a stranger wrote in our name.
func TestRelayWithoutReceived(t *testing.T) {
	p := newPasses(t, "<ceo@reject.example>")
	p.header = append(p.header,
		Field{Name: resultsField, Value: " " + goldenHost + "; dmarc=pass (p=reject dis=none) header.from=reject.example"},
		Field{Name: QuarantineField, Value: " dmarc"})
	p.pass(relay)
	results := slices.DeleteFunc(slices.Clone(p.header), func(f Field) bool { return !f.Is(resultsField) })
	if len(results) != 1 || strings.Contains(results[0].Value, "dmarc=pass") || p.count(QuarantineField) != 0 {
		t.Errorf("header %q", p.header)
	}
}
