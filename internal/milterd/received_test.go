package milterd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/reportread"
	"github.com/postern-mail/postern/milter/sign"
)

// keepReports writes reports into a file, as `postern dmarc read --store` does.
func keepReports(t *testing.T, path string, reports ...*reportread.Report) {
	t.Helper()
	store := &reportread.Store{Path: path, Now: time.Now}
	for _, r := range reports {
		if err := store.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reportAbout is a report of yesterday. Each group is a source of its own.
func reportAbout(domain, id string, groups ...reportread.Group) *reportread.Report {
	r := &reportread.Report{Org: "receiver.example", ID: id, Begin: time.Now().AddDate(0, 0, -2), End: time.Now().AddDate(0, 0, -1), Groups: groups}
	r.Policy.Domain, r.Policy.P = domain, "reject"
	for _, g := range groups {
		r.Messages += g.Messages
	}
	return r
}

func groupFrom(source string, messages int64, pass bool) reportread.Group {
	g := reportread.Group{Source: netip.MustParseAddr(source), From: "home.example", DKIM: pass, SPF: pass, Messages: messages}
	if !pass {
		g.Why = "DKIM: no signature"
	}
	return g
}

// askSenders asks as the status page does.
func askSenders(t *testing.T, d *running) *api.DMARCSendersResult {
	t.Helper()
	answer, err := receivedCommands(d.current)[api.DMARCSenders](t.Context(), nil, func(any) {})
	if err != nil {
		t.Fatal(err)
	}
	return answer.(*api.DMARCSendersResult)
}

// The page gets from the file what it can trust, and as much of it as it can show.
func TestSenders(t *testing.T) {
	dir := t.TempDir()
	genkey(t, filepath.Join(dir, "keys"), "home.example", sign.RSA)
	path := filepath.Join(dir, "received.db")
	d, _, _ := start(t, "--dkim-keys="+filepath.Join(dir, "keys"), "--received-reports=sqlite:"+path)
	if s := askSenders(t, d); s.File != path || s.Error != "" || s.Changed != nil || len(s.Domains) != 0 {
		t.Errorf("without a file: %+v", s)
	}
	var many []reportread.Group
	for i := range 20 {
		many = append(many, groupFrom(fmt.Sprintf("198.51.100.%d", i), int64(100-i), false))
	}
	ours := reportAbout("home.example", "1", append(many, groupFrom("192.0.2.25", 900, true), groupFrom("192.0.2.26", 800, true))...)
	keepReports(t, path, ours)
	tally := &reportread.Tally{}
	tally.Add(ours)
	sum := tally.Summary()
	for _, s := range sum.Domains[0].Sources {
		switch s.Address {
		case "192.0.2.25":
			s.Name, s.Confirmed, s.SPF = "mail.home.example", true, "mx"
		case "192.0.2.26":
			s.Name, s.SPF = "mail.bank.example", "mx" // the owner of the network claims it
		}
	}
	if err := (&reportread.Store{Path: path, Now: time.Now}).Remember(t.Context(), sum); err != nil {
		t.Fatal(err)
	}
	for i := range 15 { // of a stranger, and larger
		keepReports(t, path, reportAbout(fmt.Sprintf("forged%d.example", i), "1", groupFrom("203.0.113.1", 1<<40, true)))
	}
	s := askSenders(t, d)
	if s.Error != "" || s.Changed == nil || len(s.Domains) != shownDomains || s.More != 6 {
		t.Fatalf("%+v", s)
	}
	home := s.Domains[0]
	if home.Domain != "home.example" || home.Policy != "p=reject" || home.Messages != 3510 || home.Passed != 1700 || len(home.Sources) != shownSources || home.More != 14 || !slices.Equal(home.Reporters, []string{"receiver.example"}) {
		t.Errorf("our domain: %+v", home)
	}
	if first := home.Sources[0]; first.Name != "mail.home.example" || first.Address != "192.0.2.25" || first.DKIM != 900 || first.SPF != "mx" {
		t.Errorf("a name that is confirmed: %+v", first)
	}
	if second := home.Sources[1]; second.Name != "" || second.Address != "192.0.2.26" {
		t.Errorf("a name that is claimed: %+v", second)
	}
	if third := home.Sources[2]; third.Passed != 0 || !slices.Equal(third.Why, []string{"DKIM: no signature"}) {
		t.Errorf("a source that fails: %+v", third)
	}
}

func TestSendersOff(t *testing.T) {
	d, _, _ := start(t, "--received-reports=")
	if s := askSenders(t, d); s != nil {
		t.Errorf("%+v", s)
	}
}

// A file that cannot be read is an error beside what was read before. It is read again
// when it has changed, and not all the time.
func TestReceivedFileInTrouble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "received.db")
	keepReports(t, path, reportAbout("home.example", "1", groupFrom("192.0.2.25", 9, true)))
	r := newReceivedReader(path, nil)
	now := time.Now()
	r.now = func() time.Time { return now }
	read := func() *api.DMARCSendersResult {
		t.Helper()
		s, err := r.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := read(); s.Error != "" || s.Domains[0].Messages != 9 {
		t.Fatalf("%+v", s)
	}
	before := r.file
	if read(); r.file != before {
		t.Error("a file that has not changed was read again")
	}
	keepReports(t, path, reportAbout("home.example", "2", groupFrom("192.0.2.25", 1, true)))
	r.next = now.Add(time.Second)
	if s := read(); s.Domains[0].Messages != 9 {
		t.Errorf("it was read before its time: %+v", s)
	}
	now = r.next
	if s := read(); s.Domains[0].Messages != 10 {
		t.Errorf("it was not read again: %+v", s)
	}
	for name, breakIt := range map[string]func() error{
		"no database": func() error { return os.WriteFile(path, []byte(strings.Repeat("nonsense ", 500)), 0o600) },
		"a pipe":      func() error { return syscall.Mkfifo(path, 0o600) },
		"a folder":    func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := breakIt(); err != nil {
			t.Fatal(err)
		}
		if s := read(); s.Error == "" || s.Domains[0].Messages != 10 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if s := read(); s.Error != "" || len(s.Domains) != 0 {
		t.Errorf("the file is gone: %+v", s)
	}
}

// Who waits for another reader does not wait beyond its own time.
func TestReceivedFileIsReadOnce(t *testing.T) {
	r := newReceivedReader("/nonexistent", nil)
	r.reading <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := r.read(ctx); err == nil {
		t.Errorf("%+v", s)
	}
}

// What a page gets every two seconds is not large, whatever strangers report.
func TestSendersAreBounded(t *testing.T) {
	long := strings.Repeat("x", 512)
	tally := &reportread.Tally{}
	for d := range 20 {
		var groups []reportread.Group
		for i := range 300 {
			g := groupFrom(fmt.Sprintf("198.51.%d.%d", d, i%250), 1, false)
			g.From, g.Why = fmt.Sprint(i, long), fmt.Sprint(i, long)
			groups = append(groups, g)
		}
		r := reportAbout(fmt.Sprint(d, ".", long), "1", groups...)
		r.Org = long
		tally.Add(r)
	}
	domains, more := sendersOf(tally.Summary(), nil)
	text, err := json.Marshal(domains)
	if err != nil || len(text) > 250<<10 || more != 10 {
		t.Errorf("%d octets, %d more, %v", len(text), more, err)
	}
}
