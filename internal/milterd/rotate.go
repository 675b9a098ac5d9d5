package milterd

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/internal/rotate"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// Values of --dkim-rotate-lead. The URL of a Redis is the third possibility.
const (
	leadYes = "yes"
	leadNo  = "no"
)

// Bounds of --dkim-rotate. The least one catches "90m" where 90 days were meant.
const (
	minRotate = 7 * 24 * time.Hour
	maxRotate = 365 * 24 * time.Hour
)

// rotateFlags are the flags for replacing keys by new ones. They belong to the sign
// part, which has the keys.
type rotateFlags struct {
	DKIMRotate             time.Duration // 0: never
	DKIMRotateLead         string
	DKIMRotatePasswordFile string
	DKIMRotateServers      []string
	DNSUpdate              string
	DNSCommand             string

	servers      []netip.AddrPort // DKIMRotateServers
	updateKey    string           // of DNSUpdate
	updateServer netip.AddrPort
	running      *rotation // nil if this daemon rotates nothing
}

func (f *rotateFlags) bind(fs *pflag.FlagSet) {
	config.Duration(fs, &f.DKIMRotate, "dkim-rotate", 0, 0, maxRotate, "`age` at which the keys in --dkim-keys are replaced by new ones, as 90d; 0 for never")
	fs.StringVar(&f.DKIMRotateLead, "dkim-rotate-lead", leadYes, "whether this `host` is the one that rotates: yes, no, or the URL of a Redis in which the hosts agree on one")
	fs.StringVar(&f.DKIMRotatePasswordFile, "dkim-rotate-password-file", "", "`file` with the password of this Redis; a bare name is a systemd credential")
	fs.StringArrayVar(&f.DKIMRotateServers, "dkim-rotate-servers", nil, "name `server` that is asked whether a record is published, as 192.0.2.53; repeat for several (default all that are responsible for the name)")
	fs.StringVar(&f.DNSUpdate, "dns-update", "", "publish records by dynamic updates: `tsig:KEYFILE@SERVER`, with a key as tsig-keygen prints it")
	fs.StringVar(&f.DNSCommand, "dns-command", "", "`program` that publishes a record, which it gets as JSON on its standard input")
}

func (f *rotateFlags) validate(s *config.Set, o *signPart) error {
	var errs []error
	if f.DKIMRotate != 0 && f.DKIMRotate < minRotate {
		errs = append(errs, s.Errorf("dkim-rotate", "%s is too short; a rotation takes four weeks, 90d is usual", config.FormatDuration(f.DKIMRotate)))
	}
	if f.DKIMRotate != 0 && (o.DKIMKeys == "" || isCredential(o.DKIMKeys)) {
		errs = append(errs, s.Errorf("dkim-rotate", "needs a folder of keys that the daemon may write; set dkim-keys to a path"))
	}
	if f.DKIMRotate != 0 && o.DKIMKeyTable != "" {
		errs = append(errs, s.Errorf("dkim-rotate", "moves the files that a key table names; remove dkim-key-table, or rotate its keys by hand"))
	}
	if url := f.DKIMRotateLead; url != leadYes && url != leadNo {
		if err := redisclient.CheckURL(url); err != nil {
			errs = append(errs, s.Errorf("dkim-rotate-lead", "%q is neither yes nor no nor the URL of a Redis: %w", url, err))
		}
	} else if f.DKIMRotatePasswordFile != "" {
		errs = append(errs, s.Errorf("dkim-rotate-password-file", "is for Redis; remove it, or name a Redis in dkim-rotate-lead"))
	}
	for i, text := range f.DKIMRotateServers {
		server, err := rotate.ParseServer(text)
		if err != nil {
			errs = append(errs, s.ErrorfAt("dkim-rotate-servers", i, "%w", err))
		}
		f.servers = append(f.servers, server)
	}
	if f.DNSUpdate != "" && f.DNSCommand != "" {
		errs = append(errs, s.Errorf("dns-command", "there is dns-update already; remove one of them"))
	}
	if f.DNSUpdate != "" {
		var err error
		if f.updateKey, f.updateServer, err = rotate.ParseUpdate(f.DNSUpdate); err != nil {
			errs = append(errs, s.Errorf("dns-update", "%w", err))
		}
	}
	if f.DNSCommand != "" && !filepath.IsAbs(f.DNSCommand) {
		errs = append(errs, s.Errorf("dns-command", "%q is relative; write it from the root, without arguments", f.DNSCommand))
	}
	return errors.Join(errs...)
}

// publisher is a publisher that a rotation can ask before it begins.
type publisher interface {
	rotate.Publisher
	// Check returns why no record can be published now, or nil.
	Check() error
}

// publisher returns the publisher that is set, or nil when a person publishes.
func (f *rotateFlags) publisher(group int) publisher {
	switch {
	case f.DNSUpdate != "":
		return &updater{f.updateKey, f.updateServer, group}
	case f.DNSCommand != "":
		return &rotate.Command{Path: f.DNSCommand}
	}
	return nil
}

// ready returns why p cannot publish now.
func (f *rotateFlags) ready(s *config.Set, p publisher) error {
	if p == nil {
		return nil
	}
	err := p.Check()
	if err == nil {
		return nil
	}
	flag := "dns-command"
	if f.DNSUpdate != "" {
		flag = "dns-update"
	}
	return s.Errorf(flag, "%w", err)
}

// updater reads the TSIG key again for each change, so that a new key needs no restart.
type updater struct {
	file   string
	server netip.AddrPort
	group  int
}

// Check implements [publisher].
func (u *updater) Check() error {
	_, err := u.open()
	return err
}

func (u *updater) open() (*rotate.Update, error) { return rotate.OpenUpdate(u.file, u.server, u.group) }

// Change implements [rotate.Publisher].
func (u *updater) Change(ctx context.Context, c rotate.Change) error {
	update, err := u.open()
	if err != nil {
		return err
	}
	return update.Change(ctx, c)
}

// rotateKey is the settings from which a rotation is made.
type rotateKey struct {
	dir, lead, servers, update, command string
	password                            [sha256.Size]byte
	every, expire                       time.Duration
	dns                                 any
}

// build starts the rotation in the background. It continues over reloads, because each
// step changes the key folder, which causes a reload.
func (f *rotateFlags) build(n *needs, o *signPart) error {
	publisher := f.publisher(n.options.group())
	ready := func() error { return f.ready(n.set, publisher) }
	if err := f.without(n, ready()); err != nil || f.DKIMRotateLead == leadNo {
		return err
	}
	if f.DKIMRotate == 0 {
		return f.onlyAnnounce(n)
	}
	password, unread := f.password(n.set, n.life.Watch)
	if err := f.without(n, unread); err != nil {
		return err
	}
	if n.readOnly {
		lead, err := f.lead(n.set, password)
		return errors.Join(err, lead.close())
	}
	key := rotateKey{
		o.folder, f.DKIMRotateLead, strings.Join(f.DKIMRotateServers, " "), f.DNSUpdate, f.DNSCommand,
		sha256.Sum256([]byte(password.Reveal())), f.DKIMRotate, o.DKIMExpire, n.dns,
	}
	var err error
	f.running, err = service.Keep(n.life, key, func() (opened service.Opened[*rotation], err error) {
		lead, err := f.lead(n.set, password)
		if err != nil {
			return opened, err
		}
		if unread != nil {
			lead.unable = unread
		}
		r := newRotation(f.DKIMRotate, lead, n)
		r.ready = ready
		r.rotator = rotate.New(f.settings(o, publisher, n.asks, r.report))
		return service.Opened[*rotation]{Value: r, Work: r.run, Close: lead.close}, nil
	})
	if err == nil && f.running.lead != nil {
		f.announce(n, f.running.lead)
	}
	return err
}

// leadKey is the settings from which a lease is made.
type leadKey struct {
	lead     string
	password [sha256.Size]byte
}

// onlyAnnounce has a host that rotates no keys say so in the Redis that it names for rotations.
func (f *rotateFlags) onlyAnnounce(n *needs) error {
	password, err := f.password(n.set, n.life.Watch)
	if f.DKIMRotateLead == leadYes || n.readOnly || err != nil {
		return nil // nothing else needs the password
	}
	lead, err := service.Keep(n.life, leadKey{f.DKIMRotateLead, sha256.Sum256([]byte(password.Reveal()))}, func() (service.Opened[*lease], error) {
		lead, err := f.lead(n.set, password)
		return service.Opened[*lease]{Value: lead, Close: lead.close}, err
	})
	if err == nil {
		f.announce(n, lead)
	}
	return err
}

// announce has the settings written that hosts which agree on one must have in common, because
// any of them may be the one. Of dns-update and dns-command it is how records are published;
// their files, and the servers of dkim-rotate-servers, are those of the host.
func (f *rotateFlags) announce(n *needs, lead *lease) {
	common := hosts.Texts(n.set, "dkim-rotate", "dkim-expire")
	common["dns-update"], common["dns-command"] = "", ""
	if f.DNSUpdate != "" {
		common["dns-update"] = f.updateServer.String()
	}
	if f.DNSCommand != "" {
		common["dns-command"] = "a program"
	}
	hosts.Announce(n.life, n.Runtime, hosts.Self{Setting: "dkim-rotate-lead", Store: lead, Settings: common})
}

// without logs why keys cannot be rotated now. Mail is signed without a rotation, so that
// only --check-config fails for it.
func (f *rotateFlags) without(n *needs, err error) error {
	if err == nil || n.set.CheckOnly() {
		return err
	}
	n.Log.Error("DKIM keys cannot be rotated, mail is signed as before; repair this setting", zap.Error(err))
	return nil
}

func (f *rotateFlags) settings(o *signPart, publisher rotate.Publisher, dns authority.Lookup, report func(rotate.Event)) rotate.Settings {
	return rotate.Settings{
		Dir: o.folder, Publisher: publisher, Expire: o.DKIMExpire, QueueLifetime: rotate.QueueLifetime, Report: report,
		DNS: &rotate.Authorities{Asker: authority.Asker{DNS: dns, Servers: f.servers}},
	}
}

// password reads the password of the Redis. watch gets the path of its file.
func (f *rotateFlags) password(s *config.Set, watch func(...string)) (config.Secret, error) {
	name, credentials := f.DKIMRotatePasswordFile, os.Getenv("CREDENTIALS_DIRECTORY")
	if name == "" || hidden(s, name) {
		return config.Secret{}, nil
	}
	if path, err := config.SecretPath(name, credentials); err == nil {
		watch(path)
	}
	secret, err := config.SecretFile(name, credentials)
	if err != nil {
		return secret, s.Errorf("dkim-rotate-password-file", "%w", err)
	}
	return secret, nil
}

// redis implements redisUser.
func (o *signPart) redis() redisSetting {
	return redisSetting{flag: "dkim-rotate-lead", where: o.rotation.DKIMRotateLead, passwordFile: o.rotation.DKIMRotatePasswordFile, idle: o.rotation.DKIMRotate == 0}
}

// lead returns the lease that decides whether this host leads.
func (f *rotateFlags) lead(s *config.Set, password config.Secret) (*lease, error) {
	if f.DKIMRotateLead == leadYes {
		return nil, nil
	}
	l, err := openLease(f.DKIMRotateLead, password)
	if err != nil {
		return nil, s.Errorf("dkim-rotate-lead", "%w", err)
	}
	return l, nil
}

// rotateCollector shows the rotations of the state in force:
//
//	postern_dkim_rotations{phase}          active rotations, by their next step
//	postern_dkim_rotation_problems         rotations whose latest step failed, and 1 more if none can begin
//	postern_dkim_rotation_leads            1 when this host rotates
type rotateCollector struct {
	current                    *current
	rotations, problems, leads *prometheus.Desc
}

func newRotateCollector(c *current) rotateCollector {
	return rotateCollector{
		c,
		prometheus.NewDesc("postern_dkim_rotations", "Rotations of DKIM keys that are under way, by phase.", []string{"phase"}, nil),
		prometheus.NewDesc("postern_dkim_rotation_problems", "Rotations whose latest step could not be made, and 1 more if none can begin.", nil, nil),
		prometheus.NewDesc("postern_dkim_rotation_leads", "1 while this host is the one that rotates DKIM keys.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c rotateCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.rotations
	out <- c.problems
	out <- c.leads
}

// Collect implements prometheus.Collector.
func (c rotateCollector) Collect(out chan<- prometheus.Metric) {
	o, release := inForce[*signPart](c.current)
	if release == nil {
		return
	}
	defer release()
	seen := new(rotationsSeen)
	if o.rotation.running != nil {
		seen = o.rotation.running.seen.Load()
	}
	for _, phase := range rotate.Phases() {
		out <- prometheus.MustNewConstMetric(c.rotations, prometheus.GaugeValue, float64(seen.phases[phase]), string(phase))
	}
	out <- prometheus.MustNewConstMetric(c.problems, prometheus.GaugeValue, float64(seen.problems))
	leads := 0.0
	if seen.leads {
		leads = 1
	}
	out <- prometheus.MustNewConstMetric(c.leads, prometheus.GaugeValue, leads)
}

// OpenRotator returns a rotator with the settings of the daemon, for the command. args
// are arguments of the daemon. A caller that only looks need not lead. The caller calls
// close at the end.
func OpenRotator(ctx context.Context, args []string, onlyLook bool, report func(rotate.Event)) (r *rotate.Rotator, close func(), err error) {
	s, err := configure(args, nil)
	if err != nil {
		return nil, nil, err
	}
	o, _ := locate[*signPart](s.rooms)
	if o.DKIMKeys == "" || isCredential(o.DKIMKeys) || o.DKIMKeyTable != "" {
		return nil, nil, errors.New("only the keys of a folder can be rotated; set dkim-keys to its path, and remove dkim-key-table")
	}
	f := &o.rotation
	publisher := f.publisher(rotate.GroupOf(o.folder))
	if !onlyLook {
		if err := cmp.Or(f.ready(s.set, publisher), f.mayLead(ctx, s.set)); err != nil {
			return nil, nil, err
		}
	}
	dns, err := resolver.New(resolver.Config{Servers: s.Resolvers, Timeout: s.DNSTimeout})
	if err != nil {
		return nil, nil, err
	}
	settings := f.settings(o, publisher, dns, report)
	settings.Lead = func(ctx context.Context) error { return f.mayLead(ctx, s.set) }
	return rotate.New(settings), dns.Close, nil
}

// rotates reports whether this daemon rotates keys.
func (o *Options) rotates() bool {
	p, ok := locate[*signPart](o.rooms)
	return ok && p.rotation.running != nil
}

// mayLead returns why this host must not make steps, or nil if it may.
func (f *rotateFlags) mayLead(ctx context.Context, s *config.Set) (err error) {
	if f.DKIMRotateLead == leadNo {
		return errors.New("dkim-rotate-lead says that another host rotates; run this command there")
	}
	password, err := f.password(s, func(...string) {})
	if err != nil {
		return err
	}
	l, err := f.lead(s, password)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	leads, holder, err := l.take(ctx)
	if err == nil && !leads {
		err = fmt.Errorf("%s leads the rotation now; run this command there", holder)
	}
	return err
}
