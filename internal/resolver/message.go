package resolver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Bounds of one message.
const (
	headerLen  = 12
	ednsSize   = 1232 // RFC 9715 section 3.1: below every path's fragmentation
	maxRecords = 1024 // of all sections; an answer with more is an error, never cut
	maxLinks   = 16   // CNAME records of one answer
)

// Header bits of a query: recursion desired, and AD (RFC 6840 section 5.7: tell
// me whether you validated).
const queryFlags = 1<<8 | 1<<5

// errMismatch marks a packet that answers something else.
var errMismatch = errors.New("answer to another question")

// question is a canonical name and a type; it is also the cache's key.
type question struct {
	name  string
	qtype uint16
}

// appendQuery appends the query packet for q.
func (q question) appendQuery(b []byte, id uint16, edns bool) []byte {
	additional := uint16(0)
	if edns {
		additional = 1
	}
	for _, v := range []uint16{id, queryFlags, 1, 0, 0, additional} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = q.appendQuestion(b)
	if edns {
		b = append(b, 0, 0, byte(dnsmessage.TypeOPT))
		b = binary.BigEndian.AppendUint16(b, ednsSize)
		b = append(b, 0, 0, 0, 0, 0, 0)
	}
	return b
}

func (q question) appendQuestion(b []byte) []byte {
	for rest, label := q.name, ""; rest != ""; {
		label, rest, _ = strings.Cut(rest, ".")
		b = append(b, byte(len(label)))
		b = append(b, label...)
	}
	b = append(b, 0)
	b = binary.BigEndian.AppendUint16(b, q.qtype)
	return binary.BigEndian.AppendUint16(b, uint16(dnsmessage.ClassINET))
}

// reply is what one packet says about a question.
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

// dangling reports that the packet ends with a CNAME and says nothing of its
// target, which then must be asked for.
func (m *reply) dangling(q question) bool {
	return m.rcode == NoError && m.end != q.name && m.answer.size() == 0 && !m.soa
}

// decode reads a packet that should answer q. errMismatch: it does not, and
// the wait goes on; ErrMalformed: it does, and is broken.
func decode(packet []byte, id uint16, q question) (reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(packet)
	if err != nil || h.ID != id || !h.Response {
		return reply{}, errMismatch
	}
	m := reply{rcode: RCode(h.RCode), truncated: h.Truncated, ad: h.AuthenticData, end: q.name}
	if !echoes(packet, q, m.rcode) {
		return reply{}, errMismatch
	}
	if m.truncated || m.rcode != NoError && m.rcode != NXDomain {
		return m, nil
	}
	if n := records(packet); n > maxRecords {
		return m, malformed(fmt.Errorf("%d records, more than %d", n, maxRecords))
	}
	if err := p.SkipAllQuestions(); err != nil {
		return m, malformed(err)
	}
	if err := m.readAnswers(p, q); err != nil {
		return m, malformed(err)
	}
	if m.answer.size() > 0 {
		if m.rcode == NXDomain {
			return m, malformed(errors.New("records of a name that does not exist"))
		}
		return m, nil
	}
	return m, m.readAbsence(p)
}

func malformed(why error) error { return fmt.Errorf("%w: %w", ErrMalformed, why) }

// records is how many records the header announces.
func records(packet []byte) int {
	n := 0
	for off := 6; off < headerLen; off += 2 {
		n += int(binary.BigEndian.Uint16(packet[off:]))
	}
	return n
}

// echoes reports whether the question section of packet is that of q. Servers
// that cannot or will not read a query may leave the section out.
func echoes(packet []byte, q question, code RCode) bool {
	switch binary.BigEndian.Uint16(packet[4:]) {
	case 0:
		return code != NoError && code != NXDomain
	case 1:
		var buf [maxName + 2 + 4]byte
		want := q.appendQuestion(buf[:0])
		got := packet[headerLen:]
		return len(got) >= len(want) && sameQuestion(got[:len(want)], want)
	}
	return false
}

// sameQuestion compares question sections of one length; want is canonical.
// Length bytes are no letters, so that lower leaves them alone.
func sameQuestion(got, want []byte) bool {
	name := len(want) - 4
	for i, c := range got[:name] {
		if lower(c) != want[i] {
			return false
		}
	}
	return string(got[name:]) == string(want[name:])
}

// sameName compares a name of a packet with a canonical one.
func sameName(n *dnsmessage.Name, name string) bool {
	data := n.Data[:n.Length-1] // without the last dot
	if len(data) != len(name) {
		return false
	}
	for i, c := range data {
		if lower(c) != name[i] {
			return false
		}
	}
	return true
}

// spell returns a name of a packet in canonical form.
func spell(n *dnsmessage.Name) string { return lowerASCII(string(n.Data[:n.Length-1])) }

// readAnswers follows the CNAME chain and takes the records at its end, in
// whatever order they stand.
func (m *reply) readAnswers(p dnsmessage.Parser, q question) error {
	m.ttl = ^uint32(0)
	if q.qtype != TypeCNAME {
		links, err := readLinks(p)
		if err != nil {
			return err
		}
		if err := m.follow(links); err != nil {
			return err
		}
	}
	dropped := false
	err := eachAnswer(p, func(h *dnsmessage.ResourceHeader, p dnsmessage.Parser) error {
		if uint16(h.Type) != q.qtype || h.Class != dnsmessage.ClassINET || !sameName(&h.Name, m.end) {
			return nil
		}
		if !m.answer.add(h, &p) {
			dropped = true
			return nil
		}
		m.ttl = min(m.ttl, sanitizeTTL(h.TTL))
		return nil
	})
	if err == nil && dropped && m.answer.size() == 0 {
		err = errors.New("no readable record")
	}
	return err
}

// link is one CNAME record.
type link struct {
	owner, target string
	ttl           uint32
}

func readLinks(p dnsmessage.Parser) ([]link, error) {
	var links []link
	err := eachAnswer(p, func(h *dnsmessage.ResourceHeader, p dnsmessage.Parser) error {
		if h.Type != dnsmessage.TypeCNAME || h.Class != dnsmessage.ClassINET {
			return nil
		}
		if len(links) == maxLinks {
			return fmt.Errorf("more than %d CNAME records", maxLinks)
		}
		c, err := p.CNAMEResource()
		if err != nil {
			return err
		}
		links = append(links, link{spell(&h.Name), spell(&c.CNAME), sanitizeTTL(h.TTL)})
		return nil
	})
	return links, err
}

// follow moves m.end along links. A chain of more steps than there are links
// goes in a circle.
func (m *reply) follow(links []link) error {
	for range len(links) + 1 {
		next := -1
		for i, l := range links {
			if l.owner == m.end {
				next = i
				break
			}
		}
		if next < 0 {
			return nil
		}
		m.end, m.ttl = links[next].target, min(m.ttl, links[next].ttl)
	}
	return errCNAMELoop
}

var errCNAMELoop = errors.New("CNAME records in a circle")

// eachAnswer calls visit with every header of the answer section and a parser
// of its own at the record's data.
func eachAnswer(p dnsmessage.Parser, visit func(*dnsmessage.ResourceHeader, dnsmessage.Parser) error) error {
	var h dnsmessage.ResourceHeader // one for all: it holds a name and escapes
	for {
		var err error
		h, err = p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(&h, p); err != nil {
			return err
		}
		if err := p.SkipAnswer(); err != nil {
			return err
		}
	}
}

// readAbsence reads what a packet without records says: the SOA record that
// bounds the absence, and the upper bits of the code (RFC 6891 section 6.1.3),
// without which BADVERS would look like NODATA.
func (m *reply) readAbsence(p dnsmessage.Parser) error {
	if err := p.SkipAllAnswers(); err != nil {
		return malformed(err)
	}
	for {
		h, err := p.AuthorityHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err == nil && h.Type == dnsmessage.TypeSOA && !m.soa {
			err = m.readSOA(&h, p)
		}
		if err == nil {
			err = p.SkipAuthority()
		}
		if err != nil {
			return malformed(err)
		}
	}
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return nil
		}
		if err == nil && h.Type == dnsmessage.TypeOPT {
			m.rcode = RCode(h.ExtendedRCode(dnsmessage.RCode(m.rcode)))
		}
		if err == nil {
			err = p.SkipAdditional()
		}
		if err != nil {
			return malformed(err)
		}
	}
}

// readSOA takes the last number of the data, MINIMUM. Its names are not read:
// mailboxes with a dot in the first label are legal there.
func (m *reply) readSOA(h *dnsmessage.ResourceHeader, p dnsmessage.Parser) error {
	const shortest = 1 + 1 + 5*4 // two root names and five numbers
	raw, err := p.UnknownResource()
	if err != nil {
		return err
	}
	if len(raw.Data) < shortest {
		return errors.New("short SOA record")
	}
	minimum := binary.BigEndian.Uint32(raw.Data[len(raw.Data)-4:])
	m.soa, m.soaTTL = true, min(sanitizeTTL(h.TTL), sanitizeTTL(minimum))
	return nil
}

// sanitizeTTL reads a TTL with its top bit set as 0 (RFC 2181 section 8).
func sanitizeTTL(ttl uint32) uint32 {
	if ttl > 1<<31-1 {
		return 0
	}
	return ttl
}

// add takes one record and reports whether it could be read.
func (a *Answer) add(h *dnsmessage.ResourceHeader, p *dnsmessage.Parser) bool {
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return err == nil && h.Length == 4 && push(&a.Addrs, netip.AddrFrom4(r.A))
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return err == nil && h.Length == 16 && push(&a.Addrs, netip.AddrFrom16(r.AAAA))
	case dnsmessage.TypeTXT:
		r, err := p.TXTResource()
		return err == nil && push(&a.TXT, strings.Join(r.TXT, ""))
	case dnsmessage.TypeMX:
		r, err := p.MXResource()
		return err == nil && push(&a.MX, MX{Host: r.MX.String(), Pref: r.Pref})
	case dnsmessage.TypePTR:
		r, err := p.PTRResource()
		return err == nil && push(&a.Names, r.PTR.String())
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		return err == nil && push(&a.Names, r.NS.String())
	case dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		return err == nil && push(&a.Names, r.CNAME.String())
	}
	return false
}

func push[T any](list *[]T, v T) bool {
	*list = append(*list, v)
	return true
}
