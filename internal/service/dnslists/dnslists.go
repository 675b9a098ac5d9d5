// Package dnslists opens the DNS lists of a daemon, with their key, and reports
// the state of their zones.
//
// Both daemons name lists by flags in the syntax of postscreen_dnsbl_sites, and
// read the key of the Spamhaus Data Query Service from a file. Package dnsbl asks
// the lists; the daemon decides what follows from an answer.
//
// Invariants:
//   - the key is in no log, error or metric;
//   - a change of a list's state is logged once, with the fix.
package dnslists

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dns"
)

// ParseSites parses the lists that a flag names, all of one kind. keyed is true
// when there is a key for lists that need one. The error joins all mistakes.
func ParseSites(s *config.Set, flag string, specs []string, kind dnsbl.Kind, keyed bool) ([]dnsbl.Site, error) {
	var sites []dnsbl.Site
	var errs []error
	for i, spec := range specs {
		site, err := dnsbl.ParseSite(spec)
		if err == nil {
			err = site.Check(kind, keyed)
		}
		if err != nil {
			errs = append(errs, s.ErrorfAt(flag, i, "%w", err))
			continue
		}
		sites = append(sites, site)
	}
	return sites, errors.Join(errs...)
}

// SelfTestFlag is the flag for how lists are tested, with its help. Both daemons
// have it.
const (
	SelfTestFlag = "dnsbl-selftest"
	SelfTestHelp = "`ZONE=ENTRY,ENTRY` names entries that a list always holds, if the list does not follow RFC 5782; ZONE=off does not test it; repeat for several"
)

// ParseSelfTests parses the values of SelfTestFlag for the lists of sites.
func ParseSelfTests(s *config.Set, specs []string, sites ...[]dnsbl.Site) (map[string]dnsbl.SelfTest, error) {
	tests := map[string]dnsbl.SelfTest{}
	var errs []error
	for i, spec := range specs {
		zone, t, err := dnsbl.ParseSelfTest(spec)
		switch {
		case err != nil:
			errs = append(errs, s.ErrorfAt(SelfTestFlag, i, "%w", err))
			continue
		case !dnsbl.HasZone(slices.Concat(sites...), zone):
			errs = append(errs, s.ErrorfAt(SelfTestFlag, i, "%s is none of the lists that are asked; correct the name, or take this out", zone))
			continue
		}
		tests[zone] = t
	}
	return tests, errors.Join(errs...)
}

// Settings are the settings of the lists. A new field must be part of the type
// key too.
type Settings struct {
	Addresses, Names []dnsbl.Site
	Threshold        int
	Signals          bool
	SelfTests        map[string]dnsbl.SelfTest
	KeyFile          string // "" for none
	DNS              dnsbl.DNS
	DNSKey           dns.Key // of the resolver that DNS asks
}

// key identifies lists by their settings.
type key struct {
	addresses, names string
	selfTests        string
	threshold        int
	signals          bool
	secret           [sha256.Size]byte
	resolver         dns.Key
}

// Open returns the lists for a state: those in force when their settings have not
// changed, so that the known health of their zones is kept. Zones are tested in
// the background while a state with the lists is in force. The error names the
// flag.
func (o Settings) Open(l *service.Life, set *config.Set, log *zap.Logger) (*dnsbl.Lists, error) {
	c := dnsbl.Config{
		DNS: o.DNS, Addresses: o.Addresses, Names: o.Names, Threshold: o.Threshold,
		Signals: o.Signals, SelfTests: o.SelfTests, Await: true, Report: report(log),
	}
	k := key{
		addresses: fmt.Sprint(o.Addresses), names: fmt.Sprint(o.Names),
		threshold: o.Threshold, signals: o.Signals, selfTests: fmt.Sprint(o.SelfTests), resolver: o.DNSKey,
	}
	if o.KeyFile != "" {
		secret, err := readKey(o.KeyFile, l)
		if err != nil && set.CredentialHidden(o.KeyFile, os.Getenv("CREDENTIALS_DIRECTORY")) {
			secret, err = config.NewSecret(strings.Repeat("x", 26)), nil // it has the form of a key
		}
		if err != nil {
			return nil, set.Errorf("dqs-key-file", "%w", err)
		}
		c.Key, k.secret = secret, sha256.Sum256([]byte(secret.Reveal()))
	}
	lists, err := service.Keep(l, k, func() (service.Opened[*dnsbl.Lists], error) {
		made, err := dnsbl.New(c)
		if err != nil {
			return service.Opened[*dnsbl.Lists]{}, err
		}
		return service.Opened[*dnsbl.Lists]{Value: made, Work: made.Run}, nil
	})
	if err != nil {
		return nil, set.Errorf("dnsbl", "%w", err)
	}
	return lists, nil
}

// readKey reads the key in a file, which is watched; a bare name is a systemd
// credential.
func readKey(name string, l *service.Life) (config.Secret, error) {
	credentials := os.Getenv("CREDENTIALS_DIRECTORY")
	path, err := config.SecretPath(name, credentials)
	if err != nil {
		return config.Secret{}, err
	}
	l.Watch(path)
	key, err := config.SecretFile(name, credentials)
	if err != nil {
		return config.Secret{}, err
	}
	if err := dnsbl.CheckKey(key); err != nil {
		return config.Secret{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// report returns a function for dnsbl.Config's Report, which logs each change of
// a zone's state once.
func report(log *zap.Logger) func(dnsbl.Change) {
	logs := map[string]*logging.StateLog{} // used only by the goroutine of Run
	return func(c dnsbl.Change) {
		kind := zap.String("kind", c.Kind.String())
		name := c.Zone + " " + c.Kind.String() // one zone may be a list of both kinds
		if logs[name] == nil {
			logs[name] = logging.NewStateLog(log, "DNS list "+c.Zone, Word(c.Before))
		}
		if c.Problem == dnsbl.Healthy {
			logs[name].Report(zapcore.InfoLevel, Word(c.Problem), kind)
			return
		}
		logs[name].Report(zapcore.ErrorLevel, Word(c.Problem), kind, zap.String("error", c.Cause), zap.String("fix", c.Problem.Fix()))
	}
}

// Healthy is the state of a zone that has no problem.
const Healthy = "in service"

// Word returns the state of a zone in words.
func Word(p dnsbl.Problem) string {
	if p == dnsbl.Healthy {
		return Healthy
	}
	return string(p)
}

// Collector collects the state of zones:
//
//	postern_dnsbl_zone_up{zone,kind}   1 in service, 0 while its breaker is open
type Collector struct {
	zones func() []dnsbl.Status
	up    *prometheus.Desc
}

// NewCollector returns a Collector of the zones that the function zones returns
// at each scrape.
func NewCollector(zones func() []dnsbl.Status) Collector {
	return Collector{zones, prometheus.NewDesc("postern_dnsbl_zone_up",
		"1 while the DNS list is in service, 0 while its breaker is open.", []string{"zone", "kind"}, nil)}
}

// Describe implements prometheus.Collector.
func (c Collector) Describe(ch chan<- *prometheus.Desc) { ch <- c.up }

// Collect implements prometheus.Collector.
func (c Collector) Collect(ch chan<- prometheus.Metric) {
	for _, z := range c.zones() {
		up := 0.0
		if z.Problem == dnsbl.Healthy {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, z.Zone, z.Kind.String())
	}
}
