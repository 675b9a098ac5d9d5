package milterd

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// defaultEvidenceList is asked with --dmarc-enforce evidence. Codes outside the filter
// are errors, not listings.
const defaultEvidenceList = "zen.spamhaus.org=127.0.0.[2..11;30]*1"

const maxEvidenceThreshold = 100_000

// dmarcPart is the part that acts on the verdict of DMARC.
type dmarcPart struct {
	DMARCEnforce      string
	DMARCQuarantine   string
	DMARCOrg          string
	DMARCAllow        string
	TrustedARCSealers string
	TrustedForwarders string
	EvidenceLists     []string
	EvidenceThreshold int
	EvidenceSelfTest  []string
	DQSKeyFile        string

	evidence  []dnsbl.Site // EvidenceLists
	selfTests map[string]dnsbl.SelfTest
	lists     *dnsbl.Lists // asked for evidence; nil if no list is
	held      *holdQueue   // nil if no mail is held
}

func (o *dmarcPart) bind(fs *pflag.FlagSet) {
	config.Choice(fs, &o.DMARCEnforce, "dmarc-enforce", "what DMARC failures lead to: p=quarantine and p=reject are quarantined; nothing is done (off); p=reject is refused when two more signs say forged (evidence); p=reject is refused (strict)",
		string(verify.EnforceQuarantine), string(verify.EnforceOff), string(verify.EnforceEvidence), string(verify.EnforceStrict))
	config.Choice(fs, &o.DMARCQuarantine, "dmarc-quarantine", "what quarantine means: the header field "+verify.QuarantineField+", which Sieve delivers to Junk; Postfix's hold queue; refusal, but for what looks like a list's mail",
		string(verify.Mark), string(verify.Hold), string(verify.RejectAll))
	config.Choice(fs, &o.DMARCOrg, "dmarc-org", "how the domains of one organization are found: the tree walk of RFC 9989, or the Public Suffix List of RFC 7489",
		string(dmarc.MethodTreeWalk), string(dmarc.MethodPSL))
	fs.StringVar(&o.DMARCAllow, "dmarc-allow", "", "`file` of author domains whose mail passes although it fails, each with the clients that may send it")
	fs.StringVar(&o.TrustedARCSealers, "trusted-arc-sealers", "", "`file` of domains whose ARC seals may override a DMARC failure")
	fs.StringVar(&o.TrustedForwarders, "trusted-forwarders", "", "`file` of addresses, networks and host names that forward mail to us, and whose mail is not refused for SPF or DMARC")
	fs.StringArrayVar(&o.EvidenceLists, "dnsbl", []string{defaultEvidenceList}, "`list` of addresses that is asked for evidence under dmarc-enforce evidence, as in postscreen_dnsbl_sites; repeat for several")
	config.Int(fs, &o.EvidenceThreshold, "dnsbl-threshold", 1, 1, maxEvidenceThreshold, "sum of weights at which a client counts as listed")
	fs.StringArrayVar(&o.EvidenceSelfTest, dnslists.SelfTestFlag, nil, dnslists.SelfTestHelp)
	fs.StringVar(&o.DQSKeyFile, "dqs-key-file", "", "`file` with the key of the Spamhaus Data Query Service; a bare name is a systemd credential")
}

func (o *dmarcPart) validate(s *config.Set) error {
	var errSites, errTests error
	o.evidence, errSites = dnslists.ParseSites(s, "dnsbl", o.EvidenceLists, dnsbl.KindAddress, o.DQSKeyFile != "")
	o.selfTests, errTests = dnslists.ParseSelfTests(s, o.EvidenceSelfTest, o.evidence)
	return errors.Join(errSites, errTests)
}

func (o *dmarcPart) findIdle(i *idleSettings) {
	i.addFlags(!i.verifies, fixVerifies, "dmarc-enforce", "dmarc-quarantine", "dmarc-org", "dmarc-allow", "trusted-forwarders", "trusted-arc-sealers")
	i.addFlags(o.DMARCEnforce != string(verify.EnforceEvidence), "lists are asked for evidence only; set --dmarc-enforce evidence, or remove it (postern-policyd has lists of its own)",
		"dnsbl", "dnsbl-threshold", dnslists.SelfTestFlag, "dqs-key-file")
	off := o.DMARCEnforce == string(verify.EnforceOff)
	i.addFlags(off, "--dmarc-enforce off quarantines nothing; set it to quarantine, or remove this", "dmarc-quarantine")
	i.watches = i.watches || i.shadowed(wordDMARC) && !off
}

// build adds the options of DMARC to those of the verifier.
func (o *dmarcPart) build(n *needs) error {
	d := &n.verify.DMARC
	d.Enforce = verify.Enforcement(o.DMARCEnforce)
	d.Quarantine = verify.Quarantine(o.DMARCQuarantine)
	d.Method = dmarc.Method(o.DMARCOrg)
	d.Shadow = n.options.shadowed(wordDMARC)
	if d.Enforce == verify.EnforceStrict {
		n.Log.Warn("dmarc-enforce strict refuses mail for p=reject alone, that of mailing lists and forwarders too, which RFC 9989 section 7.4 asks receivers not to do: evidence asks for more")
	}
	if n.keys != nil {
		d.OurDomain = ourDomain(n.keys)
	}
	return errors.Join(o.readLists(d, n), o.openLists(d, n), o.watchHold(d, n), o.count(n))
}

// readLists reads the files that the settings name.
func (o *dmarcPart) readLists(d *verify.DMARCOptions, n *needs) error {
	var errs [3]error
	d.Allow, errs[0] = readList(n, "dmarc-allow", o.DMARCAllow, allowlist.ReadAuthors)
	d.Sealers, errs[1] = readList(n, "trusted-arc-sealers", o.TrustedARCSealers, allowlist.ReadDomains)
	d.Forwarders, errs[2] = readList(n, "trusted-forwarders", o.TrustedForwarders, allowlist.ReadClients)
	return errors.Join(errs[:]...)
}

// readList reads the file that a flag names, if the flag is set.
func readList[T lastgood.Counted](n *needs, flag, path string, read func(string) (T, error)) (list T, err error) {
	if path == "" {
		return list, nil
	}
	n.life.Watch(path)
	if list, err = lastgood.List(n.life, n.Runtime, flag, []string{path}, func() (T, error) { return read(path) }); err != nil {
		return list, n.set.Errorf(flag, "%w", err)
	}
	return list, nil
}

// openLists opens the lists that are asked for evidence, if the settings use them.
func (o *dmarcPart) openLists(d *verify.DMARCOptions, n *needs) error {
	if d.Enforce != verify.EnforceEvidence || len(o.evidence) == 0 {
		return nil
	}
	var err error
	o.lists, err = dnslists.Settings{
		Addresses: o.evidence,
		Threshold: o.EvidenceThreshold,
		SelfTests: o.selfTests,
		KeyFile:   o.DQSKeyFile,
		DNS:       n.asks,
		DNSKey:    n.dns,
	}.Open(n.life, n.set, n.Log)
	if err != nil {
		return err
	}
	d.BlockList = o.lists
	return nil
}

// watchHold counts the hold queue if the settings can put mail there.
func (o *dmarcPart) watchHold(d *verify.DMARCOptions, n *needs) error {
	if d.Quarantine != verify.Hold || d.Shadow || d.Enforce == verify.EnforceOff {
		return nil
	}
	var err error
	o.held, err = service.Keep(n.life, holdKey{n.options.QueueDirectory}, func() (service.Opened[*holdQueue], error) {
		q := newHoldQueue(n.options.QueueDirectory, n.Log)
		return service.Opened[*holdQueue]{Value: q, Work: q.run}, nil
	})
	return err
}

type holdKey struct{ queueDirectory string }

// count counts verdicts.
func (o *dmarcPart) count(n *needs) error {
	counters, err := keepCounters(n, newDMARCCounters)
	if err != nil {
		return err
	}
	n.verify.Observe = counters.observe
	return nil
}

// ourDomain returns a function that reports whether there is a key for a domain. Mail
// of such a domain comes from us.
func ourDomain(keys *sign.Keys) func(string) bool {
	ours := make(map[string]bool)
	for _, domain := range keys.Domains() {
		ours[domain] = true
	}
	return func(domain string) bool { return ours[domain] }
}

// dmarcCounters count verdicts:
//
//	postern_dmarc_results_total{result,disposition,rule}   mails; rule is a row of the table of dispositions
//	postern_dmarc_psl_differences_total                    mails with another verdict under the Public Suffix List
//	postern_arc_results_total{result}                      mails with a chain of ARC seals
type dmarcCounters struct {
	results     *prometheus.CounterVec
	differences prometheus.Counter
	chains      *prometheus.CounterVec
}

func newDMARCCounters() *dmarcCounters {
	return &dmarcCounters{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_dmarc_results_total",
			Help: "Mails by DMARC result, what was done, and the rule that said so.",
		}, []string{"result", "disposition", "rule"}),
		differences: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "postern_dmarc_psl_differences_total",
			Help: "Mails that the Public Suffix List of RFC 7489 judges in another way than the tree walk.",
		}),
		chains: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "postern_arc_results_total",
			Help: "Mails with ARC seals, by the state of the chain.",
		}, []string{"result"}),
	}
}

func (m *dmarcCounters) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.results, m.differences, m.chains}
}

// observe counts one mail.
func (m *dmarcCounters) observe(f *verify.Findings) {
	v := &f.DMARC.Verdict
	m.results.WithLabelValues(string(v.Status), string(f.Disposition.Done()), f.Disposition.Rule).Inc()
	if v.PSL.Differs {
		m.differences.Inc()
	}
	if f.ARC.Status != arc.None {
		m.chains.WithLabelValues(string(f.ARC.Status)).Inc()
	}
}

// holdCollector shows the size of Postfix's hold queue, if mail is put there:
//
//	postern_hold_queue_messages   absent while the number is unknown
type holdCollector struct {
	current *current
	held    *prometheus.Desc
}

func dmarcMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{
		dnslists.NewCollector(c.zones),
		holdCollector{c, prometheus.NewDesc("postern_hold_queue_messages", "Messages in Postfix's hold queue, whoever put them there.", nil, nil)},
	}
}

// Describe implements prometheus.Collector.
func (c holdCollector) Describe(out chan<- *prometheus.Desc) { out <- c.held }

// Collect implements prometheus.Collector.
func (c holdCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*dmarcPart](c.current)
	if release == nil {
		return
	}
	defer release()
	if o.held == nil {
		return
	}
	if n := o.held.count.Load(); n >= 0 {
		out <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(n))
	}
}

// zones returns the status of the lists of the state in force.
func (c *current) zones() []dnsbl.Status {
	o, release := inForce[*dmarcPart](c)
	if release == nil {
		return nil
	}
	defer release()
	if o.lists == nil {
		return nil
	}
	return o.lists.Status()
}
