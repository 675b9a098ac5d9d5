package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/postern-mail/postern/internal/admin/api"
)

// printDMARC prints the ARC chain, the verdict on the author's domain, and what the
// daemon does because of it.
func printDMARC(w io.Writer, x *api.Explanation) {
	if a := x.ARC; a != nil {
		fmt.Fprintf(w, "\nARC: %s%s\n", a.Result, because(a.Reason))
		for i, sealer := range a.Sealers {
			fmt.Fprintf(w, "  i=%d sealed by %s\n", i+1, shown(sealer))
		}
	}
	d := x.DMARC
	if d == nil {
		return
	}
	fmt.Fprintf(w, "\nDMARC: %s (%s)\n", d.Result, d.Reason)
	for _, domain := range d.Domains {
		printDomain(w, domain)
	}
	for _, group := range []struct {
		what string
		list []string
	}{{"signal", d.Signals}, {"unknown", d.Unknown}, {"trait", d.Traits}} {
		for _, text := range group.list {
			fmt.Fprintf(w, "  %-8s %s\n", group.what, shown(text))
		}
	}
	for _, line := range []struct{ what, text string }{{"allowed", d.Allowed}, {"sealer", d.Sealer}, {"override", d.Override}} {
		if line.text != "" {
			fmt.Fprintf(w, "  %-8s %s\n", line.what, shown(line.text))
		}
	}
	if d.Forwarder {
		fmt.Fprintf(w, "  %-8s trusted\n", "forwarder")
	}
	fmt.Fprintf(w, "  %-8s %s: %s", "rule", d.Rule, d.Disposition)
	if d.Quarantine != "" && d.Quarantine != d.Disposition {
		fmt.Fprintf(w, " (%s)", d.Quarantine)
	}
	if d.Shadow {
		fmt.Fprint(w, ", not done: shadow")
	}
	fmt.Fprintln(w)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + shown(reason) + ")"
}

func printDomain(w io.Writer, d api.ExplainedDomain) {
	fmt.Fprintf(w, "  %s: %s (%s)\n", shown(d.Domain), d.Result, d.Reason)
	for _, walk := range d.Walks {
		fmt.Fprintf(w, "    walk from %s\n", shown(walk.Start))
		for _, step := range walk.Steps {
			fmt.Fprintf(w, "      %s\n", shown(step))
		}
		if walk.Org != "" {
			fmt.Fprintf(w, "      organizational domain %s\n", shown(walk.Org))
		}
	}
	if d.PolicyDomain != "" {
		fmt.Fprintf(w, "    policy %s, published by %s", cmp.Or(d.Policy, "none"), shown(d.PolicyDomain))
		if d.Published != d.Policy {
			fmt.Fprintf(w, " as %s", d.Published)
		}
		fmt.Fprintln(w)
	}
	if len(d.BrokenTags) > 0 {
		fmt.Fprintf(w, "    broken tags %s\n", strings.Join(d.BrokenTags, " "))
	}
	for _, id := range d.Identifiers {
		fmt.Fprintf(w, "    %s\n", shown(id))
	}
	if d.PSLDiffers {
		fmt.Fprintf(w, "    the Public Suffix List differs: organizational domain %s\n", shown(d.PSLOrg))
	}
	if d.Error != "" {
		fmt.Fprintf(w, "    %s\n", shown(d.Error))
	}
}
