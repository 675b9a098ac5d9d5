package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
)

var (
	_ Resolver = (*net.Resolver)(nil)
	_ Resolver = (*resolver.Resolver)(nil)
)

// zoneOf makes a zone of lines "name TYPE data".
func zoneOf(lines ...string) *zone {
	z := newZone()
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		qtype, data, _ := strings.Cut(rest, " ")
		z.Add(name, qtype, data)
	}
	return z
}

func argsFor(ip, from string) Args {
	at := strings.LastIndexByte(from, '@')
	return Args{
		IP:     netip.MustParseAddr(ip),
		Helo:   "mx.client.example",
		Sender: Sender{Local: from[:at], Domain: from[at+1:]},
		Now:    time.Unix(1_700_000_000, 0),
	}
}

func TestIdentitiesAreDifferentTypes(t *testing.T) {
	helo, from := reflect.TypeFor[HeloResult](), reflect.TypeFor[MailFromResult]()
	if helo.AssignableTo(from) || helo.ConvertibleTo(from) || from.ConvertibleTo(helo) {
		t.Error("a HELO result can be used as a MAIL FROM result")
	}
}

func TestNullSenderIsMarked(t *testing.T) {
	z := zoneOf("mx.client.example TXT v=spf1 +all")
	null := CheckMailFrom(t.Context(), z, Args{IP: netip.MustParseAddr("192.0.2.1"), Helo: "mx.client.example"})
	if !null.NullSender || null.Status != Pass || null.Sender != "postmaster@mx.client.example" {
		t.Errorf("null sender: %+v", null)
	}
	other := CheckMailFrom(t.Context(), z, argsFor("192.0.2.1", "a@mx.client.example"))
	if other.NullSender || other.Status != Pass || other.Sender != "a@mx.client.example" {
		t.Errorf("sender: %+v", other)
	}
}

func TestNoClientAddress(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 +all")
	got := CheckMailFrom(t.Context(), z, Args{Sender: Sender{"a", "d.example"}})
	if got.Status != None || !errors.Is(got.Err, errNoAddress) || len(z.Asked()) != 0 {
		t.Errorf("%+v", got)
	}
	if got.ReceivedSPF(Args{}) == "" {
		t.Error("no header value")
	}
}

func TestTempErrorWrapsDNSError(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 include:i.example -all", "i.example TXT v=spf1 a:x.example", "x.example WRAPPED")
	got := CheckMailFrom(t.Context(), z, argsFor("192.0.2.1", "a@d.example"))
	var dns *net.DNSError
	if got.Status != TempError || !errors.As(got.Err, &dns) || dns.Name != "x.example." {
		t.Errorf("%s: %v", got.Status, got.Err)
	}
	for _, part := range []string{"d.example", "include:i.example", "a:x.example", "A x.example."} {
		if !strings.Contains(got.Err.Error(), part) {
			t.Errorf("error does not say %q: %v", part, got.Err)
		}
	}
}

func TestNoExplanation(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 -all exp=why.example", "why.example TXT go away")
	args := argsFor("192.0.2.1", "a@d.example")
	if got := CheckMailFrom(t.Context(), z, args); got.Explanation != "go away" || got.Queries != 2 {
		t.Errorf("%+v", got)
	}
	args.NoExplanation = true
	if got := CheckMailFrom(t.Context(), z, args); got.Explanation != "" || got.Queries != 1 || got.Status != Fail {
		t.Errorf("%+v", got)
	}
}

func TestReceiverDefault(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 -all exp=why.example", "why.example TXT by %{r}, %{h}")
	args := argsFor("192.0.2.1", "a@d.example")
	args.Helo = "b\u00fccher.example."
	if got := CheckMailFrom(t.Context(), z, args).Explanation; got != "by unknown, xn--bcher-kva.example" {
		t.Errorf("%q", got)
	}
}

// partial returns records together with an error, like Go's resolver when it leaves
// out malformed names.
type partial struct {
	*zone
	err error
}

func (p partial) LookupMX(context.Context, string) ([]*net.MX, error) {
	return []*net.MX{{Host: "mx.example."}}, p.err
}

func TestAnswerWithError(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 mx -all", "mx.example A 192.0.2.1")
	tests := []struct {
		err  error
		want Status
	}{
		{&net.DNSError{Err: "DNS response contained records which contain invalid names"}, Pass},
		{&net.DNSError{Err: "server misbehaving", IsTemporary: true}, TempError},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, TempError},
		{errors.New("something else"), TempError},
		{context.Canceled, TempError},
	}
	for _, tt := range tests {
		if got := CheckMailFrom(t.Context(), partial{z, tt.err}, argsFor("192.0.2.1", "a@d.example")); got.Status != tt.want {
			t.Errorf("%v: %s, want %s", tt.err, got.Status, tt.want)
		}
	}
}

// silent never answers.
type silent struct{ *zone }

func (silent) LookupTXT(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		got := CheckMailFrom(ctx, silent{newZone()}, argsFor("192.0.2.1", "a@d.example"))
		if got.Status != TempError || !errors.Is(got.Err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", got.Status, got.Err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestCancelAnywhere cancels each golden case at each of its queries. The status
// must be temperror, or the expected one.
func TestCancelAnywhere(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	cancelled := 0
	for _, file := range files {
		z, cases := readGolden(t, file)
		for _, g := range cases {
			whole := g.check(t.Context(), t, z)
			for at := 1; at <= whole.Queries; at++ {
				got := g.checkCancelled(t, z, at)
				if got.Status != TempError && got.Status != whole.Status {
					t.Errorf("%s: cancelled at query %d: %s, whole: %s", g.name, at, got.Status, whole.Status)
				}
				if got.Status == TempError {
					cancelled++
				}
			}
			z.OnQuery = nil
		}
	}
	if cancelled < 100 {
		t.Errorf("only %d checks were stopped", cancelled)
	}
}

func (g golden) checkCancelled(t *testing.T, z *zone, at int) Result {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	z.OnQuery = func(string) {
		if n++; n == at {
			cancel()
		}
	}
	return g.check(ctx, t, z)
}

func TestCancelledBeforeStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	z := zoneOf("d.example TXT v=spf1 +all")
	got := CheckMailFrom(ctx, z, argsFor("192.0.2.1", "a@d.example"))
	if got.Status != TempError || len(z.Asked()) != 0 {
		t.Errorf("%s after %d queries", got.Status, len(z.Asked()))
	}
}

func TestTrace(t *testing.T) {
	z := zoneOf("d.example TXT v=spf1 mx include:i.example redirect=r.example",
		"d.example MX 5 m.example.", "m.example A 192.0.2.9",
		"i.example TXT v=spf1 ip4:192.0.2.8", "r.example TXT v=spf1 a:broken.example", "broken.example SERVFAIL")
	var got []string
	args := argsFor("192.0.2.1", "a@d.example")
	args.Trace = func(e Event) {
		line := fmt.Sprint(e.Depth, " ", e.Domain, " ", e.Kind, " ", e.Type, e.Name, e.Text, " ", e.Outcome, e.Answers)
		if e.Err != nil {
			line += " !"
		}
		got = append(got, line)
	}
	CheckMailFrom(t.Context(), z, args)
	want := []string{
		"0 d.example query TXTd.example. [v=spf1 mx include:i.example redirect=r.example]",
		"0 d.example record v=spf1 mx include:i.example redirect=r.example []",
		"0 d.example query MXd.example. [5 m.example.]",
		"0 d.example query Am.example. [192.0.2.9]",
		"0 d.example term mx no match[]",
		"1 i.example query TXTi.example. [v=spf1 ip4:192.0.2.8]",
		"1 i.example record v=spf1 ip4:192.0.2.8 []",
		"1 i.example term ip4:192.0.2.8 no match[]",
		"0 d.example term include:i.example no match[]",
		"1 r.example query TXTr.example. [v=spf1 a:broken.example]",
		"1 r.example record v=spf1 a:broken.example []",
		"1 r.example query Abroken.example. [] !",
		"1 r.example term a:broken.example temperror[] !",
		"0 d.example term redirect=r.example no match[]",
	}
	if !slices.Equal(got, want) {
		t.Errorf("trace:\n%s", strings.Join(got, "\n"))
	}
}

func TestBroadOfZero(t *testing.T) {
	if !(Result{}).Broad() || !(Result{Kind: KindA}).Broad() {
		t.Error("a result without network is not broad")
	}
}
