package replay

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

func clients(t *testing.T, text string) *checks.GreylistClients {
	t.Helper()
	l, err := checks.ReadGreylistClients([]string{written(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Of every setting: what replay says of the day's log is what the daemon does on the
// same day with the setting, where the records show it.
func TestEachSettingIsWhatTheDaemonDoes(t *testing.T) {
	for name, change := range map[string]func(*checks.Greylist){
		"allowed clients": func(c *checks.Greylist) { c.AllowClients = clients(t, "198.51.7.0/24\n198.51.9.0/24\npool.example\n") },
		"allowed recipients": func(c *checks.Greylist) {
			c.AllowRecipients, _ = checks.ReadGreylistRecipients([]string{written(t, "u3@home.example\nu4@home.example\n")})
		},
		"allowed senders": func(c *checks.Greylist) {
			c.AllowSenders, _ = checks.ReadGreylistSenders([]string{written(t, "good.example\nbad.example\n")})
		},
		"fewer passes":     func(c *checks.Greylist) { c.Limits.AllowAfter = 1 },
		"wider networks":   func(c *checks.Greylist) { c.Keyer.Bits4 = 16 },
		"keys of networks": func(c *checks.Greylist) { c.Keyer.NetworkKey = true },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(2) {
				before, _, _ := spend(t, newCheck(), day(seed), policy.Enforce)
				daemon, would := newCheck(), newCheck()
				change(daemon)
				change(would)
				after, _, _ := spend(t, daemon, day(seed), policy.Enforce)
				was := newCheck()
				r := play(t, before, Options{Was: of(was), Would: of(would)})
				got, want := r.Greylist.Would, play(t, after, Options{Was: of(would), Would: of(would)}).Greylist.Was
				// How many passes a mail came with is known, when each came is not.
				if got.Deferred != want.Deferred && got.AtLeast == 0 || r.Misfits != 0 || got.Deferred == r.Greylist.Was.Deferred {
					t.Errorf("seed %d: misfits %d, was %+v\ngot  %+v\nwant %+v", seed, r.Misfits, r.Greylist.Was, got, want)
				}
			}
		})
	}
}

// Records of a check in the shadow say what would have been; no one has waited.
func TestShadow(t *testing.T) {
	lines, in, _ := spend(t, newCheck(), day(1), policy.Shadow)
	r := play(t, lines, Options{Was: of(newCheck()), Would: of(newCheck())})
	if r.Differ != 0 || r.Misfits != 0 || r.Greylist.Was.Delayed != r.Greylist.Was.AtLeast || r.Greylist.Was.Deferred == 0 {
		t.Errorf("%d mails came in: %d differences, %d misfits, %+v", in, r.Differ, r.Misfits, r.Greylist.Was)
	}
	if r := play(t, lines, Options{Was: of(newCheck()), Would: of(withDelay(time.Second))}); r.Greylist.Would.Deferred >= r.Greylist.Was.Deferred {
		t.Errorf("%+v", r.Greylist)
	}
}

// What the records do not hold is counted.
func TestUnknownIsCounted(t *testing.T) {
	mails := day(2)
	for name, tt := range map[string]struct {
		was, would func(*checks.Greylist)
		want       string
	}{
		"a client that was allowed": {func(c *checks.Greylist) { c.AllowClients = clients(t, "198.51.7.7\n") }, func(*checks.Greylist) {}, unknownSPF},
		"suspicious mails only":     {func(*checks.Greylist) {}, func(c *checks.Greylist) { c.OnlySuspicious = true }, unknownSuspicion},
		"keys of domains":           {func(c *checks.Greylist) { c.Keyer.NetworkKey = true }, func(*checks.Greylist) {}, unknownDomain},
	} {
		was, would, daemon := newCheck(), newCheck(), newCheck()
		tt.was(daemon)
		tt.was(was)
		tt.would(would)
		lines, _, _ := spend(t, daemon, mails, policy.Enforce)
		if r := play(t, lines, Options{Was: of(was), Would: of(would)}); r.Unknown[tt.want] == 0 || r.Misfits != 0 {
			t.Errorf("%s: %d misfits, unknown %v", name, r.Misfits, r.Unknown)
		}
	}
}

// Records that were made with other settings are noticed.
func TestMisfits(t *testing.T) {
	lines, _, _ := spend(t, withDelay(10*time.Minute), day(1), policy.Enforce)
	if r := play(t, lines, Options{Was: of(newCheck()), Would: of(newCheck())}); r.Misfits == 0 {
		t.Errorf("%+v", r)
	}
	all := strings.SplitAfter(lines, "\n")
	gap := strings.Join(append(append([]string{}, all[:len(all)/4]...), all[len(all)/2:]...), "")
	if r := play(t, gap, Options{Was: of(withDelay(10 * time.Minute)), Would: of(withDelay(10 * time.Minute))}); r.Differ != 0 {
		t.Errorf("of a log with a gap: %d misfits, %d differences", r.Misfits, r.Differ)
	}
}

// A flood is what the records say it was, unless its bounds are tried.
func TestFloods(t *testing.T) {
	flooded := func(limit int) *checks.Greylist {
		c := newCheck()
		c.Limits.NetworkCap = limit
		return c
	}
	lines, _, _ := spend(t, flooded(2), day(3), policy.Enforce)
	if !strings.Contains(lines, string(record.GreylistFloodNetwork)) {
		t.Fatal("the day has no flood")
	}
	if r := play(t, lines, Options{Was: of(flooded(2)), Would: of(flooded(2))}); r.Differ != 0 || r.Misfits != 0 {
		t.Errorf("%d differences, %d misfits", r.Differ, r.Misfits)
	}
	r := play(t, lines, Options{Was: of(flooded(2)), Would: of(flooded(0))})
	if r.Misfits != 0 || r.Greylist.Would.Waits.Median > r.Greylist.Was.Waits.Median {
		t.Errorf("%+v", r.Greylist)
	}
}

func TestLists(t *testing.T) {
	var l log
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	for i, s := range []record.Step{
		{Check: "dnsbl", Verdict: "reject", Reason: record.DNSBLClientListed, Detail: "score=3; zen.test=127.0.0.2 (SBL) 192.0.2.7 weight=3"},
		{Check: "dnsbl", Verdict: "pass", Reason: record.DNSBLBelowThreshold, Detail: "score=1; zen.test=127.0.0.2 (SBL) 192.0.2.7 weight=1"},
		{Check: "dnsbl", Verdict: "pass", Reason: record.DNSBLClean},
		{Check: "dnsbl", Verdict: "none", Reason: record.DNSBLAuthenticated},
	} {
		r := record.Record{Daemon: "policyd", Check: "dnsbl", Verdict: s.Verdict, Reason: s.Reason, Mode: "enforce", ClientAddress: "192.0.2.7", Sender: "a@b.example", Recipient: "c@d.example", Steps: []record.Step{s}}
		if s.Verdict == "pass" {
			r.Steps = append(r.Steps, record.Step{Check: "greylist", Verdict: "defer", Reason: record.GreylistNew, Detail: "key=192.0.2.0/24 sender=a@b.example"})
		}
		l.Record(&r, at.Add(time.Duration(i)*time.Hour))
	}
	side := func(threshold int) Settings { return Settings{Greylist: newCheck(), Threshold: threshold} }
	r := play(t, l.String(), Options{Was: side(2), Would: side(1)})
	if r.Lists != (Lists{Asked: 3, WasRefused: 1, WouldRefuse: 2}) || r.Differ != 1 || r.Differences[0].Was != "dnsbl_below_threshold" {
		t.Errorf("%+v", r)
	}
	r = play(t, l.String(), Options{Was: side(2), Would: side(4)})
	if r.Lists != (Lists{Asked: 3, WasRefused: 1}) || r.Unknown[unknownAfterList] != 1 {
		t.Errorf("%+v", r)
	}
}

func TestWaysAreGivenUp(t *testing.T) {
	w := newWays()
	at := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	id := greylist.TripletID("192.0.2.0/24", "a", "b")
	m := w.begin(id, at)
	m.was, m.would = true, true
	if w.at(id, at.Add(time.Hour), 2*time.Hour) != m || w.at(id, at.Add(3*time.Hour), 2*time.Hour) != nil {
		t.Error("not given up when its time is over")
	}
	if w.was.side.Gone != 1 || w.would.side.Gone != 1 || len(w.open) != 0 {
		t.Errorf("%+v", w)
	}
}
