package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/spf"
)

// checkDomains checks the SPF and DMARC records of the domains that are signed.
func checkDomains(ctx context.Context, f *Facts) []Finding {
	keys, _ := f.keys()
	var domains []string
	for _, key := range keys {
		if !slices.Contains(domains, key.Domain) && len(domains) < maxDomains {
			domains = append(domains, key.Domain)
		}
	}
	if len(domains) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.lists)
	defer cancel()
	outgoing := f.outgoing(ctx)
	per, asks := make([][]Finding, len(domains)), make([]bool, len(domains))
	each(len(domains), func(i int) {
		record, found := f.dmarcOf(ctx, domains[i])
		per[i], asks[i] = append(f.spfOf(ctx, domains[i], outgoing), found...), len(record.RUA) > 0 || slices.Contains(record.Broken, "rua")
	})
	return orOK(slices.Concat(per...), "%d domains have SPF and DMARC records%s", len(domains), withoutReports(domains, asks))
}

// withoutReports names the domains whose DMARC records ask for no reports. This is not
// an error, but these domains do not learn who sends in their name.
func withoutReports(domains []string, asks []bool) string {
	var silent []string
	for i, domain := range domains {
		if !asks[i] {
			silent = append(silent, domain)
		}
	}
	if len(silent) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s ask for no reports: add rua=mailto:ADDRESS, and read what comes with postern dmarc read", few(silent))
}

// outgoing returns the addresses that mail leaves from, as far as they can be known:
// those of Postfix's own name. Behind a relay host there are none.
func (f *Facts) outgoing(ctx context.Context) []netip.Addr {
	if f.Postfix == nil || f.Postfix.Params["relayhost"] != "" {
		return nil
	}
	var all []netip.Addr
	for _, name := range []string{"smtp_bind_address", "smtp_bind_address6"} {
		if addr, err := netip.ParseAddr(f.Postfix.Params[name]); err == nil {
			all = append(all, addr)
		}
	}
	if len(all) == 0 && f.DNSErr == nil {
		all, _ = f.DNS.LookupNetIP(ctx, "ip", f.Postfix.Params["myhostname"])
	}
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return isPrivate(a.Unmap()) })
}

// spfOf judges the SPF record of a domain.
func (f *Facts) spfOf(ctx context.Context, domain string, outgoing []netip.Addr) []Finding {
	if f.DNSErr != nil {
		return nil
	}
	probe := outgoing
	if len(probe) == 0 {
		probe = []netip.Addr{netip.MustParseAddr("192.0.2.1")} // any address shows whether there is a valid record
	}
	var found []Finding
	for _, addr := range probe {
		r := spf.CheckMailFrom(ctx, f.DNS, spf.Args{IP: addr, Helo: f.hostname(), Sender: spf.Sender{Local: "postmaster", Domain: domain}, Now: time.Now(), NoExplanation: true})
		switch {
		case r.Status == spf.TempError:
			return []Finding{warnf("look at the name servers of "+domain, "%s: SPF cannot be looked up: %v", domain, r.Err)}
		case r.Status == spf.PermError:
			return []Finding{failf("correct the TXT record of "+domain, "%s: its SPF record cannot be used: %v", domain, r.Err)}
		case r.Status == spf.None:
			return []Finding{failf(fmt.Sprintf("publish: %s. TXT \"v=spf1 mx -all\", with every host that sends for it", domain), "%s has no SPF record", domain)}
		case r.Status == spf.Pass && r.Kind == spf.KindAll:
			return []Finding{failf("end the record with -all, and name the hosts that send", "%s: +all in its SPF record lets everyone send", domain)}
		case len(outgoing) > 0 && r.Status != spf.Pass:
			found = append(found, failf(fmt.Sprintf("add %s to the SPF record of %s", mechanism(addr), domain), "%s: SPF says %s for %s, from which this host sends", domain, r.Status, addr))
		}
	}
	return found
}

func (f *Facts) hostname() string {
	if f.Postfix == nil {
		return ""
	}
	return f.Postfix.Params["myhostname"]
}

func mechanism(addr netip.Addr) string {
	if addr.Unmap().Is4() {
		return "ip4:" + addr.Unmap().String()
	}
	return "ip6:" + addr.String()
}

// dmarcOf judges the DMARC record that applies to a domain: its own, or that of a
// domain above it. If there are no findings, receivers use the record.
func (f *Facts) dmarcOf(ctx context.Context, domain string) (dmarc.Record, []Finding) {
	fix := fmt.Sprintf("publish: _dmarc.%s. TXT \"v=DMARC1; p=none; rua=mailto:postmaster@%s\"", domain, domain)
	for name := domain; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		texts, err := f.txt(ctx, "_dmarc."+name)
		if err != nil {
			return dmarc.Record{}, []Finding{warnf("look at the name servers of "+domain, "%s: its DMARC record cannot be looked up: %v", domain, err)}
		}
		var records []dmarc.Record
		for _, text := range texts {
			if record, ok := dmarc.ParseRecord(text); ok {
				records = append(records, record)
			}
		}
		switch {
		case len(records) > 1:
			return dmarc.Record{}, []Finding{failf("leave one of them", "_dmarc.%s has %d DMARC records: receivers use none", name, len(records))}
		case len(records) == 1:
			return records[0], append(brokenTags("_dmarc."+name, &records[0], strings.Join(texts, "")), f.reportedTo(ctx, name)...)
		case slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToUpper(t), "DMARC1") }):
			return dmarc.Record{}, []Finding{failf(fix, "_dmarc.%s has a record that is no DMARC record: it must begin with v=DMARC1; and have p=", name)}
		}
	}
	return dmarc.Record{}, []Finding{warnf(fix, "%s has no DMARC record", domain)}
}

// reportedTo names the addresses in the rua tag of a domain's record whose hosts have not
// agreed to get its reports: receivers send none there.
func (f *Facts) reportedTo(ctx context.Context, domain string) (found []Finding) {
	wanted, err := dmarcreport.Find(ctx, f.DNS, domain)
	if err := errors.Join(err, wanted.Undecided); err != nil {
		found = append(found, warnf("look at the name servers of the hosts in its rua", "_dmarc.%s: %v", domain, err))
	}
	for _, refused := range wanted.Refused {
		if refused.Name != "" {
			found = append(found, warnf(fmt.Sprintf("publish, or have its owner publish: %s. TXT \"v=DMARC1\"", refused.Name), "_dmarc.%s asks for reports to %s, and receivers send none there: %s", domain, refused.URI, refused.Why))
		}
	}
	return found
}

// brokenTags names the tags of a DMARC record that receivers cannot use. text is the
// record itself.
func brokenTags(name string, r *dmarc.Record, text string) []Finding {
	broken := slices.DeleteFunc(slices.Clone(r.Broken), func(tag string) bool {
		// A size limit (mailto:a@b.example!10m) is of RFC 7489, and many receivers keep it.
		return (tag == "rua" || tag == "ruf") && strings.Contains(text, "!")
	})
	unused := slices.ContainsFunc(broken, func(tag string) bool { return tag == "sp" || tag == "np" })
	switch {
	case r.P == "":
		return []Finding{failf("write p=none, p=quarantine or p=reject behind v=DMARC1;", "%s has no policy: p= is missing, occurs twice, or has another value; receivers ignore the record or take it for p=none", name)}
	case unused:
		return []Finding{failf("correct the tag, or remove it", "%s has no valid value for %s: receivers ignore the record or take it for p=none", name, strings.Join(broken, ", "))}
	case len(broken) > 0:
		return []Finding{warnf("correct the tag, or remove it; an address in rua and ruf is written as mailto:reports@example.com", "%s has no valid value for %s, which receivers ignore", name, strings.Join(broken, ", "))}
	}
	return nil
}
