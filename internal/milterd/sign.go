package milterd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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

// signPart is the room of the sign role.
type signPart struct {
	DKIMKeys         string
	DKIMHeaders      []string
	DKIMExpire       time.Duration // 0: signatures have no x=
	DKIMSubdomains   bool
	DKIMRequireDNS   bool
	DKIMKeyTable     string
	DKIMSigningTable string

	headers sign.Headers // DKIMHeaders
	signer  *sign.Signer
	keys    *sign.Keys
	watch   *keyWatch // nil without --dkim-require-dns
}

func (o *signPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.DKIMKeys, "dkim-keys", DefaultKeys, "`folder` of private keys, <domain>/<selector>.private; \"\" for none. The default one need not exist")
	config.Words(fs, &o.DKIMHeaders, "dkim-headers", sign.DefaultHeaders(), "header `fields` to sign; with + also against one that is added later, with ? only if the mail has one")
	config.Duration(fs, &o.DKIMExpire, "dkim-expire", defaultExpire, 0, maxExpire, "how long signatures are valid (x=); 0 for ever")
	fs.BoolVar(&o.DKIMSubdomains, "dkim-subdomains", false, "sign mail of a subdomain that has no key with the keys of its nearest parent")
	fs.BoolVar(&o.DKIMRequireDNS, "dkim-require-dns", false, "watch whether the keys stand in the DNS, warn, and leave out one that the DNS contradicts while another key of its domain verifies")
	fs.StringVar(&o.DKIMKeyTable, "dkim-key-table", "", "OpenDKIM's KeyTable `file`")
	fs.StringVar(&o.DKIMSigningTable, "dkim-signing-table", "", "OpenDKIM's SigningTable `file`; with refile: in front, if it holds patterns")
}

func (o *signPart) validate(s *config.Set) error {
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

func (o *signPart) build(n *needs) error {
	var err error
	if o.keys, err = o.loadKeys(n); err != nil {
		return err
	}
	n.keys = o.keys
	if len(o.keys.All()) == 0 {
		n.Log.Warn("no DKIM key: no mail is signed; make one with `postern dkim genkey DOMAIN`", zap.String("dkim_keys", o.DKIMKeys))
	}
	expire := o.DKIMExpire
	if expire == 0 {
		expire = -1
	}
	o.signer = sign.New(sign.Options{
		Headers:    o.headers,
		Expire:     expire,
		Subdomains: o.DKIMSubdomains,
	}, o.keys)
	n.milter.Sign = milter.NewSigning(o.signer)
	if o.DKIMRequireDNS {
		return o.watchKeys(n)
	}
	return nil
}

// lastWatch is the latest watch over keys that was in force.
type lastWatch struct{ atomic.Pointer[keyWatch] }

// watchKeys has the keys watched in the DNS, from what the watch before knew.
func (o *signPart) watchKeys(n *needs) error {
	last, err := service.Keep(n.life, lastWatchKey{}, func() (service.Opened[*lastWatch], error) {
		return service.Opened[*lastWatch]{Value: new(lastWatch)}, nil
	})
	if err != nil {
		return err
	}
	o.watch = newKeyWatch(o.signer, n.asks, n.Log, last.Load())
	n.life.OnBegin(func() { last.Store(o.watch) })
	n.life.Background(o.watch.run)
	return nil
}

type lastWatchKey struct{}

// loadKeys reads the keys and watches where they came from. Of the key folder
// one watch is enough: it covers the folders of the domains.
func (o *signPart) loadKeys(n *needs) (*sign.Keys, error) {
	source := sign.KeySource{Dir: o.DKIMKeys, KeyTable: o.DKIMKeyTable, SigningTable: o.DKIMSigningTable, Group: n.options.group()}
	if o.DKIMKeys != "" {
		n.life.Watch(o.DKIMKeys)
		if n.set.Origin("dkim-keys").Level == config.Default && missing(o.DKIMKeys) {
			source.Dir = ""
		}
	}
	if source.Dir == "" && source.KeyTable == "" {
		return new(sign.Keys), nil
	}
	keys, err := sign.LoadKeys(source)
	if err != nil {
		return nil, o.keyErrors(n.set, err)
	}
	if o.DKIMKeyTable != "" {
		n.life.Watch(tablePath(o.DKIMKeyTable), tablePath(o.DKIMSigningTable))
	}
	for _, key := range keys.All() {
		if dir := filepath.Dir(key.Path); filepath.Dir(dir) != filepath.Clean(o.DKIMKeys) {
			n.life.Watch(dir)
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
func (o *signPart) keyErrors(set *config.Set, err error) error {
	flag := "dkim-keys"
	if o.DKIMKeys == "" {
		flag = "dkim-key-table"
	}
	list := []error{err}
	if joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	var errs []error
	for _, one := range list {
		errs = append(errs, set.Errorf(flag, "%w", one))
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

func signMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{
		keyCollector{c, prometheus.NewDesc("postern_dkim_keys", "Private keys, by what is done with them.", []string{"state"}, nil)},
	}
}

// Describe implements prometheus.Collector.
func (c keyCollector) Describe(out chan<- *prometheus.Desc) { out <- c.keys }

// Collect implements prometheus.Collector.
func (c keyCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*signPart](c.current)
	if release == nil {
		return
	}
	defer release()
	all, signing := len(o.keys.All()), len(o.signer.Keys().All())
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(signing), "signing")
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(all-signing), "left_out")
}
