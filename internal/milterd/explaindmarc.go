package milterd

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/milter/verify"
)

func explainARC(r *arc.Result) *api.ExplainedARC {
	if r.Status == arc.None {
		return nil
	}
	x := &api.ExplainedARC{Result: string(r.Status), Reason: r.Reason, OldestPass: r.OldestPass, Error: errorText(r.Err)}
	for _, set := range r.Sets {
		x.Sealers = append(x.Sealers, set.Sealer)
	}
	return x
}

func explainDMARC(f *verify.Findings) *api.ExplainedDMARC {
	d, e := &f.Disposition, &f.Evidence
	x := &api.ExplainedDMARC{
		Result: string(f.DMARC.Verdict.Status), Reason: string(f.DMARC.Verdict.Reason), Domains: []api.ExplainedDomain{},
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

func explainDomain(r *dmarc.Result) api.ExplainedDomain {
	x := api.ExplainedDomain{
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
		walk := api.ExplainedWalk{Start: w.Start, Org: w.Org}
		for _, s := range w.Steps {
			walk.Steps = append(walk.Steps, stepText(s))
		}
		x.Walks = append(x.Walks, walk)
	}
	return x
}

// stepText returns what was found at one name of a tree walk.
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
