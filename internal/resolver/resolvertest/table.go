package resolvertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver"
)

// Table is DNS in a map, without packets, time-outs or a cache. It is fast, for
// tests that need many small zones. Records are stored by lower-case name and by
// type, and aliases are followed. It has the methods of a resolver except Query,
// which [Table.Full] adds. To test with a faulty server, use [Zone].
type Table struct {
	// OnQuery runs before each answer, if it is set.
	OnQuery func(name string)
	// Relative allows names without their last dot. Otherwise these are an error.
	Relative bool

	mu      sync.Mutex
	records map[string]map[string][]string
	broken  map[string]string
	asked   []string
}

// maxAliases limits how far aliases are followed.
const maxAliases = 8

// NewTable returns a Table in which no name exists.
func NewTable() *Table {
	return &Table{records: map[string]map[string][]string{}, broken: map[string]string{}}
}

// failures are the types of Add that break a name, with the error for every
// question for which the name has no record.
var failures = map[string]func(name string) error{
	"TIMEOUT":  func(name string) error { return &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true} },
	"SERVFAIL": func(name string) error { return misbehaving(name) },
	"LOOP":     func(name string) error { return misbehaving(name) },
	"WRAPPED":  func(name string) error { return fmt.Errorf("resolver: %w", misbehaving(name)) },
	"REFUSED":  func(name string) error { return &net.DNSError{Err: "refused", Name: name} }, // neither temporary nor absent
	"OTHER":    func(string) error { return io.ErrUnexpectedEOF },
	"EMPTY":    func(string) error { return nil }, // no records, and no error
}

func misbehaving(name string) *net.DNSError {
	return &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
}

// Add adds one record. The type of a failure breaks the name. The value of a TXT
// record is raw bytes, that of MX is "10 host.".
func (t *Table) Add(name, qtype, value string) {
	name = key(name)
	if failures[qtype] != nil {
		t.broken[name] = qtype
		return
	}
	if t.records[name] == nil {
		t.records[name] = map[string][]string{}
	}
	t.records[name][qtype] = append(t.records[name][qtype], value)
}

// Remove removes a name.
func (t *Table) Remove(name string) {
	delete(t.records, key(name))
	delete(t.broken, key(name))
}

// Has reports whether a name has records.
func (t *Table) Has(name string) bool { return len(t.records[key(name)]) > 0 }

// String returns the records and failures, for messages.
func (t *Table) String() string { return fmt.Sprint(t.records, t.broken) }

// Values returns the values of all records of a type.
func (t *Table) Values(qtype string) []string {
	var all []string
	for _, types := range t.records {
		all = append(all, types[qtype]...)
	}
	return all
}

func key(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Asked returns the latest names that were asked for, in order.
func (t *Table) Asked() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.asked)
}

// ResetAsked clears the list of Asked.
func (t *Table) ResetAsked() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = t.asked[:0]
}

// find returns the records, or the error.
func (t *Table) find(ctx context.Context, name, qtype string) ([]string, error) {
	t.mu.Lock()
	if len(t.asked) == maxLog {
		t.asked = append(t.asked[:0], t.asked[maxLog/2:]...)
	}
	t.asked = append(t.asked, name)
	t.mu.Unlock()
	if t.OnQuery != nil {
		t.OnQuery(name)
	}
	if !t.Relative && !strings.HasSuffix(name, ".") {
		return nil, fmt.Errorf("name %q is not absolute", name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	at := key(name)
	for range maxAliases {
		if got := t.records[at][qtype]; len(got) > 0 {
			return got, nil
		}
		if how := t.broken[at]; how != "" {
			return nil, failures[how](name)
		}
		alias := t.records[at]["CNAME"]
		if len(alias) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		at = key(alias[0])
	}
	return nil, misbehaving(name)
}

// LookupTXT returns each TXT record.
func (t *Table) LookupTXT(ctx context.Context, name string) ([]string, error) {
	return t.find(ctx, name, "TXT")
}

// LookupNetIP returns A records for network "ip4", AAAA for "ip6".
func (t *Table) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	qtype, ok := map[string]string{"ip4": "A", "ip6": "AAAA"}[network]
	if !ok {
		return nil, errors.New("network " + network)
	}
	got, err := t.find(ctx, host, qtype)
	var out []netip.Addr
	for _, s := range got {
		out = append(out, netip.MustParseAddr(s))
	}
	return out, err
}

// LookupMX returns all MX records.
func (t *Table) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	got, err := t.find(ctx, name, "MX")
	var out []*net.MX
	for _, s := range got {
		var mx net.MX
		if _, err := fmt.Sscan(s, &mx.Pref); err != nil {
			return nil, err
		}
		_, mx.Host, _ = strings.Cut(s, " ")
		out = append(out, &mx)
	}
	return out, err
}

// LookupAddr returns the PTR names of an address in text form.
func (t *Table) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	name, err := dns.ReverseAddr(addr)
	if err != nil {
		return nil, err
	}
	return t.find(ctx, name, "PTR")
}

// FullTable is a Table that can distinguish a name that does not exist from one
// without TXT records.
type FullTable struct{ *Table }

// Full returns t with Query.
func (t *Table) Full() FullTable { return FullTable{t} }

// Query returns the TXT records of a name, whatever type is asked for.
func (t FullTable) Query(ctx context.Context, name string, _ uint16) (resolver.Answer, error) {
	texts, err := t.LookupTXT(ctx, name)
	answer := resolver.Answer{TXT: texts, Name: name}
	if err != nil && !resolver.IsAbsent(err) {
		return resolver.Answer{}, err
	}
	if len(texts) == 0 {
		answer.Status = resolver.StatusNXDomain
		for exists := range t.records {
			if exists == key(name) || strings.HasSuffix(exists, "."+key(name)) {
				answer.Status = resolver.StatusNoData
			}
		}
	}
	return answer, nil
}
