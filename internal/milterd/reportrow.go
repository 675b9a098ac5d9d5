package milterd

import (
	"cmp"
	"strings"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter/verify"
)

// reported returns the row that is reported for a mail. ok is false when the mail is
// not reported: no domain has a policy for it, or it does not come from another host.
func reported(f *verify.Findings, method dmarc.Method) (domain string, p dmarcreport.Policy, r *dmarcreport.Row, ok bool) {
	v := &f.DMARC.Verdict
	client := f.Envelope.Client.Unmap().WithZone("") // a report has no zones
	if v.Record == nil || f.Envelope.Authenticated || !client.IsValid() || client.IsLoopback() {
		return "", p, nil, false
	}
	r = &dmarcreport.Row{
		Source:      client.String(),
		Disposition: string(f.Disposition.Done()),
		DKIM:        v.Aligned("dkim"),
		SPF:         v.Aligned("spf"),
		Reasons:     reportedReasons(f),
		HeaderFrom:  v.Domain,
		Signatures:  reportedSignatures(f),
		SPFDomain:   domainOf(f.MailFrom.Domain),
		SPFResult:   string(f.MailFrom.Status),
		Report:      f.Evidence.Traits.Report && v.Status == dmarc.Pass,
	}
	if f.Refused && r.Disposition != string(verify.ActionReject) { // by --spf-reject
		r.Disposition = string(verify.ActionReject)
		r.Reasons = []dmarcreport.Reason{{Type: string(verify.OverrideLocalPolicy), Comment: "refused for SPF"}}
	}
	if !f.Envelope.Sender.IsNull() {
		r.Envelope = domainOf(f.Envelope.Sender.Domain)
	}
	return v.PolicyDomain, publishedPolicy(v, method), r, true
}

// publishedPolicy returns the policy as it is published.
func publishedPolicy(v *dmarc.Result, method dmarc.Method) dmarcreport.Policy {
	alignment := map[bool]string{true: "s", false: "r"}
	return dmarcreport.Policy{
		P: string(v.Record.P), SP: string(v.Record.SP), NP: string(v.Record.NP),
		ADKIM: alignment[v.Record.StrictDKIM], ASPF: alignment[v.Record.StrictSPF],
		FO: v.Record.FO, Testing: v.Record.Test, Method: string(method),
	}
}

// reportedReasons returns why less was done than the policy asks for.
func reportedReasons(f *verify.Findings) []dmarcreport.Reason {
	d, v := &f.Disposition, &f.DMARC.Verdict
	switch {
	case v.Status == dmarc.TempError:
		return []dmarcreport.Reason{{Type: string(verify.OverrideOther), Comment: "the DNS lookups for alignment failed"}}
	case v.Status != dmarc.Fail || string(d.Done()) == string(v.Published):
		return nil
	case d.Override != "" && !d.Shadow:
		return []dmarcreport.Reason{{Type: string(d.Override), Comment: d.Comment}}
	case d.Shadow:
		return []dmarcreport.Reason{{Type: string(verify.OverrideLocalPolicy), Comment: "not enforced"}}
	}
	return []dmarcreport.Reason{{Type: string(verify.OverrideLocalPolicy), Comment: cmp.Or(d.Comment, d.Rule)}}
}

// reportedSignatures returns the signatures that have a domain. Others could not be
// parsed.
func reportedSignatures(f *verify.Findings) (all []dmarcreport.Signature) {
	for i := range f.DKIM.Signatures {
		s := &f.DKIM.Signatures[i]
		domain := domainOf(s.Domain)
		if domain == "" || len(all) == dmarcreport.MaxSignatures {
			continue
		}
		all = append(all, dmarcreport.Signature{Domain: domain, Selector: selectorOf(s.Selector), Result: string(s.Status)})
	}
	return all
}

// domainOf returns a normalized domain, or "" if text is not a domain.
func domainOf(text string) string {
	domain, err := mailaddr.ParseDomain(text)
	if err != nil {
		return ""
	}
	return domain
}

// selectorOf returns a selector, or "" if text cannot be one.
func selectorOf(text string) string {
	if len(text) > 253 || strings.Trim(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return ""
	}
	return text
}
