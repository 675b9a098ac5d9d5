package policyd

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// The default lists. Their filters exclude abused legitimate domains and all error
// codes.
const (
	defaultDNSBL = "zen.spamhaus.org=127.0.0.[2..11;30]*1"
	defaultDBL   = "dbl.spamhaus.org=127.0.1.[2..99]*1"
)

// maxThreshold bounds --dnsbl-threshold.
const maxThreshold = 100_000

// dnsblPart is the part for the dnsbl check.
type dnsblPart struct {
	DNSBL                []string
	DBL                  []string
	DBLNames             []string
	DNSBLThreshold       int
	DNSBLSelfTest        []string
	DQSKeyFile           string
	DNSBLOnError         string
	DNSBLReply           string
	DNSBLAllowClients    string
	DNSBLAllowRecipients string

	addresses, names []dnsbl.Site // DNSBL and DBL after validation
	selfTests        map[string]dnsbl.SelfTest
	reply            checks.Template

	lists    *dnsbl.Lists // this and the following fields are set by build
	made     *checks.DNSBL
	shadowed bool
}

func (o *dnsblPart) bind(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.DNSBL, "dnsbl", []string{defaultDNSBL}, "`list` of addresses, for the client, as in postscreen_dnsbl_sites: domain=filter*weight; repeat for several")
	fs.StringArrayVar(&o.DBL, "dbl", []string{defaultDBL}, "`list` of domains, for the names of dbl-names, written as those of dnsbl")
	config.Words(fs, &o.DBLNames, "dbl-names", checks.DNSBLNames(), "the names that lists of domains are asked about", checks.DNSBLNames()...)
	config.Int(fs, &o.DNSBLThreshold, "dnsbl-threshold", 1, 1, maxThreshold, "mail is refused when the sum of weights reaches this")
	fs.StringArrayVar(&o.DNSBLSelfTest, dnslists.SelfTestFlag, nil, dnslists.SelfTestHelp)
	fs.StringVar(&o.DQSKeyFile, "dqs-key-file", "", "`file` with the key of the Spamhaus Data Query Service; a bare name is a systemd credential")
	config.Choice(fs, &o.DNSBLOnError, "dnsbl-on-error", "what happens while the lists do not answer", wordPass, wordDefer)
	fs.StringVar(&o.DNSBLReply, "dnsbl-reply", checks.DefaultDNSBLReply, "`text` of a refusal; {what} {zone} {meaning} {text} {score} are filled in")
	fs.StringVar(&o.DNSBLAllowClients, "dnsbl-allow-clients", "", "`file` of addresses, networks and names that are not looked up")
	fs.StringVar(&o.DNSBLAllowRecipients, "dnsbl-allow-recipients", "", "`file` of recipients that take mail from listed clients, beside postmaster and abuse")
}

func (o *dnsblPart) validate(s *config.Set) error {
	var errs []error
	var err error
	keyed := o.DQSKeyFile != ""
	o.addresses, err = dnslists.ParseSites(s, "dnsbl", o.DNSBL, dnsbl.KindAddress, keyed)
	errs = append(errs, err)
	o.names, err = dnslists.ParseSites(s, "dbl", o.DBL, dnsbl.KindName, keyed)
	errs = append(errs, err)
	o.selfTests, err = dnslists.ParseSelfTests(s, o.DNSBLSelfTest, o.addresses, o.names)
	errs = append(errs, err)
	if len(o.DNSBL)+len(o.DBL) == 0 {
		errs = append(errs, s.Errorf("dnsbl", "the dnsbl check has no list: set dnsbl or dbl, or take dnsbl out of checks"))
	}
	if o.reply, err = checks.ParseTemplate(o.DNSBLReply); err != nil {
		errs = append(errs, s.Errorf("dnsbl-reply", "%w", err))
	}
	return errors.Join(errs...)
}

func (o *dnsblPart) build(n *needs) (policy.Entry, error) {
	dns, err := n.resolver()
	if err != nil {
		return policy.Entry{}, err
	}
	o.lists, err = dnslists.Settings{
		Addresses: o.addresses,
		Names:     o.names,
		Threshold: o.DNSBLThreshold,
		Signals:   n.options.runs(checks.GreylistName),
		SelfTests: o.selfTests,
		KeyFile:   o.DQSKeyFile,
		DNS:       dns.Resolver,
		DNSKey:    dns.Key,
	}.Open(n.life, n.set, n.Log)
	if err != nil {
		return policy.Entry{}, err
	}
	check := &checks.DNSBL{Lists: o.lists, Names: o.DBLNames, Reply: o.reply, Relays: n.options.Relays, Delimiters: n.delimiters()}
	if name := o.DNSBLAllowClients; name != "" {
		n.life.Watch(name)
		read := func() (*allowlist.Clients, error) { return allowlist.ReadClients(name) }
		if check.AllowClients, err = lastgood.List(n.life, n.Runtime, "dnsbl-allow-clients", []string{name}, read); err != nil {
			return policy.Entry{}, n.set.Errorf("dnsbl-allow-clients", "%w", err)
		}
	}
	if name := o.DNSBLAllowRecipients; name != "" {
		n.life.Watch(name)
		read := func() (*allowlist.Recipients, error) { return allowlist.ReadRecipients(name) }
		if check.AllowRecipients, err = lastgood.List(n.life, n.Runtime, "dnsbl-allow-recipients", []string{name}, read); err != nil {
			return policy.Entry{}, n.set.Errorf("dnsbl-allow-recipients", "%w", err)
		}
	}
	o.made, o.shadowed = check, n.options.shadowed(checks.DNSBLName)
	return policy.Entry{Check: check, OnError: onError(o.DNSBLOnError), ErrorReason: record.DNSBLUnavailable}, nil
}

func dnsblMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{dnslists.NewCollector(func() []dnsbl.Status {
		o, release := inForce[*dnsblPart](c)
		if release == nil {
			return nil
		}
		defer release()
		return o.lists.Status()
	})}
}
