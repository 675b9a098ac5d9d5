package resolvertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// defaultTTL is for records without one; defaultSOA proves absences where the
// zone text has no SOA record above the name.
const (
	defaultTTL = 300
	defaultSOA = ". 60 IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 60"
)

// zones is the content of one or more zones. Other names do not exist, at any
// depth.
type zones struct {
	mu      sync.RWMutex
	records map[string]map[uint16][]dns.RR
	exists  map[string]int // names and those above them, by how many sets need them
}

// parse reads master-file text (RFC 1035 section 5), relative to the root.
func parse(text string) ([]dns.RR, error) {
	var out []dns.RR
	p := dns.NewZoneParser(strings.NewReader(text), ".", "")
	p.SetDefaultTTL(defaultTTL)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		out = append(out, rr)
	}
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("resolvertest: zone text: %w", err)
	}
	return out, nil
}

// load replaces all records by those of text.
func (z *zones) load(text string) error {
	rrs, err := parse(text)
	if err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records, z.exists = map[string]map[uint16][]dns.RR{}, map[string]int{}
	for _, rr := range rrs {
		z.add(rr)
	}
	return nil
}

// Add adds the records of text.
func (z *zones) Add(text string) error {
	rrs, err := parse(text)
	if err != nil {
		return err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, rr := range rrs {
		z.add(rr)
	}
	return nil
}

// Remove removes a name with all its records. Names below it stay.
func (z *zones) Remove(name string) {
	name = normal(name)
	z.mu.Lock()
	defer z.mu.Unlock()
	if _, ok := z.records[name]; !ok {
		return
	}
	delete(z.records, name)
	for _, n := range upwards(name) {
		z.exists[n]--
	}
}

// AddRecord adds one record. The name and the value of a TXT record are raw bytes
// without escapes. Other values are zone text.
func (z *zones) AddRecord(name, qtype, value string) error {
	if qtype == "TXT" {
		var parts []string
		for part := range slices.Chunk([]byte(value), maxPart) {
			parts = append(parts, `"`+escape(string(part), "")+`"`)
		}
		value = strings.Join(parts, " ")
		if parts == nil {
			value = `""`
		}
	}
	return z.Add(dns.Fqdn(escape(name, ".-")) + " IN " + qtype + " " + value)
}

// maxPart is the length of one string of a TXT record.
const maxPart = 255

// escape writes bytes as escapes of zone text, except letters, digits and those of
// plain.
func escape(s, plain string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\%03d`, c)
		}
	}
	return b.String()
}

// has reports whether name has records of a type.
func (z *zones) has(name string, qtype uint16) bool {
	z.mu.RLock()
	defer z.mu.RUnlock()
	set, _ := z.find(name, qtype)
	return len(set) > 0
}

func (z *zones) add(rr dns.RR) {
	h := rr.Header()
	h.Name = normal(h.Name)
	if z.records[h.Name] == nil {
		z.records[h.Name] = map[uint16][]dns.RR{}
		for _, n := range upwards(h.Name) {
			z.exists[n]++
		}
	}
	z.records[h.Name][h.Rrtype] = append(z.records[h.Name][h.Rrtype], rr)
}

// upwards returns name and the names above it, without the root.
func upwards(name string) []string {
	var out []string
	for _, start := range dns.Split(name) {
		out = append(out, name[start:])
	}
	return out
}

// normal returns a name as it is unpacked from a packet, in lower case, so that
// different escapes of the same bytes are equal.
func normal(name string) string {
	var wire [256]byte
	name = strings.ToLower(dns.Fqdn(name))
	if n, err := dns.PackDomainName(name, wire[:], 0, nil, false); err == nil {
		if s, _, err := dns.UnpackDomainName(wire[:n], 0); err == nil {
			name = s
		}
	}
	return name
}

// find returns the records of a name, with wildcards (RFC 4592), and reports
// whether the name exists.
func (z *zones) find(name string, qtype uint16) ([]dns.RR, bool) {
	if z.exists[name] > 0 {
		return z.records[name][qtype], true
	}
	for _, above := range append(upwards(name), ".")[1:] {
		if set, ok := z.records["*."+strings.TrimPrefix(above, ".")]; ok {
			return expand(set[qtype], name), true
		}
		if z.exists[above] > 0 {
			break // the closest encloser has no wildcard
		}
	}
	return nil, false
}

func expand(set []dns.RR, name string) []dns.RR {
	var out []dns.RR
	for _, rr := range set {
		c := dns.Copy(rr)
		c.Header().Name = name
		out = append(out, c)
	}
	return out
}

// answer fills m with the answer of a recursive server.
func (z *zones) answer(m *dns.Msg, name string, qtype uint16) {
	z.mu.RLock()
	defer z.mu.RUnlock()
	for range maxChain {
		set, ok := z.find(name, qtype)
		if len(set) > 0 {
			m.Answer = append(m.Answer, set...)
			return
		}
		cname, _ := z.find(name, dns.TypeCNAME)
		if len(cname) == 0 {
			if !ok {
				m.Rcode = dns.RcodeNameError
			}
			m.Ns = []dns.RR{z.soa(name)}
			return
		}
		m.Answer = append(m.Answer, cname[0])
		name = normal(cname[0].(*dns.CNAME).Target)
	}
}

// maxChain limits the CNAME records that one answer follows.
const maxChain = 12

func (z *zones) soa(name string) dns.RR {
	for _, n := range append(upwards(name), ".") {
		if set := z.records[n][dns.TypeSOA]; len(set) > 0 {
			return slices.Clone(set)[0]
		}
	}
	soa, err := dns.NewRR(defaultSOA)
	if err != nil {
		panic(err) // a constant
	}
	return soa
}
