package resolvertest

import (
	"encoding/binary"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Fault is a way to answer wrongly. Its text is also the value of a flag.
type Fault string

// The faults. "" ends a fault.
const (
	Healthy       Fault = ""
	ServFail      Fault = "servfail"
	Refused       Fault = "refused"
	NotImp        Fault = "notimp"
	Silence       Fault = "silence"       // no answer at all
	Unavailable   Fault = "unavailable"   // Silence, but a Zone times out at once
	NoUDP         Fault = "noudp"         // no answer over UDP
	NoTCP         Fault = "notcp"         // no answer over TCP
	Truncate      Fault = "truncate"      // empty and truncated over UDP, whole over TCP
	AlwaysCut     Fault = "alwayscut"     // truncated over TCP as well
	WrongID       Fault = "wrongid"       // right except for the id
	WrongQuestion Fault = "wrongquestion" // right except for the name in the question
	Forged        Fault = "forged"        // three forgeries with wrong ids or questions first, then the answer
	Flood         Fault = "flood"         // forgeries without end over UDP; the answer over TCP
	Garbage       Fault = "garbage"       // the right id and question, then noise
	Short         Fault = "short"         // half of the answer
	CNAMELoop     Fault = "cnameloop"     // CNAME records in a circle within one answer
	CNAMEChase    Fault = "cnamechase"    // each answer is a CNAME to yet another name, without end
	Many          Fault = "many"          // as many records as TCP carries
	Claims        Fault = "claims"        // the right answer whose header announces 10,000 records
	NoEDNS        Fault = "noedns"        // FORMERR to queries with EDNS
	BadVersion    Fault = "badversion"    // BADVERS to queries with EDNS
	NoSOA         Fault = "nosoa"         // absences without proof
	BareCNAME     Fault = "barecname"     // the first CNAME alone
)

// Faults lists every fault, for flags and tables.
func Faults() []Fault {
	return []Fault{ServFail, Refused, NotImp, Silence, Unavailable, NoUDP, NoTCP, Truncate, AlwaysCut, WrongID, WrongQuestion, Forged, Flood,
		Garbage, Short, CNAMELoop, CNAMEChase, Many, Claims, NoEDNS, BadVersion, NoSOA, BareCNAME}
}

// Query is one query that came in.
type Query struct {
	Name    string // as asked, with its last dot
	Type    string // "TXT"
	Network string // "udp" or "tcp"
	EDNS    bool
}

// maxLog limits the log of queries. The latest are kept.
const maxLog = 8192

// authority answers queries from zones, correctly or with a fault. [Server] and
// [Zone] have its methods.
type authority struct {
	zones

	control sync.Mutex
	faults  map[string]Fault
	missing map[string]Fault // for types without records
	delays  map[string]time.Duration
	ad, aa  bool
	log     []Query
	total   int
}

// Replace replaces all records by those of text.
func (a *authority) Replace(text string) error { return a.load(text) }

// Fail sets the fault of the answers for name from now on; Healthy ends it.
// "*.example.org" means every name below example.org, and "*" every name. The most
// specific setting counts.
func (a *authority) Fail(name string, how Fault) {
	a.control.Lock()
	defer a.control.Unlock()
	a.faults = with(a.faults, pattern(name), how)
}

// FailMissing is Fail for the types of which name has no record. Name is no pattern.
func (a *authority) FailMissing(name string, how Fault) {
	a.control.Lock()
	defer a.control.Unlock()
	a.missing = with(a.missing, normal(name), how)
}

// SetDelay answers queries for name after d; patterns are those of Fail.
func (a *authority) SetDelay(name string, d time.Duration) {
	a.control.Lock()
	defer a.control.Unlock()
	a.delays = with(a.delays, pattern(name), d)
}

// SetAD sets the AD bit of all answers from now on.
func (a *authority) SetAD(on bool) {
	a.control.Lock()
	defer a.control.Unlock()
	a.ad = on
}

// SetAuthoritative makes the server answer as an authoritative one from now on:
// with the AA bit, and without recursion.
func (a *authority) SetAuthoritative() {
	a.control.Lock()
	defer a.control.Unlock()
	a.aa = true
}

// with returns a copy of m with a setting, since m may be in use.
func with[V any](m map[string]V, key string, v V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]V{}
	}
	m[key] = v
	return m
}

func pattern(name string) string {
	if name == "*" {
		return "*."
	}
	return normal(name)
}

// setting returns the setting of name: its own, or that of the nearest pattern
// above.
func setting[V any](m map[string]V, name string) V {
	if v, ok := m[name]; ok || len(m) == 0 {
		return v
	}
	if name == "." {
		return m["*."]
	}
	for _, above := range append(upwards(name), ".")[1:] {
		if v, ok := m["*."+strings.TrimPrefix(above, ".")]; ok {
			return v
		}
	}
	var zero V
	return zero
}

// Queries returns the latest queries, oldest first.
func (a *authority) Queries() []Query {
	a.control.Lock()
	defer a.control.Unlock()
	return slices.Clone(a.log)
}

// Total returns how many queries came in.
func (a *authority) Total() int {
	a.control.Lock()
	defer a.control.Unlock()
	return a.total
}

// Count returns how many of Queries asked for name, in upper or lower case, and for
// a type ("" for any type).
func (a *authority) Count(name, qtype string) int {
	n := 0
	for _, q := range a.Queries() {
		if strings.EqualFold(q.Name, dns.Fqdn(name)) && (qtype == "" || q.Type == qtype) {
			n++
		}
	}
	return n
}

// ResetLog forgets the queries so far.
func (a *authority) ResetLog() {
	a.control.Lock()
	defer a.control.Unlock()
	a.log, a.total = nil, 0
}

// plan logs a query and returns how to answer it.
func (a *authority) plan(q *dns.Msg, network string) plan {
	question := q.Question[0]
	a.control.Lock()
	defer a.control.Unlock()
	a.total++
	if len(a.log) == maxLog {
		a.log = append(a.log[:0], a.log[maxLog/2:]...)
	}
	a.log = append(a.log, Query{question.Name, dns.TypeToString[question.Qtype], network, q.IsEdns0() != nil})
	name := normal(question.Name)
	return plan{a.fault(name, question.Qtype), setting(a.delays, name), a.ad, a.aa}
}

// plan describes how a query is answered.
type plan struct {
	fault  Fault
	delay  time.Duration
	ad, aa bool
}

// fault returns the fault for a question. The caller holds the control lock.
func (a *authority) fault(name string, qtype uint16) Fault {
	if how := a.missing[name]; how != "" && !a.has(name, qtype) {
		return how
	}
	return setting(a.faults, name)
}

// reply returns the packets that answer q, in order, and how long to wait
// before the first.
func (a *authority) reply(q *dns.Msg, network string) ([][]byte, time.Duration) {
	if len(q.Question) != 1 {
		return nil, 0
	}
	p := a.plan(q, network)
	fault, delay := p.fault, p.delay
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable, m.AuthenticatedData, m.Authoritative = !p.aa, p.ad, p.aa
	a.answer(m, normal(q.Question[0].Name), q.Question[0].Qtype)
	if mangle, ok := beforePacking[fault]; ok {
		mangle(m, q, network)
	}
	size := fit(m, q, network)
	packet, err := m.Pack()
	if err != nil {
		return nil, delay // a record that no packet can carry
	}
	if spoil, ok := afterPacking[fault]; ok {
		return spoil(packet, network, size), delay
	}
	return [][]byte{packet}, delay
}

// fit adds EDNS if the query has it, and truncates an answer that is too large for
// UDP.
func fit(m, q *dns.Msg, network string) int {
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = max(size, int(o.UDPSize()))
		if m.IsEdns0() == nil && m.Rcode != dns.RcodeFormatError {
			m.SetEdns0(ednsSize, false)
		}
	}
	if network == "tcp" {
		size = dns.MaxMsgSize
	}
	cut := m.Truncated
	m.Truncate(size)
	m.Truncated = m.Truncated || cut
	return size
}

const ednsSize = 1232

// beforePacking applies the faults that change the message.
var beforePacking = map[Fault]func(m, q *dns.Msg, network string){
	ServFail:   func(m, _ *dns.Msg, _ string) { fail(m, dns.RcodeServerFailure) },
	Refused:    func(m, _ *dns.Msg, _ string) { fail(m, dns.RcodeRefused) },
	NotImp:     func(m, _ *dns.Msg, _ string) { fail(m, dns.RcodeNotImplemented) },
	Truncate:   func(m, _ *dns.Msg, network string) { truncate(m, network == "udp") },
	AlwaysCut:  func(m, _ *dns.Msg, _ string) { truncate(m, true) },
	CNAMELoop:  func(m, q *dns.Msg, _ string) { chain(m, q.Question[0].Name, "loop.invalid.", q.Question[0].Name) },
	CNAMEChase: func(m, q *dns.Msg, _ string) { chain(m, q.Question[0].Name, "x."+q.Question[0].Name) },
	NoSOA:      func(m, _ *dns.Msg, _ string) { m.Ns = nil },
	BareCNAME:  bareCNAME,
	Many:       many,
	NoEDNS: func(m, q *dns.Msg, _ string) {
		if q.IsEdns0() != nil {
			fail(m, dns.RcodeFormatError)
		}
	},
	BadVersion: func(m, q *dns.Msg, _ string) {
		if q.IsEdns0() != nil {
			fail(m, dns.RcodeBadVers)
			m.SetEdns0(ednsSize, false)
		}
	},
}

func fail(m *dns.Msg, code int) { m.Answer, m.Ns, m.Rcode = nil, nil, code }

func truncate(m *dns.Msg, yes bool) {
	if yes {
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	}
}

// chain answers with CNAME records along names.
func chain(m *dns.Msg, names ...string) {
	fail(m, dns.RcodeSuccess)
	for i, target := range names[1:] {
		m.Answer = append(m.Answer, &dns.CNAME{
			Hdr:    dns.RR_Header{Name: names[i], Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: defaultTTL},
			Target: target,
		})
	}
}

func bareCNAME(m, _ *dns.Msg, _ string) {
	if len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeCNAME {
		m.Answer, m.Ns, m.Rcode = m.Answer[:1], nil, dns.RcodeSuccess
	}
}

// many answers with as many A records as fit into a message: 16 bytes each.
func many(m, q *dns.Msg, network string) {
	const room = 4000
	fail(m, dns.RcodeSuccess)
	m.Compress = true
	if network == "udp" {
		m.Truncated = true
		return
	}
	for i := range room {
		m.Answer = append(m.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: defaultTTL},
			A:   net.IPv4(192, 0, byte(2+i>>8), byte(i)),
		})
	}
}

// afterPacking applies the faults that change the bytes. size is the limit of the
// network.
var afterPacking = map[Fault]func(packet []byte, network string, size int) [][]byte{
	Silence:       func([]byte, string, int) [][]byte { return nil },
	Unavailable:   func([]byte, string, int) [][]byte { return nil },
	NoUDP:         func(p []byte, network string, _ int) [][]byte { return unless(network == "udp", p) },
	NoTCP:         func(p []byte, network string, _ int) [][]byte { return unless(network == "tcp", p) },
	WrongID:       func(p []byte, _ string, _ int) [][]byte { return [][]byte{otherID(p)} },
	WrongQuestion: func(p []byte, _ string, _ int) [][]byte { return [][]byte{otherQuestion(p)} },
	Forged: func(p []byte, network string, _ int) [][]byte {
		if network == "tcp" {
			return [][]byte{p}
		}
		return [][]byte{otherID(p), otherQuestion(p), {1, 2, 3}, p}
	},
	Flood: func(p []byte, network string, _ int) [][]byte {
		if network == "tcp" {
			return [][]byte{p}
		}
		return slices.Repeat([][]byte{otherID(p)}, 200)
	},
	Garbage: func(p []byte, _ string, _ int) [][]byte {
		for i := questionEnd(p); i < len(p); i++ {
			p[i] ^= 0xff
		}
		return [][]byte{p}
	},
	Short: func(p []byte, _ string, _ int) [][]byte {
		end := questionEnd(p)
		return [][]byte{p[:end+(len(p)-end)/2]}
	},
	Claims: func(p []byte, _ string, _ int) [][]byte {
		binary.BigEndian.PutUint16(p[6:], 10_000)
		return [][]byte{p}
	},
}

func unless(silent bool, p []byte) [][]byte {
	if silent {
		return nil
	}
	return [][]byte{p}
}

func otherID(p []byte) []byte {
	p = slices.Clone(p)
	p[1]++
	return p
}

// otherQuestion changes the first letter of the name in the question. Answers point
// at that name and change with it.
func otherQuestion(p []byte) []byte {
	p = slices.Clone(p)
	if headerLen+1 < len(p) && p[headerLen] > 0 {
		p[headerLen+1] = 'a' + (p[headerLen+1]+1-'a')%26
	}
	return p
}

const headerLen = 12

// questionEnd returns where the question section of our own packet ends.
func questionEnd(p []byte) int {
	at := headerLen
	for at < len(p) && p[at] > 0 {
		at += int(p[at]) + 1
	}
	return min(at+5, len(p))
}
