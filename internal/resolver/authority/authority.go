// Package authority asks every authoritative server of a name and returns the
// answer of each.
//
// A resolver returns one answer. It may be an old one from its cache, or come from
// one server of several. A record is published only when every server of the zone
// has it, because a receiver may ask any of them.
//
// The servers are found through a resolver. They are asked without recursion. An
// answer without the AA bit is an error of that server. CNAME records are returned
// and not followed: the caller asks for the name that they lead to.
package authority

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver"
)

// Limits of one question.
const (
	maxServers     = 32 // addresses
	maxAsked       = 8  // at a time
	maxNameServers = 16
	defaultTimeout = 3 * time.Second // of one try
	tries          = 2
	udpSize        = 1232
)

// Lookup asks a resolver; see [resolver.Resolver.Query].
type Lookup interface {
	Query(ctx context.Context, name string, qtype uint16) (resolver.Answer, error)
}

// Asker asks the servers of a zone.
type Asker struct {
	DNS     Lookup        // finds zones, their servers and the addresses of these
	Timeout time.Duration // of one try; 0 means 3 s
	Port    uint16        // 0 means 53
	// Servers replaces the servers that DNS names. Zone is then empty.
	Servers []netip.AddrPort
	// Negative also asks each server how long its negative answers are cached.
	Negative bool
}

// Answer holds what each server of a zone answered for a name.
type Answer struct {
	Zone    string // with its last dot
	Replies []Reply
}

// Reply is the answer of one server.
type Reply struct {
	Server string     // its name, with the last dot
	Addr   netip.Addr // not valid when the name has none
	// Records are the TXT records, each as its list of strings.
	Records [][]string
	TTL     time.Duration // of Records, the shortest, or of the CNAME record
	Alias   string        // target of a CNAME record at the name, "" for none
	Absent  bool          // the name does not exist
	Err     error         // why there is no usable answer
	// Negative is how long a negative answer is cached; 0 when it was not asked
	// for.
	Negative time.Duration

	port uint16
}

// Texts returns the records as verifiers read them: their strings joined.
func (r *Reply) Texts() []string {
	var all []string
	for _, parts := range r.Records {
		all = append(all, strings.Join(parts, ""))
	}
	return all
}

// String names the server.
func (r *Reply) String() string {
	name := strings.TrimSuffix(r.Server, ".")
	if !r.Addr.IsValid() {
		return name
	}
	return name + " [" + r.Addr.String() + "]"
}

// TXT asks every server of the zone of a name for its TXT records. The error means
// that the servers could not be found. The error of one server is in its reply.
func (a *Asker) TXT(ctx context.Context, name string) (Answer, error) {
	name = dns.Fqdn(strings.ToLower(name))
	zone, replies, err := a.replies(ctx, name)
	if err != nil {
		return Answer{}, err
	}
	var asking sync.WaitGroup
	places := make(chan struct{}, maxAsked)
	for i := range replies {
		if replies[i].Err != nil {
			continue
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			a.askServer(ctx, &replies[i], name)
		})
	}
	asking.Wait()
	return Answer{Zone: zone, Replies: replies}, nil
}

// replies returns an empty reply for each server.
func (a *Asker) replies(ctx context.Context, name string) (zone string, replies []Reply, err error) {
	for _, at := range a.Servers {
		replies = append(replies, Reply{Server: at.String(), Addr: at.Addr(), port: at.Port()})
	}
	if len(replies) > 0 {
		return "", replies, nil
	}
	zone, hosts, err := a.servers(ctx, name)
	if err != nil {
		return "", nil, err
	}
	return zone, a.addresses(ctx, hosts), nil
}

// servers returns the zone of a name and the names of its servers. It passes over
// names with a CNAME record: there, the resolver answers about another zone.
func (a *Asker) servers(ctx context.Context, name string) (zone string, hosts []string, err error) {
	for _, start := range dns.Split(name) {
		at := name[start:]
		answer, err := a.DNS.Query(ctx, at, resolver.TypeNS)
		if err != nil && start == 0 {
			continue // a CNAME record may point at a zone that does not answer
		}
		if err != nil {
			return "", nil, fmt.Errorf("name servers of %s: %w", at, err)
		}
		if answer.Status == resolver.Found && strings.EqualFold(answer.Name, at) && len(answer.Names) > 0 {
			hosts := slices.Clone(answer.Names)
			slices.Sort(hosts)
			return at, hosts[:min(len(hosts), maxNameServers)], nil
		}
	}
	return "", nil, fmt.Errorf("no zone above %s has name servers", name)
}

// addresses returns an empty reply for each address of the servers.
func (a *Asker) addresses(ctx context.Context, hosts []string) []Reply {
	var replies []Reply
	for _, host := range hosts {
		v4, err4 := a.DNS.Query(ctx, host, resolver.TypeA)
		v6, err6 := a.DNS.Query(ctx, host, resolver.TypeAAAA)
		addrs := slices.Concat(v4.Addrs, v6.Addrs)
		if len(addrs) == 0 {
			err := cmp.Or(err4, err6, errors.New("the name server has no address"))
			replies = append(replies, Reply{Server: host, Err: err})
		}
		for _, addr := range addrs {
			replies = append(replies, Reply{Server: host, Addr: addr.Unmap()})
		}
	}
	return replies[:min(len(replies), maxServers)]
}

// askServer asks the server of a reply and fills the reply in.
func (a *Asker) askServer(ctx context.Context, r *Reply, name string) {
	answer, err := a.question(ctx, r, name, dns.TypeTXT)
	if err == nil {
		r.take(answer, name)
	}
	if err == nil && a.Negative {
		// The question is for a type that the name does not have. SOA cannot be
		// used: BIND gives its negative answers for SOA a TTL of 0.
		answer, err = a.question(ctx, r, name, dns.TypeA)
		r.takeNegative(answer)
	}
	r.Err = err
}

// question asks a server one question and returns its authoritative answer.
func (a *Asker) question(ctx context.Context, r *Reply, name string, qtype uint16) (*dns.Msg, error) {
	at := net.JoinHostPort(r.Addr.String(), strconv.Itoa(int(cmp.Or(r.port, a.Port, 53))))
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.RecursionDesired = false
	m.SetEdns0(udpSize, false)
	answer, err := a.exchange(ctx, m, at)
	switch {
	case err != nil:
		return nil, err
	case answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError:
		return nil, fmt.Errorf("it answers %s", dns.RcodeToString[answer.Rcode])
	case !answer.Authoritative:
		return nil, errors.New("it is not responsible for the zone (lame delegation)")
	}
	return answer, nil
}

// takeNegative stores how long a negative answer is cached (RFC 2308 section 5).
func (r *Reply) takeNegative(answer *dns.Msg) {
	if answer == nil {
		return
	}
	for _, rr := range slices.Concat(answer.Answer, answer.Ns) {
		if rr, ok := rr.(*dns.SOA); ok {
			r.Negative = time.Duration(min(rr.Minttl, rr.Hdr.Ttl)) * time.Second
		}
	}
}

// take stores the records that an answer has at the name itself.
func (r *Reply) take(answer *dns.Msg, name string) {
	for _, rr := range answer.Answer {
		if !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		ttl := time.Duration(rr.Header().Ttl) * time.Second
		switch rr := rr.(type) {
		case *dns.TXT:
			if len(r.Records) == 0 || ttl < r.TTL {
				r.TTL = ttl
			}
			r.Records = append(r.Records, unescaped(rr.Txt))
		case *dns.CNAME:
			r.Alias, r.TTL = strings.ToLower(rr.Target), ttl
		}
	}
	r.Absent = answer.Rcode == dns.RcodeNameError && r.Alias == ""
}

// unescaped returns strings with the octets of the packet. The library returns them
// with the escapes of zone files.
func unescaped(parts []string) []string {
	all := make([]string, len(parts))
	for i, part := range parts {
		all[i] = resolver.Unescape(part)
	}
	return all
}

// exchange asks over UDP, at most twice. It asks over TCP when the answer does not
// fit.
func (a *Asker) exchange(ctx context.Context, m *dns.Msg, at string) (answer *dns.Msg, err error) {
	for range tries {
		if answer, err = a.once(ctx, m, at, "udp"); err == nil {
			break
		}
	}
	if err == nil && answer.Truncated {
		answer, err = a.once(ctx, m, at, "tcp")
	}
	return answer, err
}

func (a *Asker) once(ctx context.Context, m *dns.Msg, at, network string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(a.Timeout, defaultTimeout))
	defer cancel()
	client := dns.Client{Net: network, UDPSize: udpSize}
	answer, _, err := client.ExchangeContext(ctx, m, at)
	return answer, err
}
