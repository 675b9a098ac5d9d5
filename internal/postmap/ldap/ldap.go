// Package ldap looks up keys in an LDAP directory.
//
// The table file is ldap_table(5)'s. A search below search_base with query_filter
// returns entries, and the values of their result attributes are the answer. The values
// of special attributes are DNs or LDAP URLs of further entries, which are read too. If
// an entry has a terminal attribute, only that attribute counts. Leaf attributes count
// only in entries without special ones.
//
// What differs from Postfix:
//   - protocol version 3 is always used, whatever "version" is (RFC 3494);
//   - an entry that is reached twice is read once, so its values are not repeated; for
//     a group that contains itself, Postfix fails when recursion_limit is reached.
//
// Not supported, and an error when the file is read: SASL binds other than EXTERNAL,
// chase_referrals, tls_cipher_suite.
//
// Invariants: the key goes into filter and base escaped; searches, entries and
// values of one look-up are bounded.
package ldap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	idle     = time.Minute
	lifetime = 10 * time.Minute // lets connections move back to the first server
	retry    = time.Minute

	maxTimeout = 3600 // seconds
)

// Options of [Open].
type Options struct {
	MaxConns int
	Warn     func(string)
	Table    conf.OpenTable // opens the tables of a domain list
	Now      func() time.Time
}

// Source is a directory.
type Source struct {
	where       string // path:line of the filter
	expander    conf.Expander
	base        conf.Template
	filter      conf.Template
	format      conf.Template
	attributes  attributes
	scope       int
	dereference int
	timeout     time.Duration
	limits      limits
	domains     *conf.Domains
	connections *remote.Pool[*ldap.Conn]
}

// limits are those of the table file.
type limits struct {
	expansion, size int // 0 is none
	recursion       int
}

// Open reads the table file at path and the files it names. It does not connect; the
// first Lookup does.
func Open(path string, o Options) (*Source, []string, error) {
	c, err := conf.Open(path, o.Warn)
	if err != nil {
		return nil, nil, err
	}
	s := &Source{}
	d := readDirectory(c)
	if err = s.read(c); err == nil {
		s.domains, err = c.Domains(o.Table)
	}
	if err = errors.Join(err, c.Finish()); err != nil {
		return nil, nil, errors.Join(err, s.domains.Close())
	}
	hosts, err := d.hosts()
	if err != nil {
		return nil, nil, errors.Join(err, s.domains.Close())
	}
	s.connections = remote.NewPool(remote.PoolConfig[*ldap.Conn]{
		Hosts: hosts, InOrder: true, Max: o.MaxConns, Idle: idle, Lifetime: lifetime, Retry: retry,
		Close: func(c *ldap.Conn) { _ = c.Close() }, Now: o.Now, // read-only: nothing is lost
	})
	files := append([]string{path}, s.domains.Files()...)
	return s, append(files, d.tls.List()...), nil
}

// read takes what decides about the search and its result.
func (s *Source) read(c *conf.Conf) error {
	s.timeout = time.Duration(c.Int("timeout", 10, 1, maxTimeout)) * time.Second
	s.limits = limits{expansion: c.Int("expansion_limit", 0, 0, math.MaxInt32), recursion: c.Int("recursion_limit", 1000, 1, math.MaxInt32)}
	s.limits.size = c.Int("size_limit", s.limits.expansion, 0, math.MaxInt32)
	s.dereference = c.Int("dereference", 0, 0, 3)
	s.attributes = attributes{
		terminal: c.List("terminal_result_attribute", ""), leaf: c.List("leaf_result_attribute", ""),
		ordinary: c.List("result_attribute", "maildrop"), special: c.List("special_result_attribute", ""),
	}
	switch scope := c.String("scope", "sub"); strings.ToLower(scope) {
	case "sub":
		s.scope = ldap.ScopeWholeSubtree
	case "one":
		s.scope = ldap.ScopeSingleLevel
	case "base":
		s.scope = ldap.ScopeBaseObject
	default:
		return c.Error("scope", fmt.Sprintf("%.40q is not allowed", scope), "write sub, one or base")
	}
	return s.readTemplates(c)
}

func (s *Source) readTemplates(c *conf.Conf) (err error) {
	base := c.String("search_base", "")
	if base == "" {
		return c.Error("search_base", "is missing", "write the DN below which to search")
	}
	if s.base, err = s.expander.Query(base); err != nil {
		return c.Error("search_base", err.Error(), "")
	}
	s.where = c.Where("query_filter")
	if s.filter, err = s.expander.Query(tidy(c.String("query_filter", "(mailacceptinggeneralid=%s)"))); err != nil {
		return c.Error("query_filter", err.Error(), "")
	}
	if _, err := ldap.CompileFilter(sample(s.filter)); err != nil {
		return c.Error("query_filter", err.Error(), "write a filter as in RFC 4515, without quotes around it")
	}
	if !s.filter.IsDynamic() && !s.base.IsDynamic() {
		c.Warn("query_filter", "has no expansion: every address has the same owners")
	}
	// The older name counts where the newer one is missing.
	format := cmp.Or(c.String("result_format", ""), c.String("result_filter", ""), "%s")
	if s.format, err = s.expander.Result(format); err != nil {
		return c.Error("result_format", err.Error(), "")
	}
	return nil
}

// sample fills a filter with harmless text, to see whether it is one.
func sample(t conf.Template) string {
	var b strings.Builder
	for _, p := range t {
		b.WriteString(p.Text)
		if p.Verb != 0 {
			b.WriteByte('x')
		}
	}
	return b.String()
}

// tidy converts a filter from the form that OpenLDAP's library accepts to that of RFC
// 4515: with parentheses around it, and without white space between its parts. A
// parenthesis in a value is always escaped, so any other one belongs to the syntax.
func tidy(filter string) string {
	filter = strings.TrimSpace(filter)
	if !strings.HasPrefix(filter, "(") {
		filter = "(" + filter + ")"
	}
	var b strings.Builder
	for i := 0; i < len(filter); i++ {
		b.WriteByte(filter[i])
		if afterPart(filter, i) {
			for i+1 < len(filter) && isSpace(filter[i+1]) {
				i++
			}
		}
	}
	return b.String()
}

// afterPart reports the places where white space means nothing.
func afterPart(filter string, i int) bool {
	switch filter[i] {
	case '(', ')':
		return true
	case '&', '|', '!':
		return strings.HasSuffix(strings.TrimRight(filter[:i], " \t\r\n\v\f"), "(")
	}
	return false
}

func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// Lookup implements ownership.Source.
func (s *Source) Lookup(ctx context.Context, key string) ([]string, error) {
	allowed, err := s.domains.Allows(ctx, key)
	if err != nil || !allowed {
		return nil, err
	}
	k, ok := s.expander.Key(key)
	if !ok {
		return nil, nil
	}
	return s.ask(ctx, k)
}

// Probe searches for a key that no directory has, whatever the domain list says. It
// also tests the tables of that list.
func (s *Source) Probe(ctx context.Context) error {
	if err := s.domains.Probe(ctx); err != nil {
		return err
	}
	k, ok := s.expander.Key(remote.ProbeKey)
	if !ok {
		return nil // the filter needs more labels than most domains have
	}
	_, err := s.ask(ctx, k)
	return err
}

// ask searches on one of the connections.
func (s *Source) ask(ctx context.Context, k conf.Key) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var values []string
	err := s.connections.Do(ctx, func(ctx context.Context, c *ldap.Conn) (err error) {
		values, err = s.search(ctx, c, k)
		return err
	}, remote.IsKeyError)
	if err != nil {
		return nil, err
	}
	return values, nil
}

// Locate implements ownership.Locator: the filter, for every key.
func (s *Source) Locate(string) string { return s.where }

// Close closes the connections and the domain list.
func (s *Source) Close() error {
	s.connections.Close()
	return s.domains.Close()
}
