package rotate

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// tsigFudge is how many seconds clocks may differ (RFC 8945 section 10).
const tsigFudge = 300

// updateTimeout bounds one message and its answer.
const updateTimeout = 10 * time.Second

// Update is a publisher by dynamic updates (RFC 2136), signed with TSIG (RFC 8945).
type Update struct {
	Server netip.AddrPort
	Key    *TSIGKey
}

// Change implements [Publisher]: the TXT records of the name are replaced in one
// update.
func (u *Update) Change(ctx context.Context, c Change) error {
	zone, err := u.zoneOf(ctx, c.Name)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(zone)
	name := dns.Fqdn(c.Name)
	m.RemoveRRset([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}}})
	if c.Value != "" {
		m.Insert([]dns.RR{&dns.TXT{
			Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(c.TTL / time.Second)},
			Txt: split(c.Value),
		}})
	}
	m.SetTsig(u.Key.Name, u.Key.Algorithm, tsigFudge, time.Now().Unix())
	in, err := u.send(ctx, m)
	if err := u.checkAnswer(in, err, zone); err != nil || c.Value == "" {
		return err
	}
	return u.checkAlias(ctx, name)
}

// checkAlias returns an error if the name has a CNAME record: the server has then ignored
// the update, and reported success (RFC 2136 section 3.4.2.2).
func (u *Update) checkAlias(ctx context.Context, name string) error {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeCNAME)
	q.RecursionDesired = false
	in, err := u.send(ctx, q)
	if err != nil {
		return err
	}
	for _, rr := range in.Answer {
		if rr, ok := rr.(*dns.CNAME); ok && strings.EqualFold(rr.Hdr.Name, name) {
			return fmt.Errorf("%s has a CNAME record to %s, so that %s ignores an update of it; change the record there by hand, or remove the CNAME record", strings.TrimSuffix(name, "."), strings.TrimSuffix(rr.Target, "."), u.Server)
		}
	}
	return nil
}

// checkAnswer returns an error unless the server has made the update. A success counts only if
// the server has signed it.
func (u *Update) checkAnswer(in *dns.Msg, err error, zone string) error {
	switch {
	case in != nil && in.Rcode != dns.RcodeSuccess:
		detail, code := rcode(in.Rcode), in.Rcode
		if t := in.IsTsig(); t != nil && t.Error != 0 {
			detail, code = detail+", "+rcode(int(t.Error)), int(t.Error)
		}
		return fmt.Errorf("%s refuses an update of %s: %s; %s", u.Server, zone, detail, u.fix(code))
	case err != nil:
		return err
	case in.IsTsig() == nil:
		return fmt.Errorf("%s answered an update of %s without a signature; nothing is known about it", u.Server, zone)
	}
	return nil
}

// fix says what to do after a refusal.
func (u *Update) fix(code int) string {
	switch code {
	case dns.RcodeBadTime:
		return "set the clocks of this host and of the server"
	case dns.RcodeBadSig, dns.RcodeBadKey:
		return "give the server and this host the same key " + u.Key.Name
	case dns.RcodeServerFailure:
		return "look at the log of the server: it may be unable to write the zone or its journal"
	case dns.RcodeNotAuth:
		return "name the primary server of the zone in dns-update"
	}
	return "let the key " + u.Key.Name + " update it (update-policy or allow-update in named.conf), and thaw the zone if it is frozen"
}

// zoneOf asks the server for the zone of a name. A wildcard, or the name itself, may be a
// CNAME record that leads out of the server's zones; then a name above it is asked for.
func (u *Update) zoneOf(ctx context.Context, name string) (zone string, err error) {
	for _, start := range dns.Split(dns.Fqdn(name)) {
		var alias bool
		if zone, alias, err = u.zoneAt(ctx, dns.Fqdn(name)[start:]); !alias {
			break
		}
	}
	return zone, err
}

// zoneAt asks the server for the zone of a name. alias means that it has a CNAME record.
func (u *Update) zoneAt(ctx context.Context, name string) (zone string, alias bool, err error) {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), dns.TypeSOA)
	q.RecursionDesired = false
	in, err := u.send(ctx, q)
	if err != nil {
		return "", false, err
	}
	for _, rr := range slices.Concat(in.Answer, in.Ns) {
		switch rr := rr.(type) {
		case *dns.SOA:
			if in.Authoritative && dns.IsSubDomain(rr.Hdr.Name, q.Question[0].Name) {
				return strings.ToLower(rr.Hdr.Name), false, nil
			}
		case *dns.CNAME:
			alias = true
		}
	}
	return "", alias, fmt.Errorf("%s has no zone for %s (%s); name the primary server of the zone in dns-update", u.Server, strings.TrimSuffix(name, "."), rcode(in.Rcode))
}

// send sends one message over TCP, and returns the answer.
func (u *Update) send(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	client := &dns.Client{Net: "tcp", TsigSecret: map[string]string{u.Key.Name: u.Key.Secret.Reveal()}}
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	in, _, err := client.ExchangeContext(ctx, m, u.Server.String())
	if err != nil {
		return in, fmt.Errorf("%s: %w", u.Server, plain(err))
	}
	if !answers(in, m) {
		return nil, fmt.Errorf("%s answers another question", u.Server)
	}
	return in, nil
}

// answers reports whether a message answers a question. An answer to an update may omit
// the zone (RFC 2136 section 3.8); its signature covers the request.
func answers(in, m *dns.Msg) bool {
	if len(in.Question) == 0 {
		return m.Opcode == dns.OpcodeUpdate
	}
	return len(in.Question) == 1 && strings.EqualFold(in.Question[0].Name, m.Question[0].Name) && in.Question[0].Qtype == m.Question[0].Qtype
}

func rcode(code int) string {
	if text := dns.RcodeToString[code]; text != "" {
		return text
	}
	return fmt.Sprint("code ", code)
}
