package policyd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/service/dnslists"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// The lists that are asked unless others are named. Abused legitimate domains
// and all error codes are outside the filters.
const (
	defaultDNSBL = "zen.spamhaus.org=127.0.0.[2..11;30]*1"
	defaultDBL   = "dbl.spamhaus.org=127.0.1.[2..99]*1"
)

// maxThreshold bounds --dnsbl-threshold.
const maxThreshold = 100_000

// dnsblOptions are the settings of the DNS lists' check.
type dnsblOptions struct {
	DNSBL                []string
	DBL                  []string
	DBLNames             []string
	DNSBLThreshold       int
	DQSKeyFile           string
	DNSBLOnError         string
	DNSBLReply           string
	DNSBLAllowClients    string
	DNSBLAllowRecipients string

	addresses, names []dnsbl.Site // DNSBL and DBL after validation
	reply            checks.Template
}

func (o *Options) bindDNSBL(fs *pflag.FlagSet) {
	fs.StringArrayVar(&o.DNSBL, "dnsbl", []string{defaultDNSBL}, "`list` of addresses, for the client, as in postscreen_dnsbl_sites: domain=filter*weight; repeat for several")
	fs.StringArrayVar(&o.DBL, "dbl", []string{defaultDBL}, "`list` of domains, for the names of dbl-names; spelled like dnsbl")
	config.Words(fs, &o.DBLNames, "dbl-names", checks.DNSBLNames(), "the names that lists of domains are asked about", checks.DNSBLNames()...)
	config.Int(fs, &o.DNSBLThreshold, "dnsbl-threshold", 1, 1, maxThreshold, "sum of weights from which on mail is refused")
	fs.StringVar(&o.DQSKeyFile, "dqs-key-file", "", "`file` with the key of the Spamhaus Data Query Service; a bare name is a systemd credential")
	config.Choice(fs, &o.DNSBLOnError, "dnsbl-on-error", "what happens while the lists cannot tell", wordPass, wordDefer)
	fs.StringVar(&o.DNSBLReply, "dnsbl-reply", checks.DefaultDNSBLReply, "`text` of a refusal; {what} {zone} {meaning} {text} {score} are filled in")
	fs.StringVar(&o.DNSBLAllowClients, "dnsbl-allow-clients", "", "`file` of addresses, networks and names that are not looked up")
	fs.StringVar(&o.DNSBLAllowRecipients, "dnsbl-allow-recipients", "", "`file` of recipients that take mail from listed clients, beside postmaster and abuse")
}

func (o *Options) validateDNSBL(s *config.Set) error {
	var errs []error
	var err error
	keyed := o.DQSKeyFile != ""
	o.addresses, err = dnslists.ParseSites(s, "dnsbl", o.DNSBL, dnsbl.KindAddress, keyed)
	errs = append(errs, err)
	o.names, err = dnslists.ParseSites(s, "dbl", o.DBL, dnsbl.KindName, keyed)
	errs = append(errs, err)
	if len(o.DNSBL)+len(o.DBL) == 0 {
		errs = append(errs, s.Errorf("dnsbl", "the dnsbl check has no list: set dnsbl or dbl, or take dnsbl out of checks"))
	}
	if o.reply, err = checks.ParseTemplate(o.DNSBLReply); err != nil {
		errs = append(errs, s.Errorf("dnsbl-reply", "%w", err))
	}
	return errors.Join(errs...)
}

func (s *state) buildDNSBL(r service.Runtime) (policy.Entry, error) {
	o := s.settings
	lists, err := s.openLists(r)
	if err != nil {
		return policy.Entry{}, err
	}
	s.lists = lists
	s.closeLater(lists.done)
	s.startLater(lists.value.start)
	check := &checks.DNSBL{Lists: lists.value, Names: o.DBLNames, Reply: o.reply}
	if name := o.DNSBLAllowClients; name != "" {
		s.watch(name)
		if check.AllowClients, err = allowlist.ReadClients(name); err != nil {
			return policy.Entry{}, o.set.Errorf("dnsbl-allow-clients", "%w", err)
		}
	}
	if name := o.DNSBLAllowRecipients; name != "" {
		s.watch(name)
		if check.AllowRecipients, err = allowlist.ReadRecipients(name); err != nil {
			return policy.Entry{}, o.set.Errorf("dnsbl-allow-recipients", "%w", err)
		}
	}
	return policy.Entry{Check: check, OnError: onError(o.DNSBLOnError), ErrorReason: record.DNSBLUnavailable}, nil
}

// lists are the DNS lists with the goroutine that tests them.
type lists struct {
	*dnsbl.Lists
	begin   sync.Once
	ctx     func() context.Context // ends with stop
	stop    context.CancelFunc
	running sync.WaitGroup
}

// start begins the self-tests; the first call counts.
func (l *lists) start() {
	l.begin.Do(func() {
		l.running.Go(func() { l.Run(l.ctx()) })
	})
}

func (l *lists) close() {
	l.stop()
	l.running.Wait()
}

// openLists makes the lists, or takes over those in use when nothing about them
// has changed: what is known of their zones' health is worth keeping.
func (s *state) openLists(r service.Runtime) (*shared[*lists], error) {
	o := s.settings
	dns, err := s.resolver(r)
	if err != nil {
		return nil, err
	}
	c := dnsbl.Config{
		DNS:       dns,
		Addresses: o.addresses,
		Names:     o.names,
		Threshold: o.DNSBLThreshold,
		Signals:   o.runs(checks.GreylistName),
		Report:    dnslists.Report(r.Log),
	}
	var digest [sha256.Size]byte
	if o.DQSKeyFile != "" {
		key, err := s.readDQSKey()
		if err != nil {
			return nil, o.set.Errorf("dqs-key-file", "%w", err)
		}
		c.Key = key
		digest = sha256.Sum256([]byte(key.Reveal()))
	}
	settings := fmt.Sprintf("%p %v %v %d %t %x", dns, c.Addresses, c.Names, c.Threshold, c.Signals, digest)
	if before := s.previous(); before != nil && before.lists != nil && before.lists.key == settings {
		return before.lists.use(), nil
	}
	made, err := dnsbl.New(c)
	if err != nil {
		return nil, o.set.Errorf("dnsbl", "%w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &lists{Lists: made, ctx: func() context.Context { return ctx }, stop: stop}
	return share(l, settings, l.close), nil
}

func (s *state) readDQSKey() (config.Secret, error) {
	key, path, err := dnslists.ReadKey(s.settings.DQSKeyFile)
	if path != "" {
		s.watch(path)
	}
	return key, err
}

// zones are those of the state in force.
func (c *current) zones() []dnsbl.Status {
	s := c.acquire()
	defer s.done()
	if s.lists == nil {
		return nil
	}
	return s.lists.value.Status()
}

// DNSBLCheckArgs asks what the lists say about an address or a name
// ("dnsbl.check").
type DNSBLCheckArgs struct {
	Subject string `json:"subject"`
}

// DNSBLZone is one list's answer, or the state it is in.
type DNSBLZone struct {
	Zone    string      `json:"zone"`
	Kind    string      `json:"kind"`
	State   string      `json:"state"` // "in service", or the problem that opened the breaker
	Cause   string      `json:"cause,omitempty"`
	Mend    string      `json:"mend,omitempty"`
	Since   *time.Time  `json:"since,omitempty"`
	Listed  bool        `json:"listed"`
	Codes   []DNSBLCode `json:"codes,omitempty"`
	Weight  int         `json:"weight"`            // what it adds to the score
	Counted bool        `json:"counted,omitempty"` // a filter or the list's meaning lets it count
	Text    string      `json:"text,omitempty"`
	Error   string      `json:"error,omitempty"` // the list could not tell
	Millis  float64     `json:"latency_ms"`
}

// DNSBLCode is one answer of a list with its meaning.
type DNSBLCode struct {
	Code    string `json:"code"`
	Meaning string `json:"meaning"`
	Class   string `json:"class"` // listed, allowed, abused, fresh, other, refused
}

// DNSBLCheckResult is what all lists of the subject's kind say.
type DNSBLCheckResult struct {
	Subject   string      `json:"subject"` // as it was asked: A-labels, lower case
	Asked     bool        `json:"asked"`   // false: no list can know it
	Score     int         `json:"score"`
	Threshold int         `json:"threshold"`
	Refused   bool        `json:"refused"` // the score reaches the threshold, by this subject alone
	Zones     []DNSBLZone `json:"zones"`
}

// DNSBLTest is the self-test of one list.
type DNSBLTest struct {
	DNSBLZone
	Points []DNSBLPoint `json:"points"`
}

// DNSBLPoint is one question of a self-test.
type DNSBLPoint struct {
	Subject  string      `json:"subject"`
	Want     string      `json:"want"`     // listed, not listed
	Optional bool        `json:"optional"` // it may be missing: no IPv6, one of several test names
	Codes    []DNSBLCode `json:"codes,omitempty"`
	Error    string      `json:"error,omitempty"`
	OK       bool        `json:"ok"`
	Millis   float64     `json:"latency_ms"`
}

// DNSBLSelfTestResult is the outcome of "dnsbl.selftest".
type DNSBLSelfTestResult struct {
	Healthy bool        `json:"healthy"` // all lists are in service
	Zones   []DNSBLTest `json:"zones"`
}

var errNoLists = &admin.Error{Code: admin.CodeFailed, Message: "the dnsbl check does not run: add dnsbl to checks"}

func (a *app) dnsblCheck(ctx context.Context, args DNSBLCheckArgs, _ func(any)) (any, error) {
	s := a.current.acquire()
	defer s.done()
	if s.lists == nil {
		return nil, errNoLists
	}
	subject := args.Subject
	if name, err := mailaddr.ParseDomain(subject); err == nil {
		subject = name
	}
	out := DNSBLCheckResult{Subject: subject, Threshold: s.settings.DNSBLThreshold, Zones: []DNSBLZone{}}
	for _, e := range s.lists.value.Explain(ctx, subject) {
		z := zoneState(e.Status)
		z.Millis = millis(e.Took)
		if e.Failure != nil {
			z.Error = e.Failure.Cause
		}
		if h := e.Hit; h != nil {
			z.Codes, z.Text, z.Weight, z.Counted = meanings(h.Codes), e.Text, h.Weight, h.Counted
			z.Listed = e.Failure == nil
			out.Score += h.Weight
		}
		out.Zones = append(out.Zones, z)
	}
	out.Asked = len(out.Zones) > 0
	out.Refused = out.Score >= out.Threshold
	return out, nil
}

func (a *app) dnsblSelfTest(ctx context.Context, _ struct{}, _ func(any)) (any, error) {
	s := a.current.acquire()
	defer s.done()
	if s.lists == nil {
		return nil, errNoLists
	}
	results, err := s.lists.value.SelfTest(ctx)
	if err != nil {
		return nil, err
	}
	out := DNSBLSelfTestResult{Healthy: true}
	for _, r := range results {
		t := DNSBLTest{DNSBLZone: zoneState(r.Status)}
		for i := range r.Points {
			t.Points = append(t.Points, point(&r.Points[i]))
		}
		out.Healthy = out.Healthy && r.Problem == dnsbl.Healthy
		out.Zones = append(out.Zones, t)
	}
	return out, nil
}

func point(p *dnsbl.Point) DNSBLPoint {
	out := DNSBLPoint{Subject: p.Subject, Want: "not listed", Optional: p.Optional, Codes: meanings(p.Codes), OK: p.OK(), Millis: millis(p.Took)}
	if p.Listed {
		out.Want = "listed"
	}
	if p.Failure != nil {
		out.Error = p.Failure.Cause
	}
	return out
}

func zoneState(s dnsbl.Status) DNSBLZone {
	z := DNSBLZone{Zone: s.Zone, Kind: s.Kind.String(), State: dnslists.Word(s.Problem), Cause: s.Cause, Mend: s.Problem.Mend()}
	if !s.Since.IsZero() {
		z.Since = &s.Since
	}
	return z
}

func meanings(all []dnsbl.Code) []DNSBLCode {
	var out []DNSBLCode
	for _, c := range all {
		out = append(out, DNSBLCode{Code: c.Addr.String(), Meaning: c.Name, Class: c.Class.String()})
	}
	return out
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// number is a condition as a gauge shows it.
func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
