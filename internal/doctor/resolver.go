package doctor

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/policy/checks"
)

// Limits on DNS queries.
const (
	maxDomains = 200
	maxAsked   = 8 // at the same time
)

// checkResolver asks each server on its own.
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

// asksLists reports whether policyd asks DNS lists about any mail.
func (f *Facts) asksLists() bool {
	return slices.Contains(f.Policyd.list("checks"), checks.DNSBLName) && (f.attached(checks.DNSBLName) || f.Policyd.wanted())
}

// checkLists tests every list. The daemon does the test if it runs; otherwise the
// command does the same.
func checkLists(ctx context.Context, f *Facts) []Finding {
	if f.Policyd.SettingsErr != nil {
		return nil // checkSettings reports why the settings are not known
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
		if z.Fix != "" {
			found = append(found, failf(z.Fix, "%s: %s %s", z.Zone, z.State, z.Cause))
		}
	}
	key := "without a key"
	if f.Policyd.text("dqs-key-file") != "" {
		key = "with the key of dqs-key-file"
	}
	return orOK(found, "%d lists answer their test points, %s", len(result.Zones), key)
}

// txt returns the TXT records of a name. Having none is not an error.
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

// each calls f for every number below n, some at the same time.
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
