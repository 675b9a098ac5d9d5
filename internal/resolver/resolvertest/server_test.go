package resolvertest_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const zone = `
org.            IN SOA ns.org. me.org. 1 3600 600 86400 30
a.org.          IN A   192.0.2.1
a.org.          IN TXT "text"
c.org.          IN CNAME a.org.
*.w.org.        IN TXT "wild"
taken.w.org.    IN A   192.0.2.2
deep.ent.org.   IN A   192.0.2.3
*.far.example.  IN CNAME a.org.
`

// ask sends one query with another implementation than ours.
func ask(t *testing.T, s *resolvertest.Server, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	client := &dns.Client{Net: network}
	m, _, err := client.Exchange(q, s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestServerAnswersAsARecursiveServer(t *testing.T) {
	s := resolvertest.New(t, zone)
	for _, c := range []struct {
		name    string
		qtype   uint16
		code    int
		answers string
		soa     string
	}{
		{"A.org", dns.TypeA, 0, "A", ""},
		{"c.org", dns.TypeTXT, 0, "CNAME TXT", ""},
		{"c.org", dns.TypeCNAME, 0, "CNAME", ""},
		{"a.org", dns.TypeMX, 0, "", "org."},
		{"x.y.w.org", dns.TypeTXT, 0, "TXT", ""},
		{"x.w.org", dns.TypeA, 0, "", "org."},
		{"taken.w.org", dns.TypeTXT, 0, "", "org."},
		{"x.taken.w.org", dns.TypeTXT, 3, "", "org."},
		{"ent.org", dns.TypeA, 0, "", "org."},
		{"x.ent.org", dns.TypeA, 3, "", "org."},
		{"absent.example", dns.TypeA, 3, "", "."},
		{"x.far.example", dns.TypeA, 0, "CNAME A", ""},
		{".", dns.TypeA, 3, "", "."},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, s, network, c.name, c.qtype)
			var types []string
			for _, rr := range m.Answer {
				types = append(types, dns.TypeToString[rr.Header().Rrtype])
			}
			soa := ""
			if len(m.Ns) == 1 {
				soa = m.Ns[0].Header().Name
			}
			if m.Rcode != c.code || strings.Join(types, " ") != c.answers || soa != c.soa {
				t.Errorf("%s %s over %s:\n%v", c.name, dns.TypeToString[c.qtype], network, m)
			}
		}
	}
}

func TestServerCutsWhatUDPDoesNotCarry(t *testing.T) {
	s := resolvertest.New(t, strings.Repeat("big. IN TXT \""+strings.Repeat("x", 200)+"\"\n", 1)+
		"big. IN TXT \""+strings.Repeat("y", 250)+"\"\nbig. IN TXT \""+strings.Repeat("z", 250)+"\"\n")
	if m := ask(t, s, "udp", "big", dns.TypeTXT); !m.Truncated {
		t.Error("700 bytes in a packet of 512")
	}
	if m := ask(t, s, "tcp", "big", dns.TypeTXT); m.Truncated || len(m.Answer) != 3 {
		t.Errorf("%v", m)
	}
}

func TestContentChanges(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	lookup := func(name string) error {
		_, err := z.LookupTXT(t.Context(), name)
		return err
	}
	if err := z.Add("new.org. IN TXT \"x\"\nb.new.org. IN A 192.0.2.1"); err != nil || lookup("new.org") != nil {
		t.Errorf("added: %v, %v", err, lookup("new.org"))
	}
	z.Remove("new.org")
	if err := lookup("new.org"); !errors.Is(err, resolver.ErrNoData) {
		t.Errorf("with a name below: %v", err)
	}
	z.Remove("b.new.org")
	z.Remove("never.there")
	if err := lookup("new.org"); !errors.Is(err, resolver.NXDomain) {
		t.Errorf("removed: %v", err)
	}
	if err := z.Replace("only. IN TXT \"x\""); err != nil || lookup("only") != nil || lookup("a.org") == nil {
		t.Errorf("replaced: %v, %v, %v", err, lookup("only"), lookup("a.org"))
	}
	for _, bad := range []string{"a.org. IN NOTYPE x", "a.org. IN A 1.2.3"} {
		if z.Add(bad) == nil || z.Replace(bad) == nil {
			t.Errorf("%q taken", bad)
		}
	}
	if lookup("only") != nil {
		t.Error("a refused text changed the content")
	}
}

func TestPatternsTheMostSpecificCounts(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	z.Fail("*", resolvertest.ServFail)
	z.Fail("*.w.org", resolvertest.Refused)
	z.Fail("X.w.org", resolvertest.Healthy)
	for name, want := range map[string]error{
		"a.org": resolver.ServFail, "w.org": resolver.ServFail, "y.w.org": resolver.Refused, "z.y.w.org": resolver.Refused, "x.w.org": nil,
	} {
		if _, err := z.LookupTXT(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := resolvertest.NewZone(t, zone)
		z.SetDelay("a.org", time.Second)
		start := time.Now()
		if _, err := z.LookupTXT(t.Context(), "a.org"); err != nil || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		z.Fail("a.org", resolvertest.Unavailable)
		z.SetDelay("a.org", 0)
		start = time.Now()
		_, err := z.LookupTXT(t.Context(), "a.org")
		if !errors.Is(err, resolver.ErrTimeout) || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		z.Fail("a.org", resolvertest.Silence)
		if _, err := z.LookupTXT(ctx, "a.org"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A delay over sockets ends with Close, which waits for it.
func TestCloseEndsDelays(t *testing.T) {
	s, err := resolvertest.Start(zone)
	if err != nil {
		t.Fatal(err)
	}
	s.SetDelay("*", time.Hour)
	q, err := new(dns.Msg).SetQuestion("a.org.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dns.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(q); err != nil {
		t.Fatal(err)
	}
	for s.Total() == 0 {
		runtime.Gosched()
	}
	s.Close()
	s.Close()
}

func TestQueryLog(t *testing.T) {
	s := resolvertest.New(t, zone)
	s.Fail("c.org", resolvertest.Truncate)
	r, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"A.org", "c.org"} {
		if _, err := r.LookupTXT(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	want := []resolvertest.Query{
		{Name: "a.org.", Type: "TXT", Network: "udp", EDNS: true},
		{Name: "c.org.", Type: "TXT", Network: "udp", EDNS: true},
		{Name: "c.org.", Type: "TXT", Network: "tcp", EDNS: true},
	}
	if got := s.Queries(); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if s.Total() != 3 || s.Count("C.org", "TXT") != 2 || s.Count("c.org", "A") != 0 || s.Count("a.org", "") != 1 {
		t.Errorf("%d in all", s.Total())
	}
	s.ResetLog()
	if s.Total() != 0 || len(s.Queries()) != 0 {
		t.Error("not forgotten")
	}
}

func TestQueryLogIsBounded(t *testing.T) {
	z := resolvertest.NewZone(t, zone)
	const asked = 10_000
	for range asked {
		if _, err := z.LookupTXT(t.Context(), "a.org"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(z.Queries()); n > 8192 || z.Total() != asked {
		t.Errorf("%d kept of %d", n, z.Total())
	}
}

func TestStartErrors(t *testing.T) {
	taken := resolvertest.New(t, zone)
	for _, c := range [][2]string{{"192.0.2.1:0", zone}, {"localhost:0", zone}, {"127.0.0.1", zone}, {taken.Addr(), zone}, {"127.0.0.1:0", "nonsense"}} {
		if s, err := resolvertest.StartAt(c[0], c[1]); err == nil {
			s.Close()
			t.Errorf("started at %s with %q", c[0], c[1])
		}
	}
	if _, err := resolvertest.StartZone("nonsense"); err == nil {
		t.Error("nonsense taken for a zone")
	}
}
