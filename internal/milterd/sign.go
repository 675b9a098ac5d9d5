package milterd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/sign"
)

// DefaultKeys is where the daemon and the postern command expect private keys.
const DefaultKeys = "/etc/postern/dkim"

// Bounds of --dkim-expire. Mail may well wait five days in the queue of a relay.
const (
	defaultExpire = 7 * 24 * time.Hour
	maxExpire     = 365 * 24 * time.Hour
)

// signOptions are the settings of the sign role.
type signOptions struct {
	DKIMKeys         string
	DKIMHeaders      []string
	DKIMExpire       time.Duration // 0: signatures have no x=
	DKIMSubdomains   bool
	DKIMRequireDNS   bool
	DKIMKeyTable     string
	DKIMSigningTable string

	headers sign.Headers // DKIMHeaders
}

func (o *Options) bindSign(fs *pflag.FlagSet) {
	fs.StringVar(&o.DKIMKeys, "dkim-keys", DefaultKeys, "`folder` of private keys, <domain>/<selector>.private; \"\" for none. The default one need not exist")
	config.Words(fs, &o.DKIMHeaders, "dkim-headers", sign.DefaultHeaders(), "header fields to sign; with + also against one that is added later")
	config.Duration(fs, &o.DKIMExpire, "dkim-expire", defaultExpire, 0, maxExpire, "how long signatures are valid (x=); 0 for ever")
	fs.BoolVar(&o.DKIMSubdomains, "dkim-subdomains", false, "sign mail of a subdomain that has no key with the keys of its nearest parent")
	fs.BoolVar(&o.DKIMRequireDNS, "dkim-require-dns", false, "watch whether the keys stand in the DNS, warn, and leave out one that the DNS contradicts while another key of its domain verifies")
	fs.StringVar(&o.DKIMKeyTable, "dkim-key-table", "", "OpenDKIM's KeyTable `file`")
	fs.StringVar(&o.DKIMSigningTable, "dkim-signing-table", "", "OpenDKIM's SigningTable `file`; with refile: in front, if it holds patterns")
}

func (o *Options) validateSign(s *config.Set) error {
	var errs []error
	for _, path := range []struct{ flag, value string }{
		{"dkim-keys", o.DKIMKeys},
		{"dkim-key-table", tablePath(o.DKIMKeyTable)},
		{"dkim-signing-table", tablePath(o.DKIMSigningTable)},
	} {
		if path.value != "" && !filepath.IsAbs(path.value) {
			errs = append(errs, s.Errorf(path.flag, "%q is relative: write it from the root, a daemon has no directory of its own", path.value))
		}
	}
	if o.DKIMKeyTable == "" && o.DKIMSigningTable != "" {
		errs = append(errs, s.Errorf("dkim-signing-table", "names keys of a key table: set dkim-key-table too"))
	}
	if o.DKIMKeyTable != "" && o.DKIMSigningTable == "" {
		errs = append(errs, s.Errorf("dkim-key-table", "has keys that a signing table gives to senders: set dkim-signing-table too"))
	}
	var err error
	if o.headers, err = sign.ParseHeaders(o.DKIMHeaders); err != nil {
		errs = append(errs, s.Errorf("dkim-headers", "%w", err))
	}
	return errors.Join(errs...)
}

// tablePath is the file of a table.
func tablePath(table string) string {
	return strings.TrimPrefix(strings.TrimPrefix(table, "refile:"), "file:")
}

// signing is the sign role of one state.
type signing struct {
	signer *sign.Signer
	keys   *sign.Keys
	dns    *keyWatch // nil without --dkim-require-dns
}

func (s *state) buildSign(r service.Runtime) (milter.Handler, error) {
	o := s.settings
	keys, err := s.loadKeys()
	if err != nil {
		return nil, err
	}
	if len(keys.All()) == 0 {
		r.Log.Warn("no DKIM key: no mail is signed; make one with `postern dkim genkey DOMAIN`", zap.String("dkim_keys", o.DKIMKeys))
	}
	expire := o.DKIMExpire
	if expire == 0 {
		expire = -1
	}
	s.signing = &signing{keys: keys, signer: sign.New(sign.Options{
		Headers:    o.headers,
		Expire:     expire,
		Subdomains: o.DKIMSubdomains,
	}, keys)}
	if o.DKIMRequireDNS {
		var before *keyWatch
		if old := o.app.current.Load(); old != nil {
			before = old.signing.dns
		}
		s.signing.dns = newKeyWatch(s.signing.signer, s.resolver, r.Log, before)
		s.whileInForce(s.signing.dns.run)
	}
	return milter.NewSigning(s.signing.signer), nil
}

// loadKeys reads the keys and watches where they came from. Of the key folder
// one watch is enough: it covers the folders of the domains.
func (s *state) loadKeys() (*sign.Keys, error) {
	o := s.settings
	source := sign.KeySource{Dir: o.DKIMKeys, KeyTable: o.DKIMKeyTable, SigningTable: o.DKIMSigningTable, Group: o.group()}
	if o.DKIMKeys != "" {
		s.watch(o.DKIMKeys)
		if o.set.Origin("dkim-keys").Level == config.Default && missing(o.DKIMKeys) {
			source.Dir = ""
		}
	}
	if source.Dir == "" && source.KeyTable == "" {
		return new(sign.Keys), nil
	}
	keys, err := sign.LoadKeys(source)
	if err != nil {
		return nil, o.keyErrors(err)
	}
	if o.DKIMKeyTable != "" {
		s.watch(tablePath(o.DKIMKeyTable), tablePath(o.DKIMSigningTable))
	}
	for _, key := range keys.All() {
		if dir := filepath.Dir(key.Path); filepath.Dir(dir) != filepath.Clean(o.DKIMKeys) {
			s.watch(dir)
		}
	}
	return keys, nil
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// group is the group that the daemon runs with, or will run with.
func (o *Options) group() int {
	if o.User != "" {
		if id, err := daemon.LookupIdentity(o.User); err == nil {
			return id.GID
		}
	}
	return os.Getegid()
}

// keyErrors makes one line of the configuration's form for each problem.
func (s *settings) keyErrors(err error) error {
	flag := "dkim-keys"
	if s.DKIMKeys == "" {
		flag = "dkim-key-table"
	}
	list := []error{err}
	if joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var errs []error
	for _, one := range list {
		errs = append(errs, s.set.Errorf(flag, "%w", one))
	}
	return errors.Join(errs...)
}

// keyCollector shows the keys of the state in force:
//
//	postern_dkim_keys{state}   signing, left_out (see --dkim-require-dns)
type keyCollector struct {
	current *current
	keys    *prometheus.Desc
}

func newKeyCollector(c *current) keyCollector {
	return keyCollector{c, prometheus.NewDesc("postern_dkim_keys", "Private keys, by what is done with them.", []string{"state"}, nil)}
}

// Describe implements prometheus.Collector.
func (c keyCollector) Describe(out chan<- *prometheus.Desc) { out <- c.keys }

// Collect implements prometheus.Collector.
func (c keyCollector) Collect(out chan<- prometheus.Metric) {
	s := c.current.Load()
	if s == nil {
		return
	}
	all, signing := len(s.signing.keys.All()), len(s.signing.signer.Keys().All())
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(signing), "signing")
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(all-signing), "left_out")
}
