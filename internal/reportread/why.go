package reportread

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// group returns the group of a row, without a count.
func (a *aggregate) group(source netip.Addr) Group {
	g := Group{Source: source, From: cmp.Or(a.row.from, a.report.Policy.Domain), Disposition: disposition(a.row.disposition)}
	g.DKIM = a.row.aligned("dkim", a.row.dkim, g.From)
	g.SPF = a.row.aligned("spf", a.row.spf, g.From)
	var why []string
	if !g.DKIM {
		why = append(why, a.row.why("DKIM", "no signature", g.From))
	}
	if !g.SPF {
		why = append(why, a.row.why("SPF", "no result", g.From))
	}
	for _, o := range a.row.overrides {
		text := "override: " + o.method
		if o.comment != "" {
			text += " (" + o.comment + ")"
		}
		why = append(why, text)
	}
	g.Why = clipped(strings.Join(why, "; "))
	return g
}

// disposition normalizes what was done with the mail. RFC 9990 has both pass and none.
func disposition(s string) string {
	switch s {
	case "quarantine", "reject":
		return s
	}
	return "none"
}

// aligned returns the reporter's verdict on a method. If there is none, it follows from
// the results.
func (r *row) aligned(method, verdict, from string) bool {
	if verdict != "" {
		return verdict == "pass"
	}
	return slices.ContainsFunc(r.results, func(one result) bool {
		return one.method == method && one.result == "pass" && organization(one.domain) == organization(from)
	})
}

func organization(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// why returns why a method did not pass for the author's domain.
func (r *row) why(label, none, from string) string {
	var failed, strangers, uncounted []string
	for _, one := range r.results {
		switch {
		case one.method != strings.ToLower(label) || one.result == "" && one.domain == "":
		case one.result != "pass":
			failed = append(failed, one.failure())
		case one.domain == from:
			uncounted = append(uncounted, from)
		default:
			strangers = append(strangers, cmp.Or(one.domain, "?"))
		}
	}
	var parts []string
	for _, part := range []struct {
		list          []string
		before, after string
	}{{failed, "", ""}, {strangers, "pass for ", ", not aligned"}, {uncounted, "pass for ", ", but the reporter counts it as failed"}} {
		if len(part.list) > 0 {
			parts = append(parts, part.before+few(part.list)+part.after)
		}
	}
	if len(parts) == 0 {
		parts = append(parts, none)
	}
	return label + ": " + strings.Join(parts, "; ")
}

func (r result) failure() string {
	text := cmp.Or(r.result, "no result")
	if r.domain != "" {
		text += " for " + r.domain
	}
	if r.selector != "" {
		text += ", selector " + r.selector
	}
	if r.comment != "" && r.method == "dkim" {
		text += " (" + r.comment + ")"
	}
	return text
}

// few joins the first texts without duplicates.
func few(texts []string) string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if len(texts) > 3 {
		texts = append(slices.Clone(texts[:3]), "...")
	}
	return strings.Join(texts, ", ")
}

func compareGroups(a, b Group) int {
	return cmp.Or(cmp.Compare(b.Messages, a.Messages), a.Source.Compare(b.Source), cmp.Compare(a.From, b.From),
		cmp.Compare(a.Why, b.Why), cmp.Compare(a.Disposition, b.Disposition))
}
