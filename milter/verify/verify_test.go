package verify

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/spf"
)

// slowDNS answers every question with err after its delay, unless the asker
// goes first. A delay below zero means never.
type slowDNS struct {
	delay time.Duration
	err   error
	asked atomic.Int64
}

func (s *slowDNS) wait(ctx context.Context) error {
	s.asked.Add(1)
	var late <-chan time.Time
	if s.delay >= 0 {
		late = time.After(s.delay)
	}
	select {
	case <-late:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowDNS) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	return nil, s.wait(ctx)
}
func (s *slowDNS) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return nil, s.wait(ctx)
}
func (s *slowDNS) LookupMX(ctx context.Context, _ string) ([]*net.MX, error) {
	return nil, s.wait(ctx)
}
func (s *slowDNS) LookupAddr(ctx context.Context, _ string) ([]string, error) {
	return nil, s.wait(ctx)
}

var errAbsent = &net.DNSError{Err: "no such host", IsNotFound: true}

func envelope() Envelope {
	return Envelope{Client: netip.MustParseAddr("192.0.2.10"), Helo: "mx.example.com", Sender: mailaddr.Parse("alice@example.com"), MTA: goldenHost}
}

// signedFields are a header with a signature whose key has to be looked up, and
// one field that claims to be ours.
func signedFields() []Field {
	return []Field{
		{Name: "Authentication-Results", Value: " mail.home.example; dkim=pass"},
		{Name: "DKIM-Signature", Value: " v=1; a=rsa-sha256; d=example.com; s=s1; h=from; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=QUJDREVGRw=="},
		{Name: "From", Value: " alice@example.com"},
	}
}

// arrives sends a message through a verifier, waiting between the stages.
func arrives(t *testing.T, v *Verifier, e Envelope, pause time.Duration) Result {
	t.Helper()
	m := v.Start(t.Context(), e)
	defer m.Close()
	time.Sleep(pause)
	m.Header(signedFields())
	time.Sleep(pause)
	m.Write([]byte("Hi\r\n"))
	return m.Finish(t.Context())
}

func wantStatuses(t *testing.T, r Result, mailFrom, dkim, iprev string) {
	t.Helper()
	if r.Findings == nil {
		t.Fatalf("no findings: %v", r.Err)
	}
	if got := string(r.Findings.MailFrom.Status); got != mailFrom {
		t.Errorf("spf %s, want %s", got, mailFrom)
	}
	if got := string(r.Findings.DKIM.Status()); got != dkim {
		t.Errorf("dkim %s, want %s", got, dkim)
	}
	if got := string(r.Findings.IPRev.Value); got != iprev {
		t.Errorf("iprev %s, want %s", got, iprev)
	}
}

// A dead DNS costs the deadline from the end of the header on and no more, and
// gives temporary errors.
func TestDeadDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := New(Options{Resolver: &slowDNS{delay: -1}, Deadline: 4 * time.Second, SPFReject: true})
		began := time.Now()
		r := arrives(t, v, envelope(), time.Second)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		wantStatuses(t, r, "temperror", "temperror", "temperror")
		if r.Reason != record.VerifyUnsure || r.Refusal != nil || len(r.Remove) != 1 {
			t.Errorf("result %+v", r)
		}
		for _, want := range []string{"spf=temperror", "dkim=temperror", "iprev=temperror", "dmarc=temperror"} {
			if !strings.Contains(r.Fields[0].Value, want) {
				t.Errorf("%s has no %s", r.Fields[0].Value, want)
			}
		}
	})
}

// A message that takes long to come has its answers when it ends.
func TestAnswersComeBesideTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &slowDNS{delay: 2 * time.Second, err: errAbsent}
		began := time.Now()
		r := arrives(t, New(Options{Resolver: dns}), envelope(), 5*time.Second)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %v, the message alone takes 10s", took)
		}
		wantStatuses(t, r, "none", "permerror", "permerror")
		if asked := dns.asked.Load(); asked != 6 { // MAIL FROM, HELO, PTR, key, and the two of the walk
			t.Errorf("%d questions", asked)
		}
	})
}

// The caller's deadline cuts the wait short: what is not known is a temporary
// error.
func TestCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Resolver: &slowDNS{delay: -1}, Deadline: time.Hour}).Start(t.Context(), envelope())
		defer m.Close()
		m.Header(signedFields())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		wantStatuses(t, m.Finish(ctx), "temperror", "temperror", "temperror")
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// Close ends the work at every stage, and may be called again.
func TestClose(t *testing.T) {
	for stage, run := range map[string]func(m *Mail){
		"envelope": func(*Mail) {},
		"header":   func(m *Mail) { m.Header(signedFields()) },
		"body":     func(m *Mail) { m.Header(signedFields()); m.Write([]byte("x\r\n")) },
	} {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := New(Options{Resolver: &slowDNS{delay: -1}}).Start(t.Context(), envelope())
				run(m)
				began := time.Now()
				m.Close()
				m.Close()
				if took := time.Since(began); took != 0 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// badDNS panics at what is asked first.
type badDNS struct{ Resolver }

// After a defect there is no verdict, but the daemon goes on and forged results do
// not pass.
func TestPanicBeside(t *testing.T) {
	m := New(Options{Resolver: badDNS{}}).Start(t.Context(), envelope())
	defer m.Close()
	m.Header(signedFields()[2:])
	checkUnverified(t, m.Finish(t.Context()), 0)
}

func TestPanicInMessage(t *testing.T) {
	for stage, spoil := range map[string]func(m *Mail){
		"header": func(m *Mail) { m.afterHeader = nil; m.Header(signedFields()) },
		"body": func(m *Mail) {
			m.Header(signedFields())
			m.dkim.Close()
			m.broken = errors.New("panic: body")
			m.Write(nil)
		},
		"end": func(m *Mail) { m.Header(signedFields()); m.dkim.Close(); m.dkim = nil },
	} {
		t.Run(stage, func(t *testing.T) {
			m := New(Options{Resolver: resolvertest.NewZone(t, "")}).Start(t.Context(), envelope())
			spoil(m)
			defer m.Close()
			checkUnverified(t, m.Finish(t.Context()), 1)
		})
	}
}

func checkUnverified(t *testing.T, r Result, removed int) {
	t.Helper()
	if r.Err == nil || !strings.Contains(r.Err.Error(), "panic") || r.Reason != record.CheckFailed || r.Findings != nil || r.Refusal != nil {
		t.Errorf("result %+v", r)
	}
	if len(r.Remove) != removed {
		t.Errorf("removes %v", r.Remove)
	}
	if len(r.Fields) != 1 || r.Fields[0].Value != " mail.home.example; none" {
		t.Errorf("fields %+v", r.Fields)
	}
}

const failZone = `example.com. TXT "v=spf1 -all"
slow.example. TXT "v=spf1 -all"
`

func TestRefused(t *testing.T) {
	zone := resolvertest.NewZone(t, failZone)
	start := func(reject bool) *Mail {
		m := New(Options{Resolver: zone, SPFReject: reject}).Start(t.Context(), envelope())
		t.Cleanup(m.Close)
		return m
	}
	if r := start(false).Refused(t.Context()); r != nil {
		t.Errorf("refused %+v without being told to", r)
	}
	r := start(true).Refused(t.Context())
	if r == nil || r.Code != 550 || r.Status != "5.7.23" || r.Reason != record.SPFFailed || r.SPF != "fail" {
		t.Errorf("refusal %+v", r)
	}
}

// A recipient is not kept waiting for longer than its own deadline; the end of
// the message refuses then.
func TestRefusedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := lateTXT{&slowDNS{delay: 5 * time.Second, err: errAbsent}}
		m := New(Options{Resolver: dns, SPFReject: true}).Start(t.Context(), envelope())
		defer m.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if r := m.Refused(ctx); r != nil {
			t.Errorf("refused %+v before DNS has spoken", r)
		}
		m.Header(signedFields())
		if r := m.Finish(t.Context()); r.Refusal == nil || r.Reason != record.SPFFailed {
			t.Errorf("not refused: %+v", r)
		}
	})
}

// lateTXT answers "-all" after a while.
type lateTXT struct{ *slowDNS }

func (l lateTXT) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	if err := l.wait(ctx); !errors.Is(err, errAbsent) {
		return nil, err
	}
	return []string{"v=spf1 -all"}, nil
}

func TestAuthservID(t *testing.T) {
	tests := []struct{ id, mta, host, want string }{
		{"id.example", "mta.example", "host.example", "id.example"},
		{"", "mta.example", "host.example", "mta.example"},
		{"", "", "host.example", "host.example"},
		{"", "", "", unknownHost},
	}
	for _, test := range tests {
		o := Options{AuthservID: test.id, HostName: test.host}
		if got := o.authservID(test.mta); got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestDefaults(t *testing.T) {
	if o := New(Options{}).options; o.Deadline != DefaultDeadline || o.Skew != DefaultSkew || o.Now == nil {
		t.Errorf("defaults %+v", o)
	}
	if o := New(Options{Skew: -1}).options; o.Skew != 0 {
		t.Errorf("skew %v", o.Skew)
	}
}

// The record says what each result rests on, and stays small whatever a
// sender writes.
func TestSteps(t *testing.T) {
	zone := resolvertest.NewZone(t, `example.com. TXT "v=spf1 include:pool.example -all"
pool.example. TXT "v=spf1 ip4:192.0.2.0/24 -all"
mx.example.com. TXT "v=spf1 -all"
mx.example.com. A 192.0.2.10
10.2.0.192.in-addr.arpa. PTR mx.example.com.
`)
	m := New(Options{Resolver: zone}).Start(t.Context(), envelope())
	defer m.Close()
	fields := signedFields()
	for range 6 {
		fields = append(fields, Field{Name: "DKIM-Signature", Value: " v=1; d=" + strings.Repeat("a", 5000)})
	}
	m.Header(fields)
	r := m.Finish(t.Context())
	var got []string
	for _, s := range r.Steps {
		got = append(got, s.Check+" "+s.Verdict+" "+s.Detail[:min(len(s.Detail), 50)])
		if len(s.Detail) > maxDetail {
			t.Errorf("detail of %d octets", len(s.Detail))
		}
	}
	long := "dkim permerror " + strings.Repeat("a", 50)
	want := []string{
		"spf pass mailfrom example.com: ip4:192.0.2.0/24 of pool.exa",
		"spf fail helo mx.example.com: -all",
		"dkim permerror example.com/s1: no key", long, long, long, long,
		"dkim none 2 more signatures were not looked at",
		"iprev pass mx.example.com",
		"dmarc none rule no_policy; no_record; walk example.com > com:",
	}
	if !slices.Equal(got, want) {
		t.Errorf("steps\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.Findings.From() != "example.com" || r.Reason != record.Verified {
		t.Errorf("from %s, reason %s", r.Findings.From(), r.Reason)
	}
}

// A client without an address has no SPF, no name, and no field that would have
// to hold its address.
func TestNoClient(t *testing.T) {
	dns := &slowDNS{err: errAbsent}
	m := New(Options{Resolver: dns, ReceivedSPF: true, SPFReject: true}).Start(t.Context(), Envelope{Sender: mailaddr.Parse("a@example.com"), MTA: goldenHost})
	defer m.Close()
	m.Header(nil)
	r := m.Finish(t.Context())
	if len(r.Fields) != 1 || foldsIn.ReplaceAllString(r.Fields[0].Value, " ") != " mail.home.example; spf=none smtp.mailfrom=example.com; dkim=none; dmarc=permerror (from_missing dis=none)" {
		t.Errorf("fields %q", r.Fields)
	}
	if asked := dns.asked.Load(); asked != 0 || r.Refusal != nil {
		t.Errorf("%d questions, refusal %+v", asked, r.Refusal)
	}
}

func TestTrace(t *testing.T) {
	events := make(chan string, 100)
	v := New(Options{Resolver: resolvertest.NewZone(t, failZone), Trace: func(identity string, e spf.Event) {
		events <- identity + " " + string(e.Kind)
	}})
	m := v.Start(t.Context(), envelope())
	m.Header(nil)
	m.Finish(t.Context())
	m.Close()
	close(events)
	got := slices.Collect(func(yield func(string) bool) {
		for e := range events {
			if !yield(e) {
				return
			}
		}
	})
	slices.Sort(got)
	if want := []string{"helo query", "mailfrom query", "mailfrom record", "mailfrom term"}; !slices.Equal(got, want) {
		t.Errorf("events %q", got)
	}
}
