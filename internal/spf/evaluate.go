package spf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// check is one evaluation: the client, the identity, and the counters for all
// records.
type check struct {
	resolver Resolver
	ip       netip.Addr // not IPv4-mapped, no zone
	sender   Sender
	helo     string
	receiver string
	now      time.Time
	maxVoids int
	trace    func(Event)

	domain  string // whose record is being evaluated: <domain>, %{d}
	depth   int
	lookups int
	voids   int
	queries int
	work    int // bytes of macro values expanded
	reverse reverse
}

// outcome is the result of check_host() for one domain.
type outcome struct {
	status Status
	err    error

	kind     Kind
	term     string
	network  netip.Prefix
	path     []string
	variable bool

	exp       *macroString // of the record that decided
	expDomain string
}

// hit is the result of one mechanism.
type hit struct {
	ok      bool
	network netip.Prefix
	inner   *outcome // the outcome of an include
}

// stop ends a check with an error status.
type stop struct {
	status Status
	err    error
}

func (s *stop) Error() string { return s.err.Error() }
func (s *stop) Unwrap() error { return s.err }

func permanent(err error) error { return &stop{PermError, err} }
func temporary(err error) error { return &stop{TempError, err} }

var (
	errLookups   = fmt.Errorf("more than %d terms that ask DNS", MaxLookups)
	errVoids     = errors.New("too many terms that find nothing in DNS")
	errMXNames   = fmt.Errorf("more than %d MX records", MaxNames)
	errWork      = errors.New("too many macros")
	errBadTarget = errors.New("not a domain name after macro expansion")
	errUnusable  = errors.New("a macro has no value that can be in a domain name")
)

// stopped returns the outcome for an error that holds a stop.
func stopped(domain string, err error) outcome {
	o := outcome{status: PermError, err: fmt.Errorf("%s: %w", domain, err)}
	var s *stop
	if errors.As(err, &s) {
		o.status = s.status
	}
	return o
}

// host is check_host() for one domain (RFC 7208 section 4).
func (c *check) host(ctx context.Context, domain string) outcome {
	outer, depth := c.domain, c.depth
	defer func() { c.domain, c.depth = outer, depth }()
	if outer != "" {
		c.depth++
	}
	c.domain = domain
	rec, err := c.fetch(ctx, domain)
	if err != nil {
		return stopped(domain, err)
	}
	for i := range rec.directives {
		d := &rec.directives[i]
		h, err := c.match(ctx, d)
		c.emitTerm(d.text, h, err)
		if err != nil {
			return stopped(domain, fmt.Errorf("%s: %w", clip(d.text), err))
		}
		if h.ok {
			return c.matched(rec, d, h)
		}
	}
	if rec.redirect != nil {
		return c.follow(ctx, rec.redirect)
	}
	return outcome{status: Neutral}
}

// fetch looks up and parses the domain's record (RFC 7208 sections 4.4 to 4.6).
func (c *check) fetch(ctx context.Context, domain string) (*record, error) {
	txts, err := c.txt(ctx, domain)
	if err != nil {
		return nil, temporary(err)
	}
	text, err := selectRecord(txts)
	if errors.Is(err, errNoRecord) {
		return nil, &stop{None, err}
	}
	if err != nil {
		return nil, permanent(err)
	}
	c.emit(Event{Kind: EventRecord, Text: text})
	rec, err := parseRecord(text)
	if err != nil {
		return nil, permanent(err)
	}
	return rec, nil
}

// matched returns the outcome of a directive that matched. For a match inside an
// include, it names the directive of the inner record, with the outer qualifier.
func (c *check) matched(rec *record, d *directive, h hit) outcome {
	o := outcome{status: d.status, kind: d.kind, term: d.text, network: h.network, exp: rec.exp, expDomain: c.domain}
	o.variable = d.target != nil && d.target.variable
	o.path = append(o.path, c.domain)
	if h.inner != nil {
		o.kind, o.term, o.network = h.inner.kind, h.inner.term, h.inner.network
		o.path = append(o.path, h.inner.path...)
		o.variable = o.variable || h.inner.variable
	}
	return o
}

// follow evaluates redirect= (RFC 7208 section 6.1). The result of the target is
// the result of the check, but a target without a record is a permerror.
func (c *check) follow(ctx context.Context, spec *macroString) outcome {
	text := "redirect=" + spec.source
	o, err := c.redirect(ctx, spec)
	c.emitTerm(text, hit{ok: o.path != nil}, err)
	if err != nil {
		return stopped(c.domain, fmt.Errorf("%s: %w", clip(text), err))
	}
	if o.path != nil {
		o.path = append([]string{c.domain}, o.path...)
		o.variable = o.variable || spec.variable
	}
	return o
}

func (c *check) redirect(ctx context.Context, spec *macroString) (outcome, error) {
	if err := c.count(); err != nil {
		return outcome{}, err
	}
	target, ok, err := c.target(ctx, spec)
	if err != nil {
		return outcome{}, err
	}
	if !ok {
		return outcome{}, permanent(errUnusable)
	}
	if !recordName(target) {
		return outcome{}, permanent(errBadTarget)
	}
	o := c.host(ctx, strings.ToLower(target))
	if o.status == None {
		return outcome{}, permanent(o.err)
	}
	return o, nil
}

// count counts a term that asks DNS (RFC 7208 section 4.6.4).
func (c *check) count() error {
	if c.lookups == MaxLookups {
		return permanent(errLookups)
	}
	c.lookups++
	return nil
}

// countVoid counts a term for which DNS had no record at all. RFC 7208 section
// 4.6.4 counts terms, not queries: an mx term of five mail hosts is not void when
// only one of them has no AAAA record.
func (c *check) countVoid() error {
	c.voids++
	if c.voids > max(c.maxVoids, 0) {
		return permanent(errVoids)
	}
	return nil
}

// match evaluates one mechanism (RFC 7208 section 5).
func (c *check) match(ctx context.Context, d *directive) (hit, error) {
	switch d.kind {
	case KindAll:
		return hit{ok: true}, nil
	case KindIP4, KindIP6:
		return hit{ok: d.network.Contains(c.ip), network: d.network}, nil
	}
	if err := c.count(); err != nil {
		return hit{}, err
	}
	target, ok, err := c.target(ctx, d.target)
	if err != nil || !ok {
		return hit{}, err // without ok the term does not match: RFC 8616 section 4
	}
	if d.kind == KindInclude {
		return c.include(ctx, target)
	}
	// A name that DNS cannot be asked for does not exist (RFC 7208 section 4.8).
	if !queryable(target) {
		return hit{}, nil
	}
	switch d.kind {
	case KindA:
		return c.matchA(ctx, d, target)
	case KindMX:
		return c.matchMX(ctx, d, target)
	case KindPTR:
		return c.matchPTR(ctx, strings.ToLower(target))
	default:
		return c.matchExists(ctx, target)
	}
}

// target expands a domain-spec, or returns the current domain when there is none.
// %{p} asks DNS, and has a value even when the time ran out. So an expired context
// is checked here.
func (c *check) target(ctx context.Context, spec *macroString) (name string, ok bool, err error) {
	if spec == nil {
		return c.domain, true, nil
	}
	name, ok = c.expandName(ctx, spec)
	if c.work > maxMacroWork {
		return "", false, permanent(errWork)
	}
	return name, ok, expired(ctx)
}

// include evaluates the record of another domain; only a pass matches (RFC 7208
// section 5.2).
func (c *check) include(ctx context.Context, target string) (hit, error) {
	if !recordName(target) {
		return hit{}, permanent(errBadTarget)
	}
	o := c.host(ctx, strings.ToLower(target))
	switch o.status {
	case Pass:
		return hit{ok: true, inner: &o}, nil
	case TempError:
		return hit{}, temporary(o.err)
	case PermError, None:
		return hit{}, permanent(o.err)
	}
	return hit{}, nil
}

// recordName reports whether a name is a valid <domain> for check_host() (RFC 7208
// section 4.3).
func recordName(name string) bool {
	return queryable(name) && strings.IndexByte(name, '.') >= 0
}

func (c *check) matchA(ctx context.Context, d *directive, target string) (hit, error) {
	addrs, err := c.addrs(ctx, target, c.family())
	if err != nil {
		return hit{}, temporary(err)
	}
	if len(addrs) == 0 {
		return hit{}, c.countVoid()
	}
	return c.among(addrs, d), nil
}

// among looks for the client in the networks of some addresses.
func (c *check) among(addrs []netip.Addr, d *directive) hit {
	bits := d.bits6
	if c.ip.Is4() {
		bits = d.bits4
	}
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		if a.Is4() != c.ip.Is4() {
			continue
		}
		if p := netip.PrefixFrom(a, bits).Masked(); p.Contains(c.ip) {
			return hit{ok: true, network: p}
		}
	}
	return hit{}
}

// matchMX asks for the addresses of each mail host. Too many hosts are a permerror
// at once, so that the result does not depend on the order of the answer.
func (c *check) matchMX(ctx context.Context, d *directive, target string) (hit, error) {
	records, err := c.mx(ctx, target)
	if err != nil {
		return hit{}, temporary(err)
	}
	if len(records) > MaxNames {
		return hit{}, permanent(errMXNames)
	}
	found := false
	for _, mx := range records {
		host := strings.TrimSuffix(mx.Host, ".")
		if !queryable(host) {
			found = found || host == "" // a null MX (RFC 7505) is an answer
			continue
		}
		addrs, err := c.addrs(ctx, host, c.family())
		if err != nil {
			return hit{}, temporary(err)
		}
		if h := c.among(addrs, d); h.ok {
			return h, nil
		}
		found = found || len(addrs) > 0
	}
	if !found {
		return hit{}, c.countVoid()
	}
	return hit{}, nil
}

// matchPTR looks for a validated name of the client in the target domain. Other
// names cannot match and are not validated. Nothing here counts as void or as a DNS
// error (section 5.5): the client chooses the names, and must not be able to turn a
// domain's fail into an error. But an expired context is an error.
func (c *check) matchPTR(ctx context.Context, target string) (hit, error) {
	names, err := c.reverseNames(ctx)
	if err != nil {
		return hit{}, expired(ctx)
	}
	for i := range names {
		if inDomain(names[i].name, target) && c.validate(ctx, &names[i]) {
			return hit{ok: true}, nil
		}
	}
	return hit{}, expired(ctx)
}

// expired returns a temperror when ctx is done.
func expired(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return temporary(err)
	}
	return nil
}

func (c *check) matchExists(ctx context.Context, target string) (hit, error) {
	addrs, err := c.addrs(ctx, target, "ip4")
	if err != nil {
		return hit{}, temporary(err)
	}
	if len(addrs) == 0 {
		return hit{}, c.countVoid()
	}
	return hit{ok: true}, nil
}

// explain returns the explanation of a fail (RFC 7208 section 6.2). After any error
// there is none. Nothing counts against the limits.
func (c *check) explain(ctx context.Context, spec *macroString, domain string) string {
	c.domain = domain
	defer func() { c.domain = "" }()
	name, ok := c.expandName(ctx, spec)
	if !ok || !queryable(name) {
		return ""
	}
	txts, err := c.txt(ctx, name)
	if err != nil || len(txts) != 1 || len(txts[0]) > maxRecord {
		return ""
	}
	m, err := parseMacros(txts[0], inExplanation)
	if err != nil {
		return ""
	}
	text, ok := c.expandText(ctx, m)
	if !ok {
		return ""
	}
	return text
}

// emitTerm reports a term to the trace.
func (c *check) emitTerm(text string, h hit, err error) {
	if c.trace == nil {
		return
	}
	e := Event{Kind: EventTerm, Text: text, Outcome: "no match", Err: err}
	var s *stop
	switch {
	case errors.As(err, &s):
		e.Outcome = string(s.status)
	case h.ok:
		e.Outcome = "match"
	}
	c.emit(e)
}

// clip shortens a term for an error.
func clip(term string) string {
	if len(term) > 80 {
		return term[:80]
	}
	return term
}
