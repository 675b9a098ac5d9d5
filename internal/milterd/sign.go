package milterd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/rsaengine"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/milter/sign"
)

// signPart is the part for the sign role.
type signPart struct {
	DKIMKeys         string
	DKIMHeaders      []string
	DKIMExpire       time.Duration // 0: signatures have no x=
	DKIMSubdomains   bool
	DKIMRequireDNS   bool
	DKIMSelfCheck    bool
	DKIMKeyTable     string
	DKIMSigningTable string
	RSAEngine        string
	dkimTables

	folder  string       // DKIMKeys as a path; the folder of all credentials if it is one
	headers sign.Headers // DKIMHeaders
	signer  *sign.Signer
	lookups *sign.Tables // may be nil
	keys    *sign.Keys
	unused  []error   // the first reasons why files, folders and lines are not used
	watch   *keyWatch // nil without --dkim-require-dns
	engine  *rsaengine.Engine

	rotation rotateFlags
}

func (o *signPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.DKIMKeys, "dkim-keys", api.DKIMKeysFolder, "`folder` of private keys, <domain>/<selector>.private; a name without a slash is a credential of systemd's, \"\" for none. The default one need not exist")
	config.Words(fs, &o.DKIMHeaders, "dkim-headers", sign.DefaultHeaders(), "header `fields` to sign; with + also against one that is added later, with ? only if the mail has one")
	config.Duration(fs, &o.DKIMExpire, "dkim-expire", sign.DefaultExpire, 0, sign.MaxExpire, "how long signatures are valid (x=); 0 for ever")
	fs.BoolVar(&o.DKIMSubdomains, "dkim-subdomains", false, "sign mail of a subdomain that has no key with the keys of its nearest parent")
	fs.BoolVar(&o.DKIMRequireDNS, "dkim-require-dns", false, "watch whether the keys are in the DNS, warn, and leave out one that the DNS contradicts while another key of its domain verifies")
	fs.BoolVar(&o.DKIMSelfCheck, "dkim-selfcheck", false, "verify every signature before the mail leaves, with the public half of its key; count and log those that do not verify")
	fs.StringVar(&o.DKIMKeyTable, "dkim-key-table", "", "OpenDKIM's KeyTable `file`, or a Postfix table of keys, type:name")
	fs.StringVar(&o.DKIMSigningTable, "dkim-signing-table", "", "OpenDKIM's SigningTable `file`, with refile: in front, if it holds patterns; or a Postfix table that names keys for a sender, type:name")
	o.dkimTables.bind(fs)
	config.Choice(fs, &o.RSAEngine, flagRSAEngine, "what makes RSA signatures; auto is OpenSSL's libcrypto in a program that is built with it, which takes a third to a half of the CPU time", rsaengine.Auto, rsaengine.Go, rsaengine.OpenSSL)
	o.rotation.bind(fs)
}

func (o *signPart) validate(s *config.Set) error {
	var errs []error
	folder, err := secretPath(o.DKIMKeys)
	if err != nil {
		errs = append(errs, s.Errorf("dkim-keys", "%w", err))
	}
	if o.folder = folder; isCredential(o.DKIMKeys) {
		o.folder = filepath.Dir(folder)
	}
	errs = append(errs, o.validateTables(s))
	for _, table := range o.keyTables() {
		set, err := sign.ParseDataSet(o.openDKIM(table.spec))
		if err != nil {
			errs = append(errs, s.Errorf(table.flag, "%w", err))
		}
		if set.Path != "" && !filepath.IsAbs(set.Path) {
			errs = append(errs, s.Errorf(table.flag, "%q is relative: write it from the root, a daemon has no directory of its own", set.Path))
		}
	}
	if o.DKIMKeyTable == "" && o.DKIMSigningTable != "" {
		errs = append(errs, s.Errorf("dkim-signing-table", "names keys of a key table: set dkim-key-table too"))
	}
	if o.openDKIM(o.DKIMKeyTable) != "" && o.DKIMSigningTable == "" {
		errs = append(errs, s.Errorf("dkim-key-table", "has keys that a signing table gives to senders: set dkim-signing-table too"))
	}
	if o.headers, err = sign.ParseHeaders(o.DKIMHeaders); err != nil {
		errs = append(errs, s.Errorf("dkim-headers", "%w", err))
	}
	errs = append(errs, o.rotation.validate(s, o))
	return errors.Join(errs...)
}

func (o *signPart) findIdle(i *idleSettings) {
	i.addFlags(!i.signs, fixSigns, "dkim-headers", "dkim-expire", "dkim-options-table", "dkim-selfcheck", flagRSAEngine)
	i.addFlags(!isPostfixTable(o.DKIMKeyTable) && o.DKIMOptionsTable == "", "no table of Postfix's kind is asked; name one, type:name, or remove this", "dkim-table-timeout", "dkim-table-cache-ttl", "dkim-table-cache-size")
	switch {
	case !o.DKIMSubdomains:
	case !i.signs:
		i.addFlags(true, fixSigns, "dkim-subdomains")
	default:
		i.addFlags(o.DKIMKeys == "" && !isPostfixTable(o.DKIMKeyTable), "it is about the keys of --dkim-keys, which is not set; set it, or write *@.DOMAIN into the signing table and remove this", "dkim-subdomains")
	}
}

func (o *signPart) build(n *needs) error {
	err := o.openEngine(n)
	if err != nil {
		return err
	}
	if o.keys, err = o.loadKeys(n); err != nil {
		return err
	}
	n.keys = o.keys
	tables, err := o.openTables(n)
	if err != nil {
		return err
	}
	o.lookups = tables
	if o.keys.Empty() && !isPostfixTable(o.DKIMKeyTable) {
		n.Log.Warn("no DKIM key: no mail is signed; make one with `postern dkim genkey DOMAIN`", zap.String("dkim_keys", o.DKIMKeys))
	}
	if o.openDKIM(o.DKIMKeyTable) != "" && !n.options.signsLoopback() {
		n.Log.Warn("opendkim signs mail from 127.0.0.1 by default, postern-milterd does not: programs that speak SMTP to this host have to log in or need a service of their own; see \"Local applications\" in milter/SIGNING.md")
	}
	expire := o.DKIMExpire
	if expire == 0 {
		expire = -1
	}
	observe, err := countSigned(n)
	if err != nil {
		return err
	}
	o.signer = sign.New(sign.Options{
		Observe:    observe,
		SelfCheck:  o.DKIMSelfCheck,
		Headers:    o.headers,
		Expire:     expire,
		Subdomains: o.DKIMSubdomains,
		Tables:     tables,
	}, o.keys)
	n.signer = o.signer
	if err := o.rotation.build(n, o); err != nil {
		return err
	}
	if o.DKIMRequireDNS {
		return o.watchKeys(n)
	}
	return nil
}

func (*signPart) without() string {
	return "the keys cannot be read, so that no domain counts as our own"
}

// lastWatch is the latest watch that was in force.
type lastWatch struct{ atomic.Pointer[keyWatch] }

// watchKeys starts to watch the keys in the DNS, with what the watch before knew.
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

// loadKeys reads the keys and watches their files for changes. One watch of the key
// folder is enough: it includes the folders of the domains.
func (o *signPart) loadKeys(n *needs) (*sign.Keys, error) {
	last, err := service.Keep(n.life, lastKeysKey{o.DKIMKeys, o.openDKIM(o.DKIMKeyTable), o.openDKIM(o.DKIMSigningTable)}, func() (service.Opened[*lastKeys], error) {
		return service.Opened[*lastKeys]{Value: new(lastKeys)}, nil
	})
	if err != nil {
		return nil, err
	}
	source := sign.KeySource{Dir: o.folder, KeyTable: o.openDKIM(o.DKIMKeyTable), SigningTable: o.openDKIM(o.DKIMSigningTable), Group: n.options.group(), Before: last.Load(), RSA: o.engine.Signer}
	switch {
	case hidden(n.set, o.DKIMKeys):
		source.Dir = ""
	case isCredential(o.DKIMKeys):
		source.Credential = o.DKIMKeys
	case o.DKIMKeys != "":
		n.life.Watch(o.DKIMKeys)
		if n.set.Origin("dkim-keys").Level == config.Default && missing(o.DKIMKeys) {
			source.Dir = ""
		}
	}
	if source.Dir == "" && source.KeyTable == "" {
		return new(sign.Keys), nil
	}
	source.Tables = o.tables(n)
	keys, err := sign.LoadKeys(source)
	if err != nil && (keys == nil || n.set.CheckOnly()) {
		return nil, o.keyErrors(n.set, err)
	}
	n.life.OnBegin(func() { last.Store(keys) })
	o.report(n, keys, err)
	o.watchFiles(n.life, keys)
	return keys, nil
}

// tables returns the tables that are files. A table in force is kept while the new text
// of its file cannot replace it. LoadKeys reports what cannot be read.
func (o *signPart) tables(n *needs) (tables []*sign.Table) {
	for _, path := range o.tableFiles() {
		table, err := lastgood.Keep(n.life, n.Runtime, tableKey{path}, lastgood.Reader[*sign.Table]{
			Name:  path,
			Open:  func() (*sign.Table, error) { return sign.ReadTable(path) },
			Files: func(*sign.Table) []string { return []string{path} },
			Len:   (*sign.Table).Len,
		})
		if err == nil {
			tables = append(tables, table)
		}
	}
	return tables
}

// tableFiles returns the paths of the tables that are files.
func (o *signPart) tableFiles() (paths []string) {
	for _, text := range []string{o.openDKIM(o.DKIMKeyTable), o.openDKIM(o.DKIMSigningTable)} {
		if set, err := sign.ParseDataSet(text); err == nil && set.Path != "" {
			paths = append(paths, set.Path)
		}
	}
	return paths
}

// tableKey is the key of one of OpenDKIM's tables.
type tableKey struct{ path string }

// lastKeys are the latest keys that were in force.
type lastKeys struct{ atomic.Pointer[sign.Keys] }

// lastKeysKey is where the keys were read from.
type lastKeysKey struct{ dir, keyTable, signingTable string }

// report logs keys and lines that could not be used. Mail of their domains is not
// signed with them.
func (o *signPart) report(n *needs, keys *sign.Keys, err error) {
	o.unused = problems(err)
	for _, problem := range o.unused {
		n.Log.Error("DKIM key cannot be used: mail of its domain leaves without this signature, or is signed with the key of before; fix it, the daemon notices",
			zap.Error(problem), zap.Int("problems", keys.Problems()))
	}
	for _, text := range keys.Warnings() {
		n.Log.Warn("line of a DKIM table has no effect", zap.String("line", text))
	}
}

func (o *signPart) watchFiles(l *service.Life, keys *sign.Keys) {
	for _, path := range o.tableFiles() {
		l.Watch(path)
	}
	root := filepath.Clean(o.folder)
	for _, dir := range keys.Dirs() {
		if dir != root && filepath.Dir(dir) != root {
			l.Watch(dir)
		}
	}
}

func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// group returns the group with which the daemon runs, or will run.
func (o *Options) group() int {
	if o.User != "" {
		if id, err := daemon.LookupIdentity(o.User); err == nil {
			return id.GID
		}
	}
	return os.Getegid()
}

// keyErrors makes one configuration error for each problem.
func (o *signPart) keyErrors(set *config.Set, err error) error {
	flag := "dkim-keys"
	if o.DKIMKeys == "" {
		flag = "dkim-key-table"
	}
	var errs []error
	for _, one := range problems(err) {
		errs = append(errs, set.Errorf(flag, "%w", one))
	}
	return errors.Join(errs...)
}

// problems returns the errors that LoadKeys has joined.
func problems(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := errors.Unwrap(err).(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// keyCollector shows the keys of the state in force:
//
//	postern_dkim_keys{state}   signing, left_out (see --dkim-require-dns)
//	postern_dkim_key_problems  files, folders and lines that cannot be used
type keyCollector struct {
	current        *current
	keys, problems *prometheus.Desc
}

func signMetrics(c *current) []prometheus.Collector {
	return []prometheus.Collector{
		newPublishedCollector(c),
		keyCollector{
			c,
			prometheus.NewDesc("postern_dkim_keys", "Private keys, by what is done with them.", []string{"state"}, nil),
			prometheus.NewDesc("postern_dkim_key_problems", "Key files, folders and table lines that cannot be used.", nil, nil),
		},
		newEngineCollector(c),
		newRotateCollector(c),
	}
}

// Describe implements prometheus.Collector.
func (c keyCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.keys
	out <- c.problems
}

// Collect implements prometheus.Collector.
func (c keyCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*signPart](c.current)
	if release == nil {
		return
	}
	defer release()
	all, signing := len(o.keys.Signing()), len(o.signer.Keys().Signing())
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(signing), "signing")
	out <- prometheus.MustNewConstMetric(c.keys, prometheus.GaugeValue, float64(all-signing), "left_out")
	out <- prometheus.MustNewConstMetric(c.problems, prometheus.GaugeValue, float64(o.keys.Problems()))
}
