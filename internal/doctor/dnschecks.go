package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/policy/checks"
)

// Bounds of what the DNS is asked.
const (
	maxDomains = 200
	maxAsked   = 8 // at a time
)

// checkResolver asks each server for itself.
func checkResolver(ctx context.Context, f *Facts) []Finding {
	if f.DNSErr != nil {
		return []Finding{failf("name servers in /etc/resolv.conf, or set resolver in policyd.toml and milterd.toml", "%v", f.DNSErr)}
	}
	var found []Finding
	var names []string
	for _, server := range f.DNS.Servers() {
		names = append(names, server.String())
		found = append(found, f.askServer(ctx, server)...)
	}
	return orOK(found, "%s: answers, validates DNSSEC, and is not shared", strings.Join(names, ", "))
}

func (f *Facts) askServer(ctx context.Context, server netip.AddrPort) []Finding {
	const local = "run a resolver of your own (apt install unbound; resolver = [\"127.0.0.1:53\"])"
	if operator := resolver.PublicResolver(server.Addr()); operator != "" && f.asksLists() && f.Policyd.text("dqs-key-file") == "" {
		return []Finding{failf(local+", or get a DQS key from Spamhaus (dqs-key-file)",
			"resolver %s is shared by all customers of %s: Spamhaus and others do not answer it", server, operator)}
	}
	var found []Finding
	everywhere := []netip.Prefix{netip.PrefixFrom(server.Addr(), server.Addr().BitLen())}
	one, err := resolver.New(resolver.Config{Servers: []string{server.String()}, TrustAD: everywhere, Timeout: f.Options.bounds.dns / 4})
	if err != nil {
		return append(found, failf("correct resolver", "%v", err))
	}
	defer one.Close()
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.dns)
	defer cancel()
	began := time.Now()
	answer, err := one.Query(ctx, ".", resolver.TypeNS)
	took := time.Since(began)
	switch {
	case err != nil:
		return append(found, failf(local+", or take the server out", "resolver %s does not answer: %v", server, err))
	case took > f.Options.bounds.slowDNS:
		found = append(found, warnf(local, "resolver %s needs %s for the root's name servers", server, took.Round(time.Millisecond)))
	case !answer.AD:
		found = append(found, warnf(local+", or switch validation on; mail is judged without it, but forged answers are not noticed",
			"resolver %s does not validate DNSSEC (no AD bit)", server))
	}
	return found
}

// asksLists reports whether policyd asks DNS lists for any mail.
func (f *Facts) asksLists() bool {
	return slices.Contains(f.Policyd.list("checks"), checks.DNSBLName) && (f.attached(checks.DNSBLName) || f.Policyd.wanted())
}

// checkLists has every list tested, by the daemon or as it would.
func checkLists(ctx context.Context, f *Facts) []Finding {
	if f.Policyd.SettingsErr != nil {
		return nil // checkSettings says why they are not known
	}
	if !f.asksLists() {
		return []Finding{okf("no DNS list is asked")}
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.lists)
	defer cancel()
	var result api.DNSBLSelfTestResult
	var err error
	if f.Policyd.Running {
		err = f.Policyd.client.Call(ctx, api.DNSBLSelfTest, nil, &result, nil)
	} else {
		result, err = policyd.TestDNSBL(ctx, f.Policyd.Args, f.Policyd.Environ)
	}
	if err != nil {
		return []Finding{failf("correct the settings; postern dnsbl selftest asks again", "the DNS lists cannot be tested: %s", oneLine(err.Error()))}
	}
	var found []Finding
	for _, z := range result.Zones {
		if z.Mend != "" {
			found = append(found, failf(z.Mend, "%s: %s %s", z.Zone, z.State, z.Cause))
		}
	}
	key := "without a key"
	if f.Policyd.text("dqs-key-file") != "" {
		key = "with the key of dqs-key-file"
	}
	return orOK(found, "%d lists answer their test points, %s", len(result.Zones), key)
}

// checkKeys compares the keys with the DNS.
func checkKeys(ctx context.Context, f *Facts) []Finding {
	if !f.namesMilterd() && !f.Milterd.wanted() {
		return nil
	}
	keys, err := f.keys()
	var found []Finding
	if err != nil && f.Milterd.CheckErr == nil && len(f.Milterd.Problems) == 0 {
		text, fix := splitFix(oneLine(err.Error()), "correct the file; postern dkim keys shows all")
		found = append(found, failf(fix, "%s", text))
	}
	if len(keys) == 0 && len(found) == 0 && f.Milterd.text("dkim-keys") == "" {
		return []Finding{okf("no keys are set (dkim-keys is empty): no mail is signed")}
	}
	if len(keys) == 0 && len(found) == 0 {
		return []Finding{warnf("postern dkim genkey DOMAIN", "no DKIM key: no mail is signed")}
	}
	published := make([]Finding, len(keys))
	each(len(keys), func(i int) { published[i] = f.published(ctx, keys[i]) })
	for _, one := range published {
		if one.Level != OK {
			found = append(found, one)
		}
	}
	return orOK(found, "%d keys are in the DNS as they sign", len(keys))
}

// readKeys reads the keys that milterd signs with.
func (f *Facts) readKeys() ([]*sign.Key, error) {
	src := sign.KeySource{Dir: f.Milterd.text("dkim-keys"), KeyTable: f.Milterd.text("dkim-key-table"), SigningTable: f.Milterd.text("dkim-signing-table"), Group: -1}
	if f.Milterd.Identity != nil {
		src.Group = f.Milterd.Identity.GID
	}
	if _, err := os.Lstat(src.Dir); src.Dir == api.DKIMKeysFolder && errors.Is(err, fs.ErrNotExist) {
		src.Dir = ""
	}
	if src.Dir == "" && src.KeyTable == "" {
		return nil, nil
	}
	keys, err := sign.LoadKeys(src)
	if keys == nil {
		return nil, err
	}
	return keys.All(), err
}

// published judges what the DNS has of a key.
func (f *Facts) published(ctx context.Context, key *sign.Key) Finding {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.dns)
	defer cancel()
	records, err := f.txt(ctx, key.Name())
	if err != nil {
		return warnf("look at the resolver and at the name servers of "+key.Domain, "%s cannot be looked up: %v", key.Name(), err)
	}
	fix := "publish what postern dkim dns " + key.Domain + " prints"
	switch state := dkim.ComparePublished(records, key.Signer.Public()); state {
	case dkim.PublishedSame:
		return okf("%s is published", key.Name())
	case dkim.PublishedTesting:
		return warnf("take t=y out of the record when it works", "%s is published as a test (t=y): receivers treat its mail as unsigned", key.Name())
	default:
		return failf(fix+", or remove "+key.Path, "%s is %s: receivers cannot verify what it signs", key.Name(), state)
	}
}

// txt are the TXT records of a name; none is no error.
func (f *Facts) txt(ctx context.Context, name string) ([]string, error) {
	if f.DNSErr != nil {
		return nil, f.DNSErr
	}
	records, err := f.DNS.LookupTXT(ctx, name)
	if resolver.IsAbsent(err) {
		return nil, nil
	}
	return records, err
}

// each calls f for every number below n, some at a time.
func each(n int, f func(int)) {
	var running sync.WaitGroup
	places := make(chan struct{}, maxAsked)
	for i := range n {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			f(i)
		})
	}
	running.Wait()
}

// checkDomains looks at SPF and DMARC of the domains that are signed.
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
	per := make([][]Finding, len(domains))
	each(len(domains), func(i int) {
		per[i] = append(f.spfOf(ctx, domains[i], outgoing), f.dmarcOf(ctx, domains[i])...)
	})
	return orOK(slices.Concat(per...), "%d domains have SPF and DMARC records", len(domains))
}

// outgoing are the addresses that mail leaves from, as far as they can be told: those
// of the name that Postfix gives itself. Behind a relay host they do not matter.
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
		probe = []netip.Addr{netip.MustParseAddr("192.0.2.1")} // shows whether there is a record that can be used
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

// dmarcOf judges the DMARC record that holds for a domain: its own, or that of a
// domain above it.
func (f *Facts) dmarcOf(ctx context.Context, domain string) []Finding {
	fix := fmt.Sprintf("publish: _dmarc.%s. TXT \"v=DMARC1; p=none; rua=mailto:postmaster@%s\"", domain, domain)
	for name := domain; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		texts, err := f.txt(ctx, "_dmarc."+name)
		if err != nil {
			return []Finding{warnf("look at the name servers of "+domain, "%s: its DMARC record cannot be looked up: %v", domain, err)}
		}
		records := 0
		for _, text := range texts {
			if _, ok := dmarc.ParseRecord(text); ok {
				records++
			}
		}
		switch {
		case records > 1:
			return []Finding{failf("leave one of them", "_dmarc.%s has %d DMARC records: receivers use none", name, records)}
		case records == 1:
			return nil
		case slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToUpper(t), "DMARC1") }):
			return []Finding{failf(fix, "_dmarc.%s has a record that is no DMARC record: it must begin with v=DMARC1; and have p=", name)}
		}
	}
	return []Finding{warnf(fix, "%s has no DMARC record", domain)}
}
