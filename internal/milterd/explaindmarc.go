package milterd

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/milter/verify"
)

// ExplainedARC is the chain of seals.
type ExplainedARC struct {
	Result     string   `json:"result"`
	Reason     string   `json:"reason,omitempty"`
	Sealers    []string `json:"sealers,omitempty"` // of set 1 first
	OldestPass int      `json:"oldest_pass"`
	Error      string   `json:"error,omitempty"`
}

// ExplainedDMARC is the verdict on the author, and what follows.
type ExplainedDMARC struct {
	Result  string            `json:"result"` // that counts: the strictest
	Reason  string            `json:"reason"`
	Domains []ExplainedDomain `json:"domains"`

	Signals   []string `json:"signals,omitempty"` // of forgery
	Unknown   []string `json:"unknown,omitempty"` // signals that DNS could not tell
	Traits    []string `json:"traits,omitempty"`  // fields of a list or a forwarder
	Allowed   string   `json:"allowed,omitempty"`
	Forwarder bool     `json:"trusted_forwarder,omitempty"`
	Sealer    string   `json:"trusted_sealer,omitempty"`

	Rule        string `json:"rule"` // the row of the table of dispositions
	Disposition string `json:"disposition"`
	Quarantine  string `json:"quarantine,omitempty"` // what it means here
	Shadow      bool   `json:"shadow,omitempty"`     // judged, and not done
	Override    string `json:"override,omitempty"`
}

// ExplainedDomain is the verdict on one author domain.
type ExplainedDomain struct {
	Domain       string          `json:"domain"`
	Result       string          `json:"result"`
	Reason       string          `json:"reason"`
	Policy       string          `json:"policy,omitempty"`
	Published    string          `json:"published,omitempty"` // the policy before t and pct
	PolicyDomain string          `json:"policy_domain,omitempty"`
	NonExistent  bool            `json:"non_existent,omitempty"`
	BrokenTags   []string        `json:"broken_tags,omitempty"`
	Org          string          `json:"organization,omitempty"`
	Identifiers  []string        `json:"identifiers,omitempty"`
	Walks        []ExplainedWalk `json:"walks,omitempty"`
	PSLDiffers   bool            `json:"public_suffix_list_differs,omitempty"`
	PSLOrg       string          `json:"public_suffix_list_organization,omitempty"`
	Error        string          `json:"error,omitempty"`
}

// ExplainedWalk is one walk up the DNS tree.
type ExplainedWalk struct {
	Start string   `json:"start"`
	Steps []string `json:"steps"`
	Org   string   `json:"organization,omitempty"`
}

func explainARC(r *arc.Result) *ExplainedARC {
	if r.Status == arc.None {
		return nil
	}
	x := &ExplainedARC{Result: string(r.Status), Reason: r.Reason, OldestPass: r.OldestPass, Error: errorText(r.Err)}
	for _, set := range r.Sets {
		x.Sealers = append(x.Sealers, set.Sealer)
	}
	return x
}

func explainDMARC(f *verify.Findings) *ExplainedDMARC {
	d, e := &f.Disposition, &f.Evidence
	x := &ExplainedDMARC{
		Result: string(f.DMARC.Verdict.Status), Reason: string(f.DMARC.Verdict.Reason), Domains: []ExplainedDomain{},
		Allowed: e.Allowed, Forwarder: e.Forwarder, Sealer: e.Sealer,
		Rule: d.Rule, Disposition: string(d.Action), Quarantine: string(d.How), Shadow: d.Shadow,
		Override: strings.TrimSpace(string(d.Override) + " " + d.Comment),
	}
	for i := range f.DMARC.Results {
		x.Domains = append(x.Domains, explainDomain(&f.DMARC.Results[i]))
	}
	for _, s := range e.Signals {
		x.Signals = append(x.Signals, string(s.Kind)+": "+s.Detail)
	}
	for _, err := range e.Unknown {
		x.Unknown = append(x.Unknown, err.Error())
	}
	for _, trait := range []string{e.Traits.List, e.Traits.Forwarder} {
		if trait != "" {
			x.Traits = append(x.Traits, trait)
		}
	}
	return x
}

func explainDomain(r *dmarc.Result) ExplainedDomain {
	x := ExplainedDomain{
		Domain: r.Domain, Result: string(r.Status), Reason: string(r.Reason), Policy: string(r.Policy), Published: string(r.Published),
		PolicyDomain: r.PolicyDomain, NonExistent: r.NonExistent, Org: r.Org, PSLDiffers: r.PSL.Differs, PSLOrg: r.PSL.Org, Error: errorText(r.Err),
	}
	if r.Record != nil {
		x.BrokenTags = slices.Clone(r.Record.Broken)
	}
	for _, id := range r.Identifiers {
		x.Identifiers = append(x.Identifiers, verify.IdentifierText(id))
	}
	for _, w := range r.Walks {
		walk := ExplainedWalk{Start: w.Start, Org: w.Org}
		for _, s := range w.Steps {
			walk.Steps = append(walk.Steps, stepText(s))
		}
		x.Walks = append(x.Walks, walk)
	}
	return x
}

// stepText says what one name of a walk had.
func stepText(s dmarc.Step) string {
	switch {
	case s.Err != nil:
		return s.Domain + ": " + s.Err.Error()
	case s.Discarded > 0:
		return s.Domain + ": several records, which is as good as none"
	case s.Record == nil:
		return s.Domain + ": none"
	case s.Record.PSD != dmarc.PSDUnknown:
		return s.Domain + ": a record, psd=" + string(s.Record.PSD)
	}
	return s.Domain + ": a record"
}
