package verify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/spf"
)

// From returns the domain of the author for records; several are separated by commas.
func (f *Findings) From() string { return strings.Join(f.Author.Domains, ",") }

// steps returns, for the record, what each result rests on.
func (f *Findings) steps(o *Options) []record.Step {
	list := []record.Step{spfStep(IdentityMailFrom, f.MailFrom.Result)}
	if o.SPFShadow && f.refuseSPF(o) != nil {
		list[0].Reason, list[0].Mode = record.SPFFailed, record.ModeShadow
	}
	if f.Helo.Status != "" {
		list = append(list, spfStep(IdentityHelo, f.Helo.Result))
	}
	for i := range f.DKIM.Signatures {
		list = append(list, dkimStep(&f.DKIM.Signatures[i]))
	}
	if n := f.DKIM.Skipped; n > 0 {
		list = append(list, record.Step{Check: "dkim", Verdict: "none", Detail: strconv.Itoa(n) + " more signatures were not looked at"})
	}
	if f.IPRev.Value != "" {
		list = append(list, record.Step{Check: "iprev", Verdict: string(f.IPRev.Value), Detail: f.IPRev.Name, Err: f.IPRev.Err})
	}
	if f.ARC.Status != arc.None {
		list = append(list, arcStep(&f.ARC))
	}
	list = append(list, f.dmarcStep())
	if failsReject(&f.DMARC.Verdict) {
		list = append(list, f.Evidence.step())
	}
	return list
}

// maxDetail bounds the values of strangers in a record, in bytes.
const maxDetail = 400

func clip(s string) string { return s[:min(len(s), maxDetail)] }

func spfStep(identity string, r spf.Result) record.Step {
	detail := identity + " " + r.Domain
	if r.Mechanism != "" {
		detail += ": " + matched(r)
	}
	return record.Step{Check: "spf", Verdict: string(r.Status), Detail: clip(strings.TrimSpace(detail)), Err: r.Err}
}

func dkimStep(s *dkim.Signature) record.Step {
	detail := clip(s.Domain) + "/" + clip(s.Selector)
	if s.Reason != "" {
		detail += ": " + s.Reason
	}
	return record.Step{Check: "dkim", Verdict: string(s.Status), Detail: clip(detail), Err: s.Err}
}

// arcStep returns who sealed the message last, and why a chain fails.
func arcStep(r *arc.Result) record.Step {
	detail := clip(r.Reason)
	if r.Status == arc.Pass {
		detail = fmt.Sprintf("%d sealed by %s", len(r.Sets), clip(r.Sealer))
		if r.OldestPass > 0 {
			detail += ", oldest pass " + strconv.Itoa(r.OldestPass)
		}
	}
	return record.Step{Check: "arc", Verdict: string(r.Status), Detail: detail, Err: r.Err}
}

// dmarcStep returns what the verdict on the author rests on. The rule comes first,
// because the end is cut off when names are long.
func (f *Findings) dmarcStep() record.Step {
	v, d := &f.DMARC.Verdict, &f.Disposition
	step := record.Step{Check: "dmarc", Verdict: string(v.Status), Reason: d.reason(), Err: v.Err}
	if d.Shadow && step.Reason != "" {
		step.Mode = record.ModeShadow
	}
	parts := []string{"rule " + d.Rule}
	if d.Override != "" {
		parts = append(parts, "override "+strings.TrimSpace(string(d.Override)+" "+d.Comment))
	}
	parts = append(parts, string(v.Reason))
	if v.Record != nil {
		parts = append(parts, "policy "+string(v.Policy)+" of "+v.PolicyDomain)
	}
	for _, id := range v.Identifiers {
		parts = append(parts, IdentifierText(id))
	}
	for _, w := range v.Walks {
		parts = append(parts, walkText(w))
	}
	if v.PSL.Differs {
		parts = append(parts, "public suffix list differs: "+pslText(v.PSL))
	}
	step.Detail = strings.Join(parts, "; ")
	step.Detail = step.Detail[:min(len(step.Detail), maxDMARCDetail)]
	return step
}

// maxDMARCDetail is room for the walks of two domains of usual length.
const maxDMARCDetail = 1000

// IdentifierText returns a text that says whether an identifier is aligned.
func IdentifierText(id dmarc.Identifier) string {
	text := id.Mechanism + " " + id.Domain
	switch {
	case !id.Passed:
		text += " unknown"
	case id.Err != nil:
		text += " alignment unknown"
	case id.Aligned:
		text += " aligned"
	default:
		text += " not aligned"
	}
	if id.Strict {
		text += " (strict)"
	}
	return text
}

// walkText returns the names that were asked; those with a record have a star.
func walkText(w dmarc.Walk) string {
	var names []string
	for _, s := range w.Steps {
		name := s.Domain
		if s.Record != nil {
			name += "*"
		}
		names = append(names, name)
	}
	return "walk " + strings.Join(names, " > ") + ": " + w.Org
}

func pslText(c dmarc.Comparison) string {
	if !c.Known {
		return "organization " + c.Org
	}
	return "organization " + c.Org + ", " + strings.TrimSpace(string(c.Status)+" "+string(c.Policy))
}

// Verdicts of the evidence.
const (
	evidenceEnough = "forged"
	evidenceNone   = "none"
)

// step returns the evidence for or against a mail that fails under reject.
func (e *Evidence) step() record.Step {
	step := record.Step{Check: "evidence", Verdict: evidenceNone}
	if len(e.Signals) >= NeededSignals {
		step.Verdict = evidenceEnough
	}
	var parts []string
	for _, s := range e.Signals {
		parts = append(parts, string(s.Kind)+": "+s.Detail)
	}
	for _, trait := range []struct{ what, value string }{
		{"list", e.Traits.List}, {"forwarder", e.Traits.Forwarder}, {"allowed", e.Allowed}, {"trusted sealer", e.Sealer},
	} {
		if trait.value != "" {
			parts = append(parts, trait.what+": "+trait.value)
		}
	}
	if e.Forwarder {
		parts = append(parts, "trusted forwarder")
	}
	step.Detail = strings.Join(parts, "; ")
	step.Detail = step.Detail[:min(len(step.Detail), maxDMARCDetail)]
	if len(e.Unknown) > 0 {
		step.Err = e.Unknown[0]
	}
	return step
}
