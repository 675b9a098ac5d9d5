package resolver

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

const testID = 0x1234

// packet builds a reply to example.org. with the given code and records.
type packet struct {
	qtype   uint16
	code    dnsmessage.RCode
	edit    func(*dnsmessage.Message)
	answers []dnsmessage.Resource
	auth    []dnsmessage.Resource
	extra   []dnsmessage.Resource
}

func (p packet) bytes(t testing.TB) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: testID, Response: true, RCode: p.code},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName("example.org."), Type: dnsmessage.Type(p.qtype), Class: dnsmessage.ClassINET,
		}},
		Answers: p.answers, Authorities: p.auth, Additionals: p.extra,
	}
	if p.edit != nil {
		p.edit(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rr(name string, qtype uint16, ttl uint32, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: dnsmessage.Type(qtype), Class: dnsmessage.ClassINET, TTL: ttl},
		Body:   body,
	}
}

func txt(parts ...string) *dnsmessage.TXTResource { return &dnsmessage.TXTResource{TXT: parts} }

func cname(to string) *dnsmessage.CNAMEResource {
	return &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(to)}
}

func soaRecord(ttl, minimum uint32) dnsmessage.Resource {
	return rr("org.", 6, ttl, &dnsmessage.SOAResource{
		NS: dnsmessage.MustNewName("ns.org."), MBox: dnsmessage.MustNewName("me.org."), MinTTL: minimum,
	})
}

var loopbackA = &dnsmessage.AResource{A: [4]byte{127, 0, 0, 2}}

// decodeReply reads b as the reply to the query that asks q with testID.
func decodeReply(b []byte, q question) (reply, error) {
	query, err := q.pack(nil, testID, true)
	if err != nil {
		return reply{}, err
	}
	m, err := decode(b, query, q)
	if m == nil {
		return reply{}, err
	}
	return *m, err
}

func TestDecodeRecords(t *testing.T) {
	for _, c := range []struct {
		name string
		in   packet
		want reply
	}{
		{"txt parts joined, raw bytes", packet{qtype: TypeTXT, answers: []dnsmessage.Resource{
			rr("EXAMPLE.org.", TypeTXT, 60, txt("a\\b", "\xff\"\x00")), rr("example.org.", TypeTXT, 30, txt("")),
		}}, reply{end: "example.org", ttl: 30, answer: Answer{TXT: []string{"a\\b\xff\"\x00", ""}}}},
		{"chain in any order", packet{qtype: TypeA, answers: []dnsmessage.Resource{
			rr("c.", TypeA, 60, loopbackA), rr("B.", TypeCNAME, 20, cname("C.")), rr("example.org.", TypeCNAME, 90, cname("b.")),
		}}, reply{end: "c", ttl: 20, answer: Answer{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}}},
		{"strangers left out", packet{qtype: TypeA, answers: []dnsmessage.Resource{
			rr("evil.", TypeA, 60, loopbackA), rr("example.org.", TypeTXT, 60, txt("x")),
			rr("example.org.", TypeA, 60, loopbackA),
		}}, reply{end: "example.org", ttl: 60, answer: Answer{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}}},
		{"cname asked for", packet{qtype: TypeCNAME, answers: []dnsmessage.Resource{
			rr("example.org.", TypeCNAME, 9, cname("B.")),
		}}, reply{end: "example.org", ttl: 9, answer: Answer{Names: []string{"B."}}}},
		{"mx and null mx", packet{qtype: TypeMX, answers: []dnsmessage.Resource{
			rr("example.org.", TypeMX, 9, &dnsmessage.MXResource{Pref: 7, MX: dnsmessage.MustNewName(".")}),
		}}, reply{end: "example.org", ttl: 9, answer: Answer{MX: []MX{{".", 7}}}}},
		{"negative TTL is none", packet{qtype: TypeTXT, answers: []dnsmessage.Resource{
			rr("example.org.", TypeTXT, 1<<31, txt("x")),
		}}, reply{end: "example.org", ttl: 0, answer: Answer{TXT: []string{"x"}}}},
		{"nodata", packet{qtype: TypeA, auth: []dnsmessage.Resource{soaRecord(50, 70)}},
			reply{end: "example.org", ttl: ^uint32(0), soa: true, soaTTL: 50}},
		{"nxdomain", packet{qtype: TypeA, code: 3, auth: []dnsmessage.Resource{soaRecord(90, 70)}},
			reply{rcode: NXDomain, end: "example.org", ttl: ^uint32(0), soa: true, soaTTL: 70}},
		{"nothing proven", packet{qtype: TypeA}, reply{end: "example.org", ttl: ^uint32(0)}},
		{"badvers", packet{qtype: TypeA, extra: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: 41, TTL: 1 << 24}, Body: &dnsmessage.OPTResource{},
		}}}, reply{rcode: badVers, end: "example.org", ttl: ^uint32(0)}},
		{"servfail without question", packet{qtype: TypeA, code: 2, edit: func(m *dnsmessage.Message) { m.Questions = nil }},
			reply{rcode: ServFail, end: "example.org"}},
		{"truncated", packet{qtype: TypeA, edit: func(m *dnsmessage.Message) { m.Truncated = true }},
			reply{truncated: true, end: "example.org"}},
		{"validated", packet{qtype: TypeTXT, edit: func(m *dnsmessage.Message) { m.AuthenticData = true },
			answers: []dnsmessage.Resource{rr("example.org.", TypeTXT, 1, txt("x"))}},
			reply{ad: true, end: "example.org", ttl: 1, answer: Answer{TXT: []string{"x"}}}},
	} {
		got, err := decodeReply(c.in.bytes(t), question{"example.org", c.in.qtype})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v\nwant %+v", c.name, got, err, c.want)
		}
	}
}

// A mailbox with a dot in its first label, which dnsmessage does not read.
func TestDecodeSOADottedMailbox(t *testing.T) {
	b := packet{qtype: TypeA, auth: []dnsmessage.Resource{soaRecord(50, 70)}}.bytes(t)
	i := slices.Index(b, 'm') // "me" of me.org
	for !(b[i] == 'm' && b[i+1] == 'e' && b[i-1] == 2) {
		i++
	}
	b[i+1] = '.'
	m, err := decodeReply(b, question{"example.org", TypeA})
	if err != nil || !m.soa || m.soaTTL != 50 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestDecodeMismatch(t *testing.T) {
	good := packet{qtype: TypeTXT, answers: []dnsmessage.Resource{rr("example.org.", TypeTXT, 1, txt("x"))}}
	edits := map[string]func(*dnsmessage.Message){
		"id":            func(m *dnsmessage.Message) { m.ID++ },
		"query":         func(m *dnsmessage.Message) { m.Response = false },
		"name":          func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("example.net.") },
		"type":          func(m *dnsmessage.Message) { m.Questions[0].Type = 1 },
		"class":         func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS },
		"no question":   func(m *dnsmessage.Message) { m.Questions = nil },
		"two questions": func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) },
	}
	for name, edit := range edits {
		good.edit = edit
		if _, err := decodeReply(good.bytes(t), question{"example.org", TypeTXT}); !errors.Is(err, errMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range [][]byte{nil, {0x12}, {0x12, 0x34, 0x80}, make([]byte, 12)} {
		if _, err := decodeReply(b, question{"example.org", TypeTXT}); !errors.Is(err, errMismatch) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func TestDecodeMalformed(t *testing.T) {
	claims := packet{qtype: TypeTXT, answers: []dnsmessage.Resource{rr("example.org.", TypeTXT, 1, txt("x"))}}.bytes(t)
	binary.BigEndian.PutUint16(claims[6:], 10_000)
	short := packet{qtype: TypeA, answers: []dnsmessage.Resource{rr("example.org.", TypeA, 1, loopbackA)}}.bytes(t)
	lengthLies := slices.Clone(short)
	lengthLies[len(short)-5] = 3
	dotted := packet{qtype: TypePTR, answers: []dnsmessage.Resource{
		rr("example.org.", TypePTR, 1, &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("abc.")})}}.bytes(t)
	dotted[len(dotted)-3] = '.'
	shortSOA := packet{qtype: TypeA, auth: []dnsmessage.Resource{
		rr("org.", 6, 1, &dnsmessage.UnknownResource{Type: 6, Data: []byte("short")})}}.bytes(t)
	var links []dnsmessage.Resource
	for range maxLinks + 1 {
		links = append(links, rr("x.", TypeCNAME, 1, cname("y.")))
	}
	for name, c := range map[string]struct {
		bytes []byte
		qtype uint16
	}{
		"10,000 records announced": {claims, TypeTXT},
		"cut":                      {short[:len(short)-2], TypeA},
		"length of an address":     {lengthLies, TypeA},
		"unspeakable name":         {dotted, TypePTR},
		"short soa":                {shortSOA, TypeA},
		"cut authority":            {shortSOA[:len(shortSOA)-3], TypeA},
		"nxdomain with records": {packet{qtype: TypeTXT, code: 3,
			answers: []dnsmessage.Resource{rr("example.org.", TypeTXT, 1, txt("x"))}}.bytes(t), TypeTXT},
		"own cname": {packet{qtype: TypeA,
			answers: []dnsmessage.Resource{rr("example.org.", TypeCNAME, 1, cname("example.org."))}}.bytes(t), TypeA},
		"circle": {packet{qtype: TypeA, answers: []dnsmessage.Resource{
			rr("example.org.", TypeCNAME, 1, cname("b.")), rr("b.", TypeCNAME, 1, cname("example.org.")), rr("b.", TypeA, 1, loopbackA)}}.bytes(t), TypeA},
		"too many links": {packet{qtype: TypeA, answers: links}.bytes(t), TypeA},
	} {
		if m, err := decodeReply(c.bytes, question{"example.org", c.qtype}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	seeds := []packet{
		{qtype: TypeTXT, answers: []dnsmessage.Resource{rr("example.org.", TypeTXT, 1, txt("a", "b"))}},
		{qtype: TypeA, answers: []dnsmessage.Resource{rr("example.org.", TypeCNAME, 1, cname("b.")), rr("b.", TypeA, 1, loopbackA)}},
		{qtype: TypeA, code: 3, auth: []dnsmessage.Resource{soaRecord(1, 2)}},
		{qtype: TypeMX, answers: []dnsmessage.Resource{rr("example.org.", TypeMX, 1, &dnsmessage.MXResource{MX: dnsmessage.MustNewName("m.")})}},
	}
	for _, s := range seeds {
		b := s.bytes(f)
		f.Add(b, s.qtype)
		f.Add(b[:len(b)-3], s.qtype)
		claims := slices.Clone(b)
		binary.BigEndian.PutUint16(claims[6:], 10_000)
		f.Add(claims, s.qtype)
	}
	circle := seeds[0].bytes(f) // the answer's name points at itself
	at := len(circle) - 2 - 2 - 4 - 8 - 2
	binary.BigEndian.PutUint16(circle[at:], 0xc000|uint16(at))
	f.Add(circle, TypeTXT)
	f.Fuzz(func(t *testing.T, b []byte, qtype uint16) {
		q := question{"example.org", qtype}
		m, err := decodeReply(b, q)
		if err != nil {
			if !errors.Is(err, errMismatch) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if m.answer.size() > maxRecords {
			t.Fatalf("%d records", m.answer.size())
		}
		if m.answer.size() > 0 && (m.rcode != NoError || !supported(qtype)) {
			t.Fatalf("records with code %d for type %d", m.rcode, qtype)
		}
		if m.dangling(q) && strings.EqualFold(m.end, q.name) {
			t.Fatal("dangles at the question itself")
		}
		if _, err := canonical(m.end + "."); err != nil && !m.truncated && m.end != q.name {
			t.Fatalf("end of the chain cannot be asked for: %v", err)
		}
	})
}
