package milterd

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter/verify"
)

// TestDMARCSettings asserts each default, and that each flag arrives.
func TestDMARCSettings(t *testing.T) {
	for _, test := range []struct {
		args []string
		want verify.DMARCOptions
		spf  bool
	}{
		{nil, verify.DMARCOptions{Enforce: verify.EnforceQuarantine, Quarantine: verify.Mark, Method: dmarc.MethodTreeWalk}, false},
		{[]string{"--dmarc-enforce=evidence", "--dmarc-quarantine=hold", "--dmarc-org=psl", "--shadow=dmarc"},
			verify.DMARCOptions{Enforce: verify.EnforceEvidence, Quarantine: verify.Hold, Method: dmarc.MethodPSL, Shadow: true}, false},
		{[]string{"--dmarc-enforce=strict", "--dmarc-quarantine=reject", "--shadow=all"},
			verify.DMARCOptions{Enforce: verify.EnforceStrict, Quarantine: verify.RejectAll, Method: dmarc.MethodTreeWalk, Shadow: true}, true},
		{[]string{"--dmarc-enforce=off", "--shadow=spf"}, verify.DMARCOptions{Enforce: verify.EnforceOff, Quarantine: verify.Mark, Method: dmarc.MethodTreeWalk}, true},
	} {
		_, got, err := open(t, test.args...)
		if err != nil {
			t.Fatal(err)
		}
		if d := got.DMARC; d.Enforce != test.want.Enforce || d.Quarantine != test.want.Quarantine || d.Method != test.want.Method || d.Shadow != test.want.Shadow || got.SPFShadow != test.spf {
			t.Errorf("%q: %+v", test.args, got)
		}
	}
}

// open makes the options of a verifier.
func open(t *testing.T, args ...string) (*needs, verify.Options, error) {
	t.Helper()
	settings, err := configure(append([]string{"--config=", "--dkim-keys=", "--mark-key-file="}, args...), nil)
	if err != nil {
		return nil, verify.Options{}, err
	}
	n := &needs{
		Runtime: service.Runtime{Log: zap.NewNop(), Metrics: metrics.New(metrics.Options{})},
		life:    service.NewLife(), set: settings.set, options: &settings.Options, asks: resolvertest.NewZone(t, ""),
	}
	for _, r := range settings.rooms {
		if err := r.build(n); err != nil {
			return n, n.verify, err
		}
	}
	return n, n.verify, nil
}

// disposal is the part of what open has built.
func (n *needs) disposal(t *testing.T) *dmarcPart {
	t.Helper()
	return partOf[*dmarcPart](t, &state{settings: &settings{Options: *n.options}})
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Files are read and watched; lists are made when they can matter.
func TestDisposalFiles(t *testing.T) {
	allow, sealers, forwarders := file(t, "partner.example 192.0.2.1"), file(t, "sealer.example"), file(t, "192.0.2.0/24")
	n, o, err := open(t, "--dmarc-allow="+allow, "--trusted-arc-sealers="+sealers, "--trusted-forwarders="+forwarders)
	if err != nil {
		t.Fatal(err)
	}
	d := o.DMARC
	if d.Allow == nil || !d.Sealers.Has("sealer.example") || d.Forwarders == nil || d.BlockList != nil || n.disposal(t).held != nil || len(n.life.Files()) != 3 {
		t.Errorf("%+v, files %q", d, n.life.Files())
	}
	key := file(t, "abcdefghijklmnopqrstuvwxy9")
	n, o, err = open(t, "--dmarc-enforce=evidence", "--dmarc-quarantine=hold", "--dqs-key-file="+key)
	if err != nil {
		t.Fatal(err)
	}
	if o.DMARC.BlockList == nil || n.disposal(t).lists == nil || n.disposal(t).held == nil || len(n.life.Files()) != 1 {
		t.Errorf("%+v, files %q", o.DMARC, n.life.Files())
	}
	if n, o, err = open(t, "--dmarc-enforce=off", "--dmarc-quarantine=hold"); err != nil || n.disposal(t).held != nil || o.DMARC.BlockList != nil {
		t.Errorf("%+v, %v", o.DMARC, err)
	}
}

func TestDisposalMistakes(t *testing.T) {
	bad, unfit := file(t, "ok.example\na..b\n"), file(t, "UNFIT")
	for want, args := range map[string][]string{
		"--dmarc-allow: " + bad + ":2: ":         {"--dmarc-allow=" + bad},
		"--trusted-arc-sealers: " + bad + ":2: ": {"--trusted-arc-sealers=" + bad},
		"--trusted-forwarders: " + bad + ":2: ":  {"--trusted-forwarders=" + bad},
		"--trusted-forwarders: open /none":       {"--trusted-forwarders=/none"},
		"--dqs-key-file: " + unfit + ": ":        {"--dmarc-enforce=evidence", "--dqs-key-file=" + unfit},
		"--dnsbl: dbl.spamhaus.org lists":        {"--dnsbl=dbl.spamhaus.org"},
		"--dmarc-enforce: ":                      {"--dmarc-enforce=maybe"},
		"--dmarc-quarantine: ":                   {"--dmarc-quarantine=drop"},
		"--dmarc-org: ":                          {"--dmarc-org=guess"},
		`--shadow: "dkim"`:                       {"--shadow=dkim"},
		"--dnsbl-threshold: 0":                   {"--dnsbl-threshold=0"},
	} {
		if _, _, err := open(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// strict is allowed, and told of.
func TestStrictIsWarnedAbout(t *testing.T) {
	log, logs := observed()
	if _, err := load(log, "--dkim-keys=", "--dmarc-enforce=strict"); err != nil {
		t.Fatal(err)
	}
	if logs.FilterMessageSnippet("RFC 9989 section 7.4").Len() != 1 {
		t.Errorf("warnings %v", logs.All())
	}
}

func TestDMARCMetrics(t *testing.T) {
	m := newDMARCCounters()
	f := &verify.Findings{ARC: arc.Result{Status: arc.Fail}}
	f.DMARC.Verdict = dmarc.Result{Status: dmarc.Fail, PSL: dmarc.Comparison{Differs: true}}
	f.Disposition.Action, f.Disposition.Rule = verify.ActionQuarantine, "reject"
	m.observe(f)
	f.Disposition.Shadow, f.ARC.Status = true, arc.None
	m.observe(f)
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(m.collectors()...)
	want := `# HELP postern_arc_results_total Mails with ARC seals, by the state of the chain.
# TYPE postern_arc_results_total counter
postern_arc_results_total{result="fail"} 1
# HELP postern_dmarc_psl_differences_total Mails that the Public Suffix List of RFC 7489 judges in another way than the tree walk.
# TYPE postern_dmarc_psl_differences_total counter
postern_dmarc_psl_differences_total 2
# HELP postern_dmarc_results_total Mails by DMARC result, what was done, and the rule that said so.
# TYPE postern_dmarc_results_total counter
postern_dmarc_results_total{disposition="none",result="fail",rule="reject"} 1
postern_dmarc_results_total{disposition="quarantine",result="fail",rule="reject"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

const showqAnswer = "protocol\x00mail_queue_list_protocol\x00\x00" +
	"queue_name\x00hold\x00queue_id\x006DE149EF290\x00time\x001795237212\x00size\x00351\x00sender\x00queue_name\x00recipient\x00x@home.example\x00reason\x00\x00\x00" +
	"queue_name\x00deferred\x00queue_id\x006F0A39EF291\x00sender\x00hold\x00\x00" +
	"queue_name\x00hold\x00queue_id\x006F0A39EF292\x00sender\x00\x00\x00\x00"

func TestCountHeld(t *testing.T) {
	for text, want := range map[string]int64{
		showqAnswer: 2,
		"protocol\x00mail_queue_list_protocol\x00\x00\x00": 0,
	} {
		if n, err := countHeld(strings.NewReader(text)); n != want || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "cut": showqAnswer[:100], "a name without its value": "queue_name\x00", "long": "a\x00" + strings.Repeat("x", maxShowqText+1) + "\x00\x00\x00",
	} {
		if n, err := countHeld(strings.NewReader(text)); err == nil {
			t.Errorf("%s: %d", name, n)
		}
	}
}

func FuzzCountHeld(f *testing.F) {
	f.Add([]byte(showqAnswer))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if n, err := countHeld(bytes.NewReader(data)); err == nil && n > int64(bytes.Count(data, []byte("hold"))) {
			t.Errorf("%d", n)
		}
	})
}

// The gauge shows what lies in the queue, and nothing while that cannot be told;
// the log says so once.
func TestHoldGauge(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o700); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	q := newHoldQueue(dir, zap.New(core))
	c := newCurrent()
	c.Apply(&state{settings: &settings{Options: Options{rooms: []room{{part: &dmarcPart{held: q}}}}}}, service.NewLife())
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(dmarcMetrics(c)...)
	value := func() string {
		t.Helper()
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if len(families) == 0 {
			return "absent"
		}
		return families[0].String()
	}
	q.look(t.Context())
	q.look(t.Context())
	if v := value(); v != "absent" || logs.Len() != 1 || !strings.Contains(logs.All()[0].ContextMap()["fix"].(string), "postdrop") {
		t.Errorf("%s, %v", v, logs.All())
	}
	server, err := net.Listen("unix", filepath.Join(dir, "public/showq"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(conn, showqAnswer)
	}()
	q.look(t.Context())
	if v := value(); !strings.Contains(v, "value:2") || logs.Len() != 2 {
		t.Errorf("%s, %v", v, logs.All())
	}
}
