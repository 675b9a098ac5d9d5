package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Limits of one message. They are checked before any part of it is unpacked.
const (
	headerLen  = 12
	ednsSize   = 1232 // RFC 9715 section 3.1: below every path's fragmentation
	maxRecords = 1024 // of all sections; an answer with more is an error, never cut
	maxLinks   = 16   // CNAME records of one answer
	querySize  = 512  // holds every query: a header, one name, an OPT record
)

// errMismatch is the error for a packet that does not answer the question.
var errMismatch = errors.New("answer to another question")

// question is a canonical name and a type; it is also the cache's key.
type question struct {
	name  string
	qtype uint16
}

// pack returns the query packet for q, in buf if it fits. The AD bit asks the
// server to report whether it validated (RFC 6840 section 5.7).
func (q question) pack(buf []byte, id uint16, edns bool) ([]byte, error) {
	m := dns.Msg{
		MsgHdr:   dns.MsgHdr{Id: id, RecursionDesired: true, AuthenticatedData: true},
		Question: []dns.Question{{Name: present(q.name), Qtype: q.qtype, Qclass: dns.ClassINET}},
	}
	if edns {
		m.SetEdns0(ednsSize, false)
	}
	packet, err := m.PackBuffer(buf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	return packet, nil
}

// reply is the content of one packet, as far as it answers the question.
type reply struct {
	rcode     RCode
	truncated bool
	ad        bool
	end       string // canonical name at the end of the CNAME chain
	answer    Answer // records at end; TTL and AD are not set yet
	ttl       uint32 // seconds: least of chain and records
	soa       bool   // an SOA record proves the absence
	soaTTL    uint32 // seconds: RFC 2308 section 5
}

// dangling reports whether the packet ends with a CNAME and has no answer for its
// target. The target must then be asked for.
func (m *reply) dangling(q question) bool {
	return m.rcode == NoError && m.end != q.name && m.answer.size() == 0 && !m.soa
}

// decode reads a packet that should answer query, which asks q. errMismatch means
// that it does not: the wait goes on. ErrMalformed means that it does, but cannot
// be read.
func decode(packet, query []byte, q question) (*reply, error) {
	if len(packet) < headerLen {
		return nil, errMismatch
	}
	var h dns.Msg
	if err := h.Unpack(packet[:headerLen]); err != nil || !h.Response || string(packet[:2]) != string(query[:2]) {
		return nil, errMismatch
	}
	m := &reply{rcode: RCode(h.Rcode), truncated: h.Truncated, ad: h.AuthenticatedData, end: q.name}
	at, ok := echoes(packet, query, m.rcode)
	if !ok {
		return nil, errMismatch
	}
	if m.truncated || m.rcode != NoError && m.rcode != NXDomain {
		return m, nil
	}
	if n := announced(packet); n > maxRecords {
		return m, malformed(fmt.Errorf("%d records, more than %d", n, maxRecords))
	}
	all := records{packet: packet, off: at, asked: q.name, wire: query[headerLen : questionEnd(query)-4]}
	if err := m.read(all, q); err != nil {
		return m, malformed(err)
	}
	return m, nil
}

func malformed(why error) error { return fmt.Errorf("%w: %w", ErrMalformed, why) }

// announced returns how many records the header announces.
func announced(packet []byte) int {
	n := 0
	for section := range 3 {
		n += count(packet, section)
	}
	return n
}

// The sections of records, as count takes them.
const (
	sectionAnswer = iota
	sectionAuthority
	sectionAdditional
)

// count returns how many records the header announces for one section.
func count(packet []byte, section int) int {
	return int(binary.BigEndian.Uint16(packet[6+2*section:]))
}

// echoes reports whether packet has the question section of query, and returns
// where it ends. Servers that cannot or will not read a query may leave the section
// out.
func echoes(packet, query []byte, code RCode) (end int, ok bool) {
	switch binary.BigEndian.Uint16(packet[4:]) {
	case 0:
		return headerLen, code != NoError && code != NXDomain
	case 1:
		end = questionEnd(query)
		return end, len(packet) >= end && sameQuestion(packet[headerLen:end], query[headerLen:end])
	}
	return 0, false
}

// questionEnd returns where the question section of our own query ends. It is not
// compressed.
func questionEnd(query []byte) int {
	at := headerLen
	for query[at] != 0 {
		at += 1 + int(query[at])
	}
	return at + 1 + 4
}

// sameQuestion compares question sections of one length; want is canonical.
func sameQuestion(got, want []byte) bool {
	name := len(want) - 4
	return sameName(got[:name], want[:name]) && string(got[name:]) == string(want[name:])
}

// sameName compares packed names of one length; want is canonical. Length bytes are
// not letters, so lower does not change them.
func sameName(got, want []byte) bool {
	for i, c := range got {
		if lower(c) != want[i] {
			return false
		}
	}
	return true
}

// read takes the records that answer q.
func (m *reply) read(all records, q question) error {
	rest, err := m.readAnswers(all, q)
	if err != nil {
		return err
	}
	if m.answer.size() == 0 {
		return m.readAbsence(rest)
	}
	if m.rcode == NXDomain {
		return errors.New("records of a name that does not exist")
	}
	return nil
}

// readAnswers follows the CNAME chain and takes the records at its end. The records
// may be in any order. It returns the walk at the next section.
func (m *reply) readAnswers(all records, q question) (rest records, err error) {
	m.ttl = ^uint32(0)
	if q.qtype != TypeCNAME {
		links, err := readLinks(all)
		if err != nil {
			return all, err
		}
		if err := m.follow(links); err != nil {
			return all, err
		}
	}
	dropped := false
	rest, err = all.each(sectionAnswer, func(r *record) error {
		if r.Rrtype != q.qtype || r.Class != dns.ClassINET || r.owner != m.end {
			return nil
		}
		if rr, ok := r.unpack(); !ok || !m.answer.addRecord(rr) {
			dropped = true
			return nil
		}
		m.ttl = min(m.ttl, sanitizeTTL(r.Ttl))
		return nil
	})
	if err == nil && dropped && m.answer.size() == 0 {
		err = errors.New("no readable record")
	}
	return rest, err
}

// link is one CNAME record.
type link struct {
	owner, target string
	ttl           uint32
}

func readLinks(all records) ([]link, error) {
	var links []link
	_, err := all.each(sectionAnswer, func(r *record) error {
		if r.Rrtype != dns.TypeCNAME || r.Class != dns.ClassINET {
			return nil
		}
		if len(links) == maxLinks {
			return fmt.Errorf("more than %d CNAME records", maxLinks)
		}
		rr, ok := r.unpack()
		if !ok {
			return errors.New("unreadable CNAME record")
		}
		target, ok := canonicalOf(rr.(*dns.CNAME).Target)
		if !ok {
			return errDotted
		}
		links = append(links, link{r.owner, target, sanitizeTTL(r.Ttl)})
		return nil
	})
	return links, err
}

// follow moves m.end along links. A chain with more steps than links is a loop.
func (m *reply) follow(links []link) error {
	for range len(links) + 1 {
		next := slices.IndexFunc(links, func(l link) bool { return l.owner == m.end })
		if next < 0 {
			return nil
		}
		m.end, m.ttl = links[next].target, min(m.ttl, links[next].ttl)
	}
	return errCNAMELoop
}

var errCNAMELoop = errors.New("CNAME records in a circle")

// readAbsence reads a packet without answers: the SOA record with the TTL of the
// absence, and the upper bits of the code (RFC 6891 section 6.1.3). Without these
// bits BADVERS would look like NODATA.
func (m *reply) readAbsence(rest records) error {
	rest, err := rest.each(sectionAuthority, func(r *record) error {
		if r.Rrtype != dns.TypeSOA || m.soa {
			return nil
		}
		rr, ok := r.unpack()
		if !ok {
			return errors.New("unreadable SOA record")
		}
		m.soa, m.soaTTL = true, min(sanitizeTTL(r.Ttl), sanitizeTTL(rr.(*dns.SOA).Minttl))
		return nil
	})
	if err != nil {
		return err
	}
	_, err = rest.each(sectionAdditional, func(r *record) error {
		if r.Rrtype == dns.TypeOPT {
			m.rcode |= RCode((&dns.OPT{Hdr: r.RR_Header}).ExtendedRcode())
		}
		return nil
	})
	return err
}

// sanitizeTTL reads a TTL with its top bit set as 0 (RFC 2181 section 8).
func sanitizeTTL(ttl uint32) uint32 {
	if ttl > 1<<31-1 {
		return 0
	}
	return ttl
}

// addRecord takes one record and reports whether it could be read.
func (a *Answer) addRecord(rr dns.RR) bool {
	switch r := rr.(type) {
	case *dns.A:
		addr, ok := netip.AddrFromSlice(r.A)
		return ok && push(&a.Addrs, addr.Unmap())
	case *dns.AAAA:
		addr, ok := netip.AddrFromSlice(r.AAAA)
		return ok && push(&a.Addrs, addr)
	case *dns.TXT:
		return push(&a.TXT, Unescape(strings.Join(r.Txt, "")))
	case *dns.MX:
		host, ok := rawName(r.Mx)
		return ok && push(&a.MX, MX{Host: host, Pref: r.Preference})
	case *dns.PTR:
		return a.addName(r.Ptr)
	case *dns.NS:
		return a.addName(r.Ns)
	case *dns.CNAME:
		return a.addName(r.Target)
	}
	return push(&a.Records, rr)
}

func (a *Answer) addName(presented string) bool {
	name, ok := rawName(presented)
	return ok && push(&a.Names, name)
}

func push[T any](list *[]T, v T) bool {
	*list = append(*list, v)
	return true
}
