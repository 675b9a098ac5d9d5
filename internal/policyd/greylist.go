package policyd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/greylist/redisstore"
	"github.com/postern-mail/postern/greylist/sqlitestore"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/service/lastgood"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// The words of the greylist's settings.
const (
	wordSPF        = "spf"
	wordNetwork    = "network"
	wordAlways     = "always"
	wordSuspicious = "suspicious"
	wordNone       = "none"
)

// Bounds of the greylist's settings.
const (
	maxDelay     = 24 * time.Hour
	maxLife      = 10 * 366 * 24 * time.Hour
	maxAutoAllow = 1000
	maxFloodCap  = 100_000_000
	minMemory    = 16 << 20
	maxMemory    = 1 << 40

	// migrateRetry is the time between two tries at a store that does not answer.
	migrateRetry = 10 * time.Second
)

// maxURL bounds the URL of a page in a reply.
const maxURL = 128

// checkURL returns an error if page is not the URL of a page.
func checkURL(s *config.Set, flag, page string) error {
	if page == "" {
		return nil
	}
	u, err := url.Parse(page)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || len(page) > maxURL {
		return s.Errorf(flag, "write http://… or https://…, at most %d characters", maxURL)
	}
	return nil
}

// greylistPart is the part for the greylist check.
type greylistPart struct {
	GreylistStore           string
	GreylistPasswordFile    string
	GreylistMemory          int64
	GreylistDelay           time.Duration
	GreylistRetryWindow     time.Duration
	GreylistPassTTL         time.Duration
	GreylistAWLAfter        int
	GreylistAWLTTL          time.Duration
	GreylistIPv4Prefix      int
	GreylistIPv6Prefix      int
	GreylistKey             string
	GreylistWhen            string
	GreylistHeader          bool
	GreylistURL             string
	GreylistFloodNetwork    int
	GreylistFlood           int
	GreylistAllowClients    []string
	GreylistAllowRecipients []string
	GreylistAllowSenders    []string
	GreylistOnError         string

	store *greylistStore
}

func (o *greylistPart) bind(fs *pflag.FlagSet) {
	fs.StringVar(&o.GreylistStore, "greylist-store", "sqlite:/var/lib/postern/greylist.db", "`where` the greylist is kept: sqlite:PATH, memory:, or redis://, rediss://, redis+sentinel://, redis+cluster:// to share it")
	fs.StringVar(&o.GreylistPasswordFile, "greylist-password-file", "", "`file` with the password of Redis; a bare name is a systemd credential")
	config.Size(fs, &o.GreylistMemory, "greylist-memory", memstore.DefaultMemory, minMemory, maxMemory, "memory for the entries of a store that is not in Redis")
	config.Duration(fs, &o.GreylistDelay, "greylist-delay", 3*time.Minute, time.Second, maxDelay, "how long a new sender has to wait")
	config.Duration(fs, &o.GreylistRetryWindow, "greylist-retry-window", 48*time.Hour, time.Minute, maxLife, "how long a sender that has not passed is remembered")
	config.Duration(fs, &o.GreylistPassTTL, "greylist-pass-ttl", 35*24*time.Hour, time.Minute, maxLife, "how long a sender that has passed is remembered after its last mail")
	config.Int(fs, &o.GreylistAWLAfter, "greylist-awl-after", 5, 0, maxAutoAllow, "passes, one an hour, after which a client is not delayed any more; 0 for never")
	config.Duration(fs, &o.GreylistAWLTTL, "greylist-awl-ttl", 35*24*time.Hour, time.Minute, maxLife, "how long such a client is remembered after its last mail")
	config.Int(fs, &o.GreylistIPv4Prefix, "greylist-ipv4-prefix", 24, 8, 32, "bits of an IPv4 address that make a network")
	config.Int(fs, &o.GreylistIPv6Prefix, "greylist-ipv6-prefix", 64, 16, 128, "bits of an IPv6 address that make a network")
	config.Choice(fs, &o.GreylistKey, "greylist-key", "what a client is known by: the domain that SPF authorised it for, else its network", wordSPF, wordNetwork)
	config.Choice(fs, &o.GreylistWhen, "greylist-when", "which mails are delayed", wordAlways, wordSuspicious)
	fs.BoolVar(&o.GreylistHeader, "greylist-header", true, "add X-Greylist to mails that were delayed")
	fs.StringVar(&o.GreylistURL, "greylist-url", "", "`page` that the reply to a delayed mail names")
	config.Int(fs, &o.GreylistFloodNetwork, "greylist-flood-network", 1000, 0, maxFloodCap, "new senders that one network may make in an hour; 0 for no bound")
	config.Int(fs, &o.GreylistFlood, "greylist-flood", 500_000, 0, maxFloodCap, "new senders in an hour in all; 0 for no bound")
	fs.StringArrayVar(&o.GreylistAllowClients, "greylist-allow-clients", []string{checks.DefaultAllowList}, "`file` of clients that are not delayed, in postgrey's format, beside our own list; none leaves that out; repeat for several")
	fs.StringArrayVar(&o.GreylistAllowRecipients, "greylist-allow-recipients", nil, "`file` of recipients whose mail is not delayed, in postgrey's format, beside postmaster and abuse; repeat for several")
	fs.StringArrayVar(&o.GreylistAllowSenders, "greylist-allow-senders", []string{checks.DefaultAllowList}, "`file` of senders that are not delayed when SPF passes; default is our own list, none is none; repeat for several")
	config.Choice(fs, &o.GreylistOnError, "greylist-on-error", "what happens while the store does not answer", wordPass, wordDefer)
}

// limits returns the limits by which the facts in the store are judged.
func (o *greylistPart) limits() greylist.Limits {
	return greylist.Limits{
		Delay:       o.GreylistDelay,
		RetryWindow: o.GreylistRetryWindow,
		PassTTL:     o.GreylistPassTTL,
		AllowAfter:  o.GreylistAWLAfter,
		AllowTTL:    o.GreylistAWLTTL,
		NetworkCap:  o.GreylistFloodNetwork,
	}
}

// keyer returns what makes keys, for the check and for the commands.
func (o *greylistPart) keyer() greylist.Keyer {
	return greylist.Keyer{NetworkKey: o.GreylistKey == wordNetwork, Bits4: o.GreylistIPv4Prefix, Bits6: o.GreylistIPv6Prefix}
}

func (o *greylistPart) validate(s *config.Set) error {
	var errs []error
	if err := o.storeSetting().check(); err != nil {
		errs = append(errs, s.Errorf("greylist-store", "%w", err))
	}
	if o.GreylistRetryWindow <= o.GreylistDelay {
		errs = append(errs, s.Errorf("greylist-retry-window", "no mail could pass: it must be longer than greylist-delay (%s)", config.FormatDuration(o.GreylistDelay)))
	}
	errs = append(errs, checkURL(s, "greylist-url", o.GreylistURL))
	return errors.Join(errs...)
}

// storeSetting returns where the greylist is kept.
func (o *greylistPart) storeSetting() storeSetting {
	return storeSetting{"greylist-store", o.GreylistStore, o.GreylistPasswordFile, "greylist-password-file", "sqlite:/var/lib/postern/greylist.db"}
}

// stored implements storer.
func (o *greylistPart) stored() (storeSetting, bool) { return o.storeSetting(), true }

func (o *greylistPart) build(n *needs) (policy.Entry, error) {
	dns, err := n.resolver()
	if err != nil {
		return policy.Entry{}, err
	}
	if o.store, err = o.open(n); err != nil {
		return policy.Entry{}, err
	}
	n.life.OnBegin(func() { o.store.apply(o.limits(), o.GreylistFlood) })
	n.life.Background(func(ctx context.Context) { o.store.watch(ctx, n.Readiness) })
	n.life.Background(func(ctx context.Context) { o.store.migrate(ctx, n.Log) })
	n.life.Background(func(ctx context.Context) { o.store.warn(ctx, n.Log) })
	hosts.Announce(n.life, n.Runtime, hosts.Self{Setting: "greylist-store", Store: o.store.store, Settings: o.common(n.set)})
	waited := o.store.waited
	check := &checks.Greylist{
		Delimiters:     n.delimiters(),
		Store:          o.store.breaker,
		Flood:          o.store.flood,
		Limits:         o.limits(),
		Keyer:          o.keyer(),
		Resolver:       dns.Resolver,
		Relays:         n.options.Relays,
		OnlySuspicious: o.GreylistWhen == wordSuspicious,
		Header:         o.GreylistHeader,
		Instances:      &o.store.instances,
		URL:            o.GreylistURL,
		Waited:         func(d time.Duration) { waited.Observe(d.Seconds()) },
	}
	if check.Hostname, err = os.Hostname(); err != nil {
		return policy.Entry{}, fmt.Errorf("the name of this host: %w", err)
	}
	if err := o.readLists(check, n); err != nil {
		return policy.Entry{}, err
	}
	return policy.Entry{Check: check, OnError: onError(o.GreylistOnError), ErrorReason: record.GreylistUnavailable}, nil
}

// common returns the settings that hosts which share the store must have in common: those
// that make the keys, and those by which each of them judges what all have written. Others are
// not compared. Allow lists, greylist-on-error, trusted-relays and shadow decide whether a host
// asks the store, greylist-flood and greylist-memory are of its own memory, and
// greylist-header and greylist-url are texts.
func (*greylistPart) common(set *config.Set) map[string]string {
	return hosts.Texts(set, "greylist-key", "greylist-ipv4-prefix", "greylist-ipv6-prefix", "recipient-delimiter",
		"greylist-delay", "greylist-retry-window", "greylist-pass-ttl", "greylist-awl-after", "greylist-awl-ttl",
		"greylist-flood-network", "greylist-when")
}

// readLists reads the allow lists.
func (o *greylistPart) readLists(check *checks.Greylist, n *needs) (err error) {
	if check.AllowClients, err = readGreylist(n, "greylist-allow-clients", withDefault(allowFiles(o.GreylistAllowClients, n), o.GreylistAllowClients), checks.ReadGreylistClients); err != nil {
		return err
	}
	if check.AllowRecipients, err = readGreylist(n, "greylist-allow-recipients", allowFiles(o.GreylistAllowRecipients, n), checks.ReadGreylistRecipients); err != nil {
		return err
	}
	check.AllowSenders, err = readGreylist(n, "greylist-allow-senders", withDefault(allowFiles(o.GreylistAllowSenders, n), o.GreylistAllowSenders), checks.ReadGreylistSenders)
	return err
}

// readGreylist reads the allow list of a flag.
func readGreylist[T lastgood.Counted](n *needs, flag string, files []string, read func([]string) (T, error)) (T, error) {
	list, err := lastgood.List(n.life, n.Runtime, flag, files, func() (T, error) { return read(files) })
	if err != nil {
		return list, n.set.Errorf(flag, "%w", err)
	}
	return list, nil
}

// allowFiles returns the files of a list, and watches them for changes.
func allowFiles(names []string, n *needs) []string {
	var files []string
	for _, name := range names {
		if name == wordNone {
			continue
		}
		files = append(files, name)
		if name != checks.DefaultAllowList {
			n.life.Watch(name)
		}
	}
	return files
}

// withDefault adds the list that comes with the program, unless names contains "none".
func withDefault(files, names []string) []string {
	if slices.Contains(names, wordNone) || slices.Contains(files, checks.DefaultAllowList) {
		return files
	}
	return append([]string{checks.DefaultAllowList}, files...)
}

// greylistStore is a store with the metrics and state of this daemon for it. It is kept
// over reloads.
type greylistStore struct {
	store     browsedStore
	breaker   *greylist.Breaker
	flood     *greylist.Flood
	instances checks.Instances
	waited    prometheus.Histogram
	kind      string // sqlite, memory, redis: for people
	forgot    forgetting
}

// browsedStore is the interface of every store of the greylist.
type browsedStore interface {
	greylist.Store
	greylist.Browser
}

// apply applies the settings that a store in use can change.
func (g *greylistStore) apply(l greylist.Limits, flood int) {
	if s, ok := g.store.(interface{ SetLimits(greylist.Limits) }); ok {
		s.SetLimits(l)
	}
	g.flood.SetCap(flood)
}

// close writes pending changes, and closes the store.
func (g *greylistStore) close() error { return closeStore("greylist", g.store) }

// storeKey is the settings from which a store is made.
type storeKey struct {
	store    string
	password [sha256.Size]byte
	memory   int64
}

// open opens the store. It returns the store in force if the settings are the same.
func (o *greylistPart) open(n *needs) (*greylistStore, error) {
	password, err := o.storeSetting().password(n)
	if err != nil {
		return nil, err
	}
	key := storeKey{o.GreylistStore, digestOf(password), o.GreylistMemory}
	store, err := service.Keep(n.life, key, func() (service.Opened[*greylistStore], error) {
		g := &greylistStore{flood: greylist.NewFlood(o.GreylistFlood), waited: newWaited()}
		var err error
		if g.store, g.kind, err = o.openStore(password, n); err != nil {
			return service.Opened[*greylistStore]{}, err
		}
		g.breaker = greylist.NewBreaker(g.store, time.Now, reportStore(n.Log))
		g.breaker.Took = n.Metrics.StoreRequests(checks.GreylistName)
		return service.Opened[*greylistStore]{Value: g, Close: g.close}, nil
	})
	if err != nil {
		return nil, n.set.Errorf("greylist-store", "%w", err)
	}
	return store, nil
}

func (o *greylistPart) openStore(password config.Secret, n *needs) (browsedStore, string, error) {
	return openStore(o.storeSetting(), password, n, openers[browsedStore]{
		memory: func() browsedStore {
			return memstore.New(memstore.Options{Memory: o.memory(n.Log)})
		},
		sqlite: func(path string) (browsedStore, error) {
			return sqlitestore.Open(sqlitestore.Options{Path: path, Memory: o.memory(n.Log), Report: reportFile(n.Runtime, "greylist")})
		},
		redis: func(url, password string) (browsedStore, error) {
			return redisstore.Open(redisstore.Options{
				URL: url, Password: password, ClockStep: reportClock(n.Runtime, checks.GreylistName),
				Lost: reportLoss(n.Runtime, checks.GreylistName, "all senders wait once more", ""),
			})
		},
	})
}

// memory returns what the entries may take: greylist-memory, or less where the memory of
// the daemon is limited, so that new senders do not have the kernel end it.
func (o *greylistPart) memory(log *zap.Logger) int64 {
	room := daemon.AllowMemory(o.GreylistMemory)
	if room < o.GreylistMemory {
		log.Warn("the entries of the greylist have less memory than greylist-memory, because that of the daemon is limited; raise MemoryMax= of its unit, or the limit of the container",
			zap.Int64("greylist_memory", o.GreylistMemory), zap.Int64("entries_have", room))
	}
	return room
}

// reportStore returns a function that logs each change of the store's health once.
func reportStore(log *zap.Logger) func(greylist.Health, error) {
	return func(h greylist.Health, err error) {
		switch h {
		case greylist.Down:
			log.Error("the greylist store does not answer: greylist-on-error decides until it does", zap.Error(err))
		case greylist.Full:
			log.Error("the greylist store takes nothing new: greylist-on-error decides about senders that have not passed", zap.Error(err))
		default:
			log.Info("the greylist store works again")
		}
	}
}

// storeCondition is the name of the readiness condition for the store.
const storeCondition = "greylist store"

// watch looks after the store while the check runs.
func (g *greylistStore) watch(ctx context.Context, ready *metrics.Readiness) {
	ready.Follow(storeCondition, func() (bool, string) { return storeState(g.breaker.Down(), g.writes()) })
	defer ready.Remove(storeCondition)
	g.breaker.Watch(ctx)
	<-ctx.Done()
}

// migrate converts a shared store to the keys of this release, as soon as the store
// answers.
func (g *greylistStore) migrate(ctx context.Context, log *zap.Logger) {
	s, ok := g.store.(interface {
		Migrate(context.Context) (int, error)
	})
	if !ok {
		return
	}
	retry := time.NewTicker(migrateRetry)
	defer retry.Stop()
	for {
		copied, err := s.Migrate(ctx)
		if copied > 0 {
			log.Info("greylist entries of an older release were brought to the keys of this one", zap.Int("entries", copied), zap.Error(err))
		}
		if err == nil {
			return
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return
		}
	}
}

// writes reports whether new entries are kept.
func (g *greylistStore) writes() bool {
	s, ok := g.store.(interface{ Failing() bool })
	return g.breaker.Health() == greylist.Healthy && (!ok || !s.Failing())
}

// forgotten returns how many entries of the file are not read any more.
func (g *greylistStore) forgotten() uint64 {
	if s, ok := g.store.(interface{ Forgotten() uint64 }); ok {
		return s.Forgotten()
	}
	return 0
}

const (
	// forgottenLook is the time between two looks at what was forgotten.
	forgottenLook = time.Minute
	// forgottenPause is the shortest time between two lines about it.
	forgottenPause = time.Hour
)

// forgetting is what was logged about forgotten entries, kept over reloads.
type forgetting struct {
	mu     sync.Mutex
	logged uint64
	at     time.Time
}

// warn logs that entries are forgotten, while the check runs.
func (g *greylistStore) warn(ctx context.Context, log *zap.Logger) {
	look := time.NewTicker(forgottenLook)
	defer look.Stop()
	for {
		g.forgot.note(g.forgotten(), time.Now(), log)
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// note logs how many entries have been forgotten since the last line, at most once in
// forgottenPause.
func (f *forgetting) note(forgotten uint64, now time.Time, log *zap.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if forgotten == f.logged || f.logged > 0 && now.Sub(f.at) < forgottenPause {
		return
	}
	log.Error("the greylist forgets entries, and their senders wait once more; raise greylist-memory", zap.Uint64("entries", forgotten-f.logged))
	f.logged, f.at = forgotten, now
}

// number returns the value of a gauge for a condition.
func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
