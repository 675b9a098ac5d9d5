package milterd

import (
	"errors"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/verify"
)

// defaultEvidenceList is asked under --dmarc-enforce evidence. Codes beyond the
// filter are errors, not listings.
const defaultEvidenceList = "zen.spamhaus.org=127.0.0.[2..11;30]*1"

const maxEvidenceThreshold = 100_000

// Words of --shadow.
const (
	wordSPF   = "spf"
	wordDMARC = "dmarc"
	wordAll   = "all"
)

// dmarcOptions say what follows from the verdict of DMARC.
type dmarcOptions struct {
	DMARCEnforce      string
	DMARCQuarantine   string
	DMARCOrg          string
	DMARCAllow        string
	TrustedARCSealers string
	TrustedForwarders string
	EvidenceLists     []string
	EvidenceThreshold int
	DQSKeyFile        string
	Shadow            []string // of spf, dmarc, all

	evidence []dnsbl.Site // EvidenceLists
}

func (o *dmarcOptions) bindDMARC(fs *pflag.FlagSet) {
	config.Choice(fs, &o.DMARCEnforce, "dmarc-enforce", "what DMARC failures lead to: p=quarantine and p=reject are quarantined; nothing is done (off); p=reject is refused when two more signs say forged (evidence); p=reject is refused (strict)",
		string(verify.EnforceQuarantine), string(verify.EnforceOff), string(verify.EnforceEvidence), string(verify.EnforceStrict))
	config.Choice(fs, &o.DMARCQuarantine, "dmarc-quarantine", "what quarantine means: the header field "+verify.QuarantineField+", which Sieve delivers to Junk; Postfix's hold queue; refusal, but for what looks like a list's mail",
		string(verify.Mark), string(verify.Hold), string(verify.RejectAll))
	config.Choice(fs, &o.DMARCOrg, "dmarc-org", "how the domains of one organization are found: the tree walk of RFC 9989, or the Public Suffix List of RFC 7489",
		string(dmarc.MethodTreeWalk), string(dmarc.MethodPSL))
	fs.StringVar(&o.DMARCAllow, "dmarc-allow", "", "`file` of author domains whose mail passes though it fails, each with the clients that may send it")
	fs.StringVar(&o.TrustedARCSealers, "trusted-arc-sealers", "", "`file` of domains whose ARC seals may override a DMARC failure")
	fs.StringVar(&o.TrustedForwarders, "trusted-forwarders", "", "`file` of addresses, networks and host names that forward mail to us, which DMARC failures do not hurt")
	fs.StringArrayVar(&o.EvidenceLists, "dnsbl", []string{defaultEvidenceList}, "`list` of addresses that is asked for evidence under dmarc-enforce evidence, as in postscreen_dnsbl_sites; repeat for several")
	config.Int(fs, &o.EvidenceThreshold, "dnsbl-threshold", 1, 1, maxEvidenceThreshold, "sum of weights from which on a client counts as listed")
	fs.StringVar(&o.DQSKeyFile, "dqs-key-file", "", "`file` with the key of the Spamhaus Data Query Service; a bare name is a systemd credential")
	config.Words(fs, &o.Shadow, "shadow", nil, "what is judged and recorded but never changes a reply or a mail", wordSPF, wordDMARC, wordAll)
}

func (o *dmarcOptions) validateDMARC(s *config.Set) error {
	var err error
	o.evidence, err = dnslists.ParseSites(s, "dnsbl", o.EvidenceLists, dnsbl.KindAddress, o.DQSKeyFile != "")
	return err
}

// shadowed tells whether a verdict is only watched.
func (o *dmarcOptions) shadowed(what string) bool {
	return slices.Contains(o.Shadow, wordAll) || slices.Contains(o.Shadow, what)
}

// disposal gives the settings in the words of their package, but for what has
// to be opened.
func (o *dmarcOptions) disposal() verify.DMARCOptions {
	return verify.DMARCOptions{
		Enforce:    verify.Enforcement(o.DMARCEnforce),
		Quarantine: verify.Quarantine(o.DMARCQuarantine),
		Method:     dmarc.Method(o.DMARCOrg),
		Shadow:     o.shadowed(wordDMARC),
	}
}

// openDisposal reads the files that the settings name, and makes the lists.
func (s *state) openDisposal(d *verify.DMARCOptions, dns dnsbl.DNS, log *zap.Logger) error {
	o := s.settings
	var errs [4]error
	d.Allow, errs[0] = readList(s, "dmarc-allow", o.DMARCAllow, allowlist.ReadAuthors)
	d.Sealers, errs[1] = readList(s, "trusted-arc-sealers", o.TrustedARCSealers, allowlist.ReadDomains)
	d.Forwarders, errs[2] = readList(s, "trusted-forwarders", o.TrustedForwarders, allowlist.ReadClients)
	if d.Enforce == verify.EnforceEvidence && len(o.evidence) > 0 {
		errs[3] = s.openEvidenceLists(d, dns, log)
	}
	if s.signing != nil {
		d.OurDomain = ourDomain(s.signing.keys)
	}
	if d.Quarantine == verify.Hold && !d.Shadow && d.Enforce != verify.EnforceOff {
		s.held = newHoldQueue(o.QueueDirectory, log)
		s.whileInForce(s.held.run)
	}
	return errors.Join(errs[:]...)
}

// readList reads a file that a flag names, if it does.
func readList[T any](s *state, flag, path string, read func(string) (*T, error)) (*T, error) {
	if path == "" {
		return nil, nil
	}
	s.watch(path)
	list, err := read(path)
	if err != nil {
		return nil, s.settings.set.Errorf(flag, "%w", err)
	}
	return list, nil
}

func (s *state) openEvidenceLists(d *verify.DMARCOptions, dns dnsbl.DNS, log *zap.Logger) error {
	o := s.settings
	c := dnsbl.Config{DNS: dns, Addresses: o.evidence, Threshold: o.EvidenceThreshold, Report: dnslists.Report(log)}
	if o.DQSKeyFile != "" {
		key, path, err := dnslists.ReadKey(o.DQSKeyFile)
		if path != "" {
			s.watch(path)
		}
		if err != nil {
			return o.set.Errorf("dqs-key-file", "%w", err)
		}
		c.Key = key
	}
	lists, err := dnsbl.New(c)
	if err != nil {
		return o.set.Errorf("dnsbl", "%w", err)
	}
	s.lists = lists
	s.whileInForce(lists.Run)
	d.BlockList = lists
	return nil
}

// ourDomain tells whether there is a key for a domain: its mail comes from us.
func ourDomain(keys *sign.Keys) func(string) bool {
	ours := make(map[string]bool)
	for _, domain := range keys.Domains() {
		ours[domain] = true
	}
	return func(domain string) bool { return ours[domain] }
}

// dmarcMetrics count verdicts:
//
//	postern_dmarc_results_total{result,disposition,rule}   mails; rule is a row of the table of dispositions
//	postern_dmarc_psl_differences_total                    mails that the Public Suffix List judges in another way
//	postern_arc_results_total{result}                      mails with a chain of ARC seals
type dmarcMetrics struct {
	results     *prometheus.CounterVec
	differences prometheus.Counter
	chains      *prometheus.CounterVec
}

func newDMARCMetrics() *dmarcMetrics {
	return &dmarcMetrics{
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

func (m *dmarcMetrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.results, m.differences, m.chains}
}

// observe counts one mail.
func (m *dmarcMetrics) observe(f *verify.Findings) {
	v := &f.DMARC.Verdict
	m.results.WithLabelValues(string(v.Status), string(f.Disposition.Done()), f.Disposition.Rule).Inc()
	if v.PSL.Differs {
		m.differences.Inc()
	}
	if f.ARC.Status != arc.None {
		m.chains.WithLabelValues(string(f.ARC.Status)).Inc()
	}
}

// holdCollector shows what lies in Postfix's hold queue, while mail is put there:
//
//	postern_hold_queue_messages   absent while it cannot be told
type holdCollector struct {
	current *current
	held    *prometheus.Desc
}

func newHoldCollector(c *current) holdCollector {
	return holdCollector{c, prometheus.NewDesc("postern_hold_queue_messages", "Messages in Postfix's hold queue, whoever put them there.", nil, nil)}
}

// Describe implements prometheus.Collector.
func (c holdCollector) Describe(out chan<- *prometheus.Desc) { out <- c.held }

// Collect implements prometheus.Collector.
func (c holdCollector) Collect(out chan<- prometheus.Metric) {
	s := c.current.Load()
	if s == nil || s.held == nil {
		return
	}
	if n := s.held.count.Load(); n >= 0 {
		out <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(n))
	}
}

// zones are those of the state in force.
func (c *current) zones() []dnsbl.Status {
	s := c.Load()
	if s == nil || s.lists == nil {
		return nil
	}
	return s.lists.Status()
}
