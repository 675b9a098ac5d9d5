package resolver

import (
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// The record types that [Resolver.Query] supports.
const (
	TypeA     = dns.TypeA
	TypeNS    = dns.TypeNS
	TypeCNAME = dns.TypeCNAME
	TypeSOA   = dns.TypeSOA
	TypePTR   = dns.TypePTR
	TypeMX    = dns.TypeMX
	TypeTXT   = dns.TypeTXT
	TypeAAAA  = dns.TypeAAAA
	TypeTLSA  = dns.TypeTLSA
)

// Status says what an answer proves.
type Status uint8

// A name that does not exist has no records of any type, and no names below
// it (RFC 8020); one without data has records of other types, or names below.
const (
	Found Status = iota
	StatusNoData
	StatusNXDomain
)

// Answer is the answer of DNS: records, or the proof that there are none. Its
// slices are shared with the cache: do not write to them.
type Answer struct {
	Status Status
	// AD is true when a trusted server validated the answer (Config.TrustAD).
	AD bool
	// TTL is the time for which the answer is still valid, within the limits of
	// Config.
	TTL time.Duration
	// Name is the name at the end of the CNAME chain, in lower case, with its last
	// dot.
	Name string
	// Addrs are the addresses of A or AAAA records.
	Addrs []netip.Addr
	// TXT has one string for each record: its parts, joined without a separator.
	// The bytes are raw, without escapes.
	TXT []string
	// MX are in the order of the answer.
	MX []MX
	// Names are the targets of PTR, NS or CNAME records, with their last dots. They
	// may hold any bytes: their owner chose them.
	Names []string
	// Records are those of the types without a field above: SOA and TLSA.
	Records []dns.RR
}

// MX is one MX record; Host has its last dot.
type MX struct {
	Host string
	Pref uint16
}

func (a *Answer) size() int {
	return len(a.Addrs) + len(a.TXT) + len(a.MX) + len(a.Names) + len(a.Records)
}

func supported(qtype uint16) bool {
	switch qtype {
	case TypeA, TypeNS, TypeCNAME, TypeSOA, TypePTR, TypeMX, TypeTXT, TypeAAAA, TypeTLSA:
		return true
	}
	return false
}
