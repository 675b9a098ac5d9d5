package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter/sign"
)

// DKIMReport reports whether our signatures verify, and whether receivers would accept
// the mail.
type DKIMReport struct {
	Level   Level        `json:"level"` // the worst of all
	Domains []DKIMDomain `json:"domains"`
	// Findings are those that are not about a single domain.
	Findings []Finding `json:"findings"`
}

// DKIMDomain is a domain that is signed for.
type DKIMDomain struct {
	Domain   string    `json:"domain"`
	Level    Level     `json:"level"`
	Keys     []DKIMKey `json:"keys"`
	Findings []Finding `json:"findings"`
}

// DKIMKey is a key and its DNS record.
type DKIMKey struct {
	Selector  string       `json:"selector"`
	Algorithm string       `json:"algorithm"`
	Bits      int          `json:"bits,omitempty"` // of an RSA key
	Path      string       `json:"path"`
	Level     Level        `json:"level"`
	Names     []string     `json:"names"`             // names of the record: the one that is queried, and the targets of CNAME records
	Strings   int          `json:"strings,omitempty"` // number of strings in the record
	Servers   []DKIMServer `json:"servers"`
}

// DKIMServer is the answer of one authoritative server about a key.
type DKIMServer struct {
	Server  string `json:"server"`
	Address string `json:"address,omitempty"`
	State   string `json:"state"` // published, none, other, error
	Error   string `json:"error,omitempty"`
}

// Status returns the exit status: 0 if everything is well, 1 for warnings, 2 for
// failures.
func (r *DKIMReport) Status() int { return r.Level.rank() }

// The subjects of findings.
const (
	aboutKey       = "key"
	aboutServers   = "servers"
	aboutSPF       = "spf"
	aboutDMARC     = "dmarc"
	aboutAlignment = "alignment"
	aboutHost      = "ptr"
	aboutFields    = "unsubscribe"
)

// CheckDKIM checks the keys that milterd signs with, their records, and the records of
// their domains. If domains is empty, it checks all domains with a key.
func CheckDKIM(ctx context.Context, o Options, domains []string) (*DKIMReport, error) {
	for i, text := range domains {
		domain, err := mailaddr.ParseDomain(text)
		if err != nil {
			return nil, fmt.Errorf("domain %q: %w", text, err)
		}
		domains[i] = domain
	}
	o.Only = []string{"dkim"} // none of doctor's checks
	f := gather(ctx, o)
	defer f.close()
	if f.Milterd.SettingsErr != nil {
		return nil, f.Milterd.SettingsErr
	}
	if f.DNSErr != nil {
		return nil, f.DNSErr
	}
	return f.checkDKIM(ctx, domains)
}

func (f *Facts) checkDKIM(ctx context.Context, domains []string) (*DKIMReport, error) {
	keys, err := f.keys()
	r := &DKIMReport{Level: OK, Domains: []DKIMDomain{}, Findings: []Finding{}}
	if err != nil {
		text, fix := splitFix(oneLine(err.Error()), "correct the file")
		r.addFindings(aboutKey, failf(fix, "%s", text))
	}
	byDomain := make(map[string][]*sign.Key)
	for _, key := range keys {
		if len(byDomain[key.Domain]) == 0 && len(domains) == 0 && len(byDomain) >= maxDomains {
			return nil, fmt.Errorf("more than %d domains have keys; name those to look at", maxDomains)
		}
		byDomain[key.Domain] = append(byDomain[key.Domain], key)
	}
	if len(domains) == 0 {
		domains = slices.Sorted(maps.Keys(byDomain))
	}
	if len(domains) == 0 && f.tables != nil {
		return nil, fmt.Errorf("keys are in %s, which cannot be listed; name the domains to look at", f.Milterd.text("dkim-key-table"))
	}
	if len(domains) == 0 && err == nil {
		return nil, errors.New("no DKIM key: no mail is signed; make one with `postern dkim genkey DOMAIN`")
	}
	host := f.checkHost(ctx)
	r.addFindings(aboutHost, host.findings...)
	fields := f.checkFields()
	r.addFindings(aboutFields, fields...)
	host.unsubscribe = len(fields) == 0
	r.Domains = make([]DKIMDomain, len(domains))
	each(len(domains), func(i int) {
		own := byDomain[domains[i]]
		if loaded, _ := f.loaded(); len(own) == 0 {
			own = loaded.For(domains[i], f.signsSubdomains())
		}
		r.Domains[i] = f.checkDomain(ctx, domains[i], own, host)
	})
	for i := range r.Domains {
		r.Level = worse(r.Level, r.Domains[i].Level)
	}
	return r, nil
}

func (r *DKIMReport) addFindings(about string, found ...Finding) {
	r.Findings, r.Level = note(r.Findings, r.Level, about, found)
}

func (d *DKIMDomain) addFindings(about string, found ...Finding) {
	d.Findings, d.Level = note(d.Findings, d.Level, about, found)
}

// note appends findings, and returns the worst level so far.
func note(all []Finding, level Level, about string, found []Finding) ([]Finding, Level) {
	for _, one := range found {
		one.Check, one.Text, one.Fix = cmp.Or(one.Check, about), oneLine(one.Text), oneLine(one.Fix)
		all, level = append(all, one), worse(level, one.Level)
	}
	return all, level
}

func worse(a, b Level) Level {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// worst returns the worst level of findings.
func worst(found []Finding) Level {
	level := OK
	for _, one := range found {
		level = worse(level, one.Level)
	}
	return level
}

// sender holds what is known about the host that mail leaves from. It is the same for
// all domains.
type sender struct {
	outgoing    []netip.Addr
	findings    []Finding
	unsubscribe bool // both header fields of RFC 8058 are signed
}

// checkDomain checks one domain.
func (f *Facts) checkDomain(ctx context.Context, domain string, keys []*sign.Key, host *sender) DKIMDomain {
	d := DKIMDomain{Domain: domain, Level: OK, Keys: []DKIMKey{}, Findings: []Finding{}}
	rules := ruleResults{
		aboutHost:   worst(host.findings) == OK,
		aboutFields: host.unsubscribe,
	}
	more, err := f.keysOf(ctx, domain)
	if err != nil {
		text, fix := splitFix(oneLine(err.Error()), "correct the table")
		d.addFindings(aboutKey, failf(fix, "%s", text))
	}
	if keys = append(slices.Clip(keys), more...); len(keys) == 0 {
		d.addFindings(aboutKey, failf("postern dkim genkey "+domain, "%s has no key: its mail is not signed", domain))
	}
	for _, key := range keys {
		one, found := f.checkKey(ctx, key)
		d.Keys = append(d.Keys, one)
		d.addFindings(aboutKey, found...)
		rules[aboutKey] = rules[aboutKey] || one.Level == OK && one.Bits >= bulkBits
	}
	spf := f.spfOf(ctx, domain, host.outgoing)
	d.addFindings(aboutSPF, orOK(spf, "%s", spfText(domain, host.outgoing))...)
	rules[aboutSPF] = worst(spf) == OK
	record, found := f.dmarcOf(ctx, domain)
	d.addFindings(aboutDMARC, orOK(found, "%s has a DMARC record", domain)...)
	rules[aboutDMARC] = record.P != "" && worst(found) != Fail
	aligned := f.checkAlignment(domain, record.StrictDKIM)
	d.addFindings(aboutAlignment, orOK(aligned, "a signature is only made for the domain of From, which aligns under DMARC")...)
	rules[aboutAlignment] = worst(aligned) == OK && len(keys) > 0
	for _, receiver := range bulkReceivers() {
		d.addFindings(receiver.name, receiver.finding(rules))
	}
	return d
}

func spfText(domain string, outgoing []netip.Addr) string {
	if len(outgoing) == 0 {
		return domain + " has an SPF record; this host does not know from which address its mail leaves"
	}
	var names []string
	for _, addr := range outgoing {
		names = append(names, addr.String())
	}
	return domain + " has an SPF record, which lets " + strings.Join(names, ", ") + " send"
}

// checkAlignment finds signatures that a strict DMARC policy does not accept.
func (f *Facts) checkAlignment(domain string, strict bool) []Finding {
	if strict && f.signsSubdomains() {
		return []Finding{warnf("give each subdomain that sends a key of its own, or publish adkim=r",
			"adkim=s in the DMARC record of %s: what dkim-subdomains signs for its subdomains does not align", domain)}
	}
	return nil
}
