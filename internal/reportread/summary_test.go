package reportread

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// numbered is a report of its own, about another day and of another reporter.
func numbered(t testing.TB, n int, text string) *Report {
	t.Helper()
	const day = 86400
	text = strings.NewReplacer("<report_id>1", fmt.Sprintf("<report_id>%d", n), "Receiver", fmt.Sprintf("Receiver %d", n%2),
		"1700006400", fmt.Sprint(1700006400+n*day), "1700092799", fmt.Sprint(1700092799+n*day)).Replace(text)
	got := readText(t, text, Limits{})
	if len(got.reports) != 1 {
		t.Fatal(got.problems)
	}
	return got.reports[0]
}

func TestSummary(t *testing.T) {
	tally := &Tally{}
	for n := range 3 {
		tally.Add(numbered(t, n, plain()))
		tally.Add(numbered(t, n, plain())) // a copy
	}
	rejected := strings.Replace(feedback(head+rowXML("198.51.100.9", 10, "fail", "fail")), "<disposition>none", "<disposition>reject", 1)
	tally.Add(numbered(t, 3, rejected))
	tally.Add(numbered(t, 4, strings.Replace(rejected, "<domain>example.com</domain><adkim>", "<domain>example.org</domain><adkim>", 1)))
	sum := tally.Summary()
	if sum.Reports != 5 || sum.Duplicates != 3 || len(sum.Domains) != 2 {
		t.Fatalf("got %+v", sum)
	}
	d := sum.Domains[0]
	want := Counts{Messages: 46, Passed: 21, DKIM: 9, SPFPassed: 21, Rejected: 10}
	if d.Domain != "example.com" || d.Counts != want || d.Failed() != 25 || d.Policy != "p=reject; sp=none" || len(d.Reporters) != 2 || d.Reporters[0].Messages != 24 {
		t.Errorf("got %+v", d)
	}
	if len(d.Days) != 4 || d.Days[3].Rejected != 10 || d.Days[0].Passed != 7 || d.Days[0].Day != "2023-11-15" {
		t.Errorf("days %+v", d.Days)
	}
	s := d.Sources[0]
	if s.Address != "198.51.100.9" || s.Messages != 25 || s.Rejected != 10 || len(s.Why) != 2 || s.First != "2023-11-15" || s.Last != "2023-11-18" || s.From[0] != (Count{"example.com", 25}) {
		t.Errorf("source %+v", s)
	}
	if why := s.Why[0].Text; why != "DKIM: fail for example.com, selector s1; SPF: softfail for bounce.example.net" || s.Why[0].Messages != 15 {
		t.Errorf("why %+v", s.Why)
	}
	var total int64
	for _, d := range sum.Domains {
		for _, s := range d.Sources {
			total += s.Messages
		}
	}
	if total != 56 {
		t.Errorf("the sources add up to %d", total)
	}
}

func TestSummaryOfSome(t *testing.T) {
	tally := &Tally{Of: "example.com", Since: time.Unix(1700006400, 0).UTC().Add(24 * time.Hour)}
	for n := range 3 {
		tally.Add(numbered(t, n, plain()))
		tally.Add(numbered(t, n, strings.Replace(plain(), "<domain>example.com</domain><adkim>", "<domain>example.org</domain><adkim>", 1)))
	}
	if sum := tally.Summary(); sum.Reports != 2 || len(sum.Domains) != 1 || sum.Domains[0].Messages != 24 {
		t.Errorf("got %+v", sum)
	}
}

// The sums of forged reports stay in their bounds, and parts stay parts.
func TestSummaryOfHugeCounts(t *testing.T) {
	tally := &Tally{}
	for n := range 20 {
		r := numbered(t, n, plain())
		for i := range r.Groups {
			r.Groups[i].Messages = 1 << 60
		}
		tally.Add(r)
		tally.AddTLS(&TLSReport{ID: r.ID, Begin: r.Begin, End: r.End, Policies: []TLSPolicy{{Domain: "example.com", Successful: 1 << 60, Failed: 1 << 60}}})
	}
	sum := tally.Summary()
	d := sum.Domains[0]
	for _, c := range []Counts{d.Counts, d.Sources[0].Counts} {
		if c.Messages < 1<<60 || c.Passed < 0 || c.Passed > c.Messages {
			t.Errorf("got %+v", c)
		}
	}
	if of := sum.TLS[0]; of.Successful < 1<<60 || of.Failed < 1<<60 || of.Successful+of.Failed < 1<<60 {
		t.Errorf("got %+v", of)
	}
}

const zone = `
$ORIGIN example.com.
@ TXT "v=spf1 ip4:192.0.2.0/28 include:_spf.sender.example -all"
$ORIGIN sender.example.
_spf TXT "v=spf1 include:_a.sender.example ~all"
_a TXT "v=spf1 ip4:203.0.113.0/24 ip6:2001:db8::/64 -all"
out1 A 203.0.113.1
out2 A 203.0.113.2
$ORIGIN in-addr.arpa.
1.113.0.203 PTR out1.sender.example.
2.113.0.203 PTR out2.sender.example.
3.113.0.203 PTR www.bank.example.
1.2.0.192 PTR mail.example.com.
`

// Who the sources are: their names, confirmed or claimed, and the part of the SPF
// record that they fall under.
func TestIdentify(t *testing.T) {
	dns := resolvertest.NewZone(t, zone)
	dns.Fail("9.100.51.198.in-addr.arpa", resolvertest.ServFail)
	rows := ""
	for i, source := range []string{"192.0.2.1", "203.0.113.1", "203.0.113.2", "203.0.113.3", "198.51.100.8", "198.51.100.9", "2001:db8::5"} {
		rows += rowXML(source, 20-i, "pass", "pass")
	}
	tally := &Tally{}
	tally.Add(numbered(t, 0, feedback(head+rows)))
	sum := tally.Summary()
	if failed, late := (Identity{DNS: dns}).Identify(t.Context(), sum); failed != 1 || late != 0 {
		t.Errorf("DNS lookups failed for %d, %d were late", failed, late)
	}
	var got []string
	for _, s := range sum.Domains[0].Sources {
		got = append(got, fmt.Sprintf("%s %q %v %q", s.Address, s.Name, s.Confirmed, s.SPF))
	}
	want := []string{
		`192.0.2.1 "mail.example.com" false "ip4:192.0.2.0/28"`,
		`203.0.113.1 "out1.sender.example" true "include _spf.sender.example (_a.sender.example)"`,
		`203.0.113.2 "out2.sender.example" true "include _spf.sender.example (_a.sender.example)"`,
		`203.0.113.3 "www.bank.example" false "include _spf.sender.example (_a.sender.example)"`,
		`198.51.100.8 "" false "not in the SPF record of example.com"`,
		`198.51.100.9 "" false "not in the SPF record of example.com"`,
		`2001:db8::5 "" false "include _spf.sender.example (_a.sender.example)"`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	sum.BySender()
	first := sum.Domains[0].Sources[0]
	if first.Name != "sender.example" || first.Hosts != 2 || first.Messages != 37 || first.Address != "" {
		t.Errorf("by sender: %+v", first)
	}
	if n := len(sum.Domains[0].Sources); n != 5 { // those two; two in the include; three alone
		t.Errorf("%d senders", n)
	}
}

func TestIdentifyWithoutDNS(t *testing.T) {
	dns := resolvertest.NewZone(t, zone)
	dns.Fail("*", resolvertest.ServFail)
	tally := &Tally{}
	tally.Add(numbered(t, 0, plain()))
	sum := tally.Summary()
	if failed, late := (Identity{DNS: dns, Most: 2}).Identify(t.Context(), sum); failed != 2 || late != 0 {
		t.Errorf("DNS lookups failed for %d, %d were late", failed, late)
	}
	if s := sum.Domains[0].Sources; s[0].Name != "" || s[0].SPF != "" || s[0].Lookup != LookupFailed || s[2].Lookup != LookupNone {
		t.Errorf("got %+v", s)
	}
}

// forged is a report that a stranger has made: it names many sources with huge counts,
// whose name servers are slow.
func forged(t *testing.T, n, sources int) *Report {
	t.Helper()
	r := numbered(t, n, plain())
	r.Groups = nil
	for i := range sources {
		r.Groups = append(r.Groups, Group{Source: netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), From: "example.com", Messages: 1 << 40})
	}
	return r
}

// One forged report cannot use up the time for the DNS, nor the places for sources.
func TestIdentifyDespiteForgedReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns, err := resolvertest.StartZone("example.com. TXT \"v=spf1 ip4:192.0.2.0/28 -all\"\n1.2.0.192.in-addr.arpa. PTR mail.example.com.\n")
		if err != nil {
			t.Fatal(err)
		}
		defer dns.Close()
		dns.SetDelay("*.0.203.in-addr.arpa", time.Hour)
		tally := &Tally{Limits: Limits{Groups: 2000}}
		tally.Add(forged(t, 0, 3000))
		for n := range 2 {
			tally.Add(numbered(t, 1+n, plain()))
		}
		sum := tally.Summary()
		began := time.Now()
		failed, late := (Identity{DNS: dns}).Identify(t.Context(), sum)
		if took := time.Since(began); failed == 0 || late == 0 || took > 35*time.Second {
			t.Errorf("%d failed, %d late, after %v", failed, late, took)
		}
		seen := 0
		for _, s := range sum.Domains[0].Sources {
			switch s.Address {
			case "192.0.2.1", "198.51.100.9", "2001:db8::1":
				seen++
				if s.SPF == "" || s.Lookup != "" {
					t.Errorf("%+v", s)
				}
			}
		}
		if seen != 3 {
			t.Errorf("%d of the sources of others are left", seen)
		}
	})
}

// The texts of forged reports take bounded memory, and leave room for those of others.
func TestSummaryOfLongTexts(t *testing.T) {
	const most = 1 << 20
	tally := &Tally{Limits: Limits{Texts: most}}
	for n := range 6 {
		r := forged(t, n, 1000)
		tls := &TLSReport{ID: r.ID, Begin: r.Begin, End: r.End, Policies: []TLSPolicy{{Domain: "example.com"}}}
		for i := range r.Groups {
			text := fmt.Sprint(n, i, strings.Repeat("x", 500))
			r.Groups[i].From, r.Groups[i].Why = text, "DKIM: "+text
			tls.Policies[0].Failures = append(tls.Policies[0].Failures, TLSFailure{Result: text, Reason: text, Sessions: 1})
		}
		tally.Add(r)
		tally.AddTLS(tls)
	}
	tally.Add(numbered(t, 7, plain()))
	sum := tally.Summary()
	if text := asJSON(t, []any{sum.Domains[0].Sources, sum.TLS[0].Failures}); len(text) > 3*most {
		t.Errorf("the summary has %d octets", len(text))
	}
	for _, s := range sum.Domains[0].Sources {
		if s.Address == "198.51.100.9" && !strings.HasPrefix(s.Why[0].Text, "DKIM: fail for example.com") {
			t.Errorf("%+v", s)
		}
	}
}

func storeAt(t *testing.T, path string) *Store {
	return &Store{Path: path, Keep: 400 * 24 * time.Hour, Now: func() time.Time { return time.Unix(1700006400, 0).AddDate(0, 1, 0) }}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What a store gives back is what was read, with what the DNS said.
func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reports.db")
	if _, err := Stored(t.Context(), path, &Tally{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	store, tally := storeAt(t, path), &Tally{}
	tlsReport := readText(t, strings.ReplaceAll(tlsJSON, "2026-11", "2023-11"), Limits{}).tls[0]
	for range 2 { // the second time all of them are known
		for n := range 3 {
			r := numbered(t, n, plain())
			if err := store.Add(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			tally.Add(r)
		}
		if err := errors.Join(store.AddTLS(t.Context(), tlsReport), store.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		tally.AddTLS(tlsReport)
	}
	if store.New != 4 || store.Known != 4 {
		t.Errorf("%d new, %d known", store.New, store.Known)
	}
	want := tally.Summary()
	want.Duplicates = 0
	want.Domains[0].Sources[0].Name, want.Domains[0].Sources[0].SPF, want.Domains[0].Sources[0].Confirmed = "a.example", "ip4:1", true
	if err := store.Remember(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := Stored(t.Context(), path, &Tally{})
	if err != nil || asJSON(t, got) != asJSON(t, want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, asJSON(t, got), asJSON(t, want))
	}
	some, err := Stored(t.Context(), path, &Tally{Of: "example.com", Since: time.Unix(1700006400, 0).UTC().Add(48 * time.Hour)})
	if err != nil || some.Reports != 2 || len(some.TLS) != 1 || some.Domains[0].Messages != 12 {
		t.Errorf("%v, since the third day: %+v", err, some)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v %v: it can be read by everyone", info.Mode(), err)
	}
}

func TestStoreForgets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reports.db")
	store := storeAt(t, path)
	for n := range 3 {
		if err := store.Add(t.Context(), numbered(t, n, plain())); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	store.Now = func() time.Time { return time.Unix(1700092799, 0).Add(store.Keep + 25*time.Hour) }
	if err := errors.Join(store.Add(t.Context(), numbered(t, 0, plain())), store.Flush(t.Context())); err != nil || store.Old != 1 || store.New != 3 {
		t.Fatalf("%v, %+v", err, store)
	}
	got, err := Stored(t.Context(), path, &Tally{})
	if err != nil || got.Reports != 1 || got.Domains[0].Messages != 12 {
		t.Errorf("%v, %+v", err, got)
	}
}

// The file has a bound: forged reports push out the oldest, and the caller learns it.
func TestStoreIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reports.db")
	const most, reports = 128 << 10, 40
	store := storeAt(t, path)
	store.Most, store.Keep, store.Now = most, 0, func() time.Time { return time.Unix(1700092799, 0).AddDate(1, 0, 0) }
	for n := range reports {
		if err := store.Add(t.Context(), forged(t, n, 100)); err != nil {
			t.Fatal(err)
		}
		if n%5 < 4 {
			continue
		}
		if err := store.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > 2*most {
			t.Fatalf("%v, %d octets after %d reports", err, info.Size(), n)
		}
	}
	got, err := Stored(t.Context(), path, &Tally{})
	if err != nil || store.New != reports || store.Removed == 0 || got.Reports != reports-store.Removed || got.Reports < 5 {
		t.Fatalf("%v, %d reports, %d removed", err, got.Reports, store.Removed)
	}
	oldest := numbered(t, store.Removed, plain()).Day()
	if d := got.Domains[0]; d.Days[0].Day != oldest.Format(time.DateOnly) || store.RemovedUntil.After(oldest) {
		t.Errorf("the oldest is of %s, removed until %s", d.Days[0].Day, store.RemovedUntil)
	}
	one := storeAt(t, filepath.Join(t.TempDir(), "one.db"))
	one.Most = 1
	if err := errors.Join(one.Add(t.Context(), forged(t, 0, 100)), one.Flush(t.Context())); err != nil || one.Removed != 1 {
		t.Errorf("%v, %+v", err, one)
	}
}

// Reports that are dated in the future would stay for ever. They are not stored, and those
// that were stored are removed.
func TestStoreWithoutTheFuture(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reports.db")
	early := storeAt(t, path)
	early.Now = func() time.Time { return time.Unix(1700006400, 0).AddDate(1, 0, 0) }
	if err := errors.Join(early.Add(t.Context(), numbered(t, 200, plain())), early.Flush(t.Context())); err != nil || early.New != 1 {
		t.Fatalf("%v, %+v", err, early)
	}
	for _, keep := range []time.Duration{storeAt(t, path).Keep, 0} {
		store := storeAt(t, path)
		store.Keep = keep
		for _, n := range []int{2, 100} {
			if err := store.Add(t.Context(), numbered(t, n, plain())); err != nil {
				t.Fatal(err)
			}
		}
		tls := &TLSReport{ID: "1", Begin: store.Now(), End: store.Now().AddDate(150, 0, 0), Policies: []TLSPolicy{{Domain: "example.com"}}}
		if err := errors.Join(store.AddTLS(t.Context(), tls), store.Flush(t.Context())); err != nil || store.Future != 2 || store.New+store.Known != 1 {
			t.Fatalf("%v, %+v", err, store)
		}
		if got, err := Stored(t.Context(), path, &Tally{}); err != nil || got.Reports != 1 || len(got.TLS) > 0 {
			t.Errorf("%v, %+v", err, got)
		}
	}
}

// Writers take turns, and whoever reads meanwhile sees what was there before.
func TestStoreShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "reports.db")
	done := make(chan error)
	for n := range 4 {
		go func() {
			store := storeAt(t, path)
			err := store.Add(context.Background(), numbered(t, n, plain()))
			done <- errors.Join(err, store.Flush(context.Background()))
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got, err := Stored(t.Context(), path, &Tally{}); err != nil || got.Reports != 4 {
		t.Errorf("%v, %+v", err, got)
	}
}

func TestStoreOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE users (name TEXT)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, read := Stored(t.Context(), path, &Tally{})
	for what, err := range map[string]error{"read": read, "written": storeAt(t, path).Flush(t.Context())} {
		if err == nil || !strings.Contains(err.Error(), "database of another program") {
			t.Errorf("%s: %v", what, err)
		}
	}
	write(t, path+"2", "this is a text\n")
	if _, err := Stored(t.Context(), path+"2", &Tally{}); err == nil {
		t.Error("a text is taken for a store")
	}
}
