package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redistest"
)

// sharedSite is a site whose daemons share a Redis, and what they have written there.
type sharedSite struct {
	t      *testing.T
	redis  *redis.Client
	server *redistest.Server
	name   string                    // of this host
	own    map[string]map[string]any // its records, by setting
	begun  map[string]time.Time      // when each was written first
	start  time.Time                 // of the latest of them
}

func newSharedSite(t *testing.T) (*sharedSite, *Facts) {
	t.Helper()
	server := redistest.Start(t)
	shared := &sharedSite{t: t, server: server, redis: redis.NewClient(&redis.Options{Addr: server.Addr}), own: make(map[string]map[string]any), begun: make(map[string]time.Time)}
	t.Cleanup(func() { _ = shared.redis.Close() })
	s := newSite(t)
	s.policyd = override(s.policyd, fmt.Sprintf("checks = [\"ownership\", \"limit\", \"dnsbl\", \"greylist\"]\ngreylist-store = \"redis://%s\"\nlimit-store = \"redis://%s\"\nlimit = [\"login.recipients=300/1h\"]\n", server.Addr, server.Addr))
	s.milterd = override(s.milterd, fmt.Sprintf("report-store = \"redis://%s\"\nreport-from = \"reports@home.example\"\ndkim-rotate = \"90d\"\ndkim-rotate-lead = \"redis://%s\"\n", server.Addr, server.Addr))
	s.save()
	s.start()
	for _, setting := range []string{"greylist-store", "limit-store", "report-store", "dkim-rotate-lead"} {
		var values []string
		for len(values) == 0 { // it is written in the background
			var err error
			values, err = shared.redis.HVals(t.Context(), hashOf(setting)).Result()
			s.must(err)
		}
		var since, seen int64
		_, err := fmt.Sscanf(values[0], "%d %d", &since, &seen)
		s.must(err)
		var own map[string]any
		s.must(json.Unmarshal([]byte(values[0][strings.Index(values[0], "{"):]), &own))
		shared.own[setting], shared.begun[setting] = own, time.UnixMilli(since)
		if shared.begun[setting].After(shared.start) {
			shared.start = shared.begun[setting]
		}
	}
	var err error
	shared.name, err = os.Hostname()
	s.must(err)
	f := gather(t.Context(), s.options())
	t.Cleanup(f.close)
	return shared, f
}

func hashOf(setting string) string { return "{postern}:hosts:" + setting }

// beside writes a record of another host: that of this one with changes.
func (s *sharedSite) beside(setting string, seen time.Time, change func(record map[string]any)) {
	s.t.Helper()
	record := maps.Clone(s.own[setting])
	record["settings"] = maps.Clone(record["settings"].(map[string]any))
	record["host"] = "mx2"
	record["clock"] = seen.UnixMilli()
	change(record)
	text, err := json.Marshal(record)
	if err != nil {
		s.t.Fatal(err)
	}
	s.put(setting, "other", fmt.Sprintf("%d %d %s", s.start.Add(-time.Hour).UnixMilli(), seen.UnixMilli(), text))
}

func (s *sharedSite) put(setting, field, value string) {
	s.t.Helper()
	if err := s.redis.HSet(s.t.Context(), hashOf(setting), field, value).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// alone removes what was written beside our own records.
func (s *sharedSite) alone() {
	s.t.Helper()
	for setting := range s.own {
		if err := s.redis.HDel(s.t.Context(), hashOf(setting), "other").Err(); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestHostsThatShareRedis(t *testing.T) {
	s, f := newSharedSite(t)
	t.Run("differ", func(t *testing.T) { hostsThatDiffer(t, s, f) })
	t.Run("cannot be compared", func(t *testing.T) { hostsThatCannotBeCompared(t, s, f) })
}

// Of two hosts each setting that differs is one warning with the hosts and their values, and
// so are releases, clocks and names. A host that is gone does not count.
func hostsThatDiffer(t *testing.T, s *sharedSite, f *Facts) {
	t.Helper()
	now := s.start.Add(20 * time.Second)
	same := func(map[string]any) {}
	expect := func(what string, want ...string) {
		t.Helper()
		if got := strings.ReplaceAll(show(checkHosts(t.Context(), f)), "; fix: \n", "\n"); got != strings.Join(want, "") { // what is good needs no fix
			t.Errorf("%s: got\n%swant\n%s", what, got, strings.Join(want, ""))
		}
		s.alone()
	}
	only := "only " + s.name + " uses it\n"
	both := "2 hosts with the same settings (" + strings.Join(slices.Sorted(slices.Values([]string{s.name, "mx2"})), ", ") + ")\n"
	const rest = "limit-store, dkim-rotate-lead, report-store"
	expect("alone", "ok : greylist-store, "+rest+": "+only)
	for setting := range s.own {
		s.beside(setting, now, same)
	}
	expect("the same settings", "ok : greylist-store, "+rest+": "+both)

	compared := 0
	for setting, own := range s.own {
		for name, value := range own["settings"].(map[string]any) {
			compared++
			s.beside(setting, now, func(r map[string]any) { r["settings"].(map[string]any)[name] = "zzz" })
			shown := value
			if value == "" {
				shown = `""`
			}
			got := checkHosts(t.Context(), f)
			at := slices.IndexFunc(got, func(found Finding) bool { return found.Level != OK })
			want := fmt.Sprintf("%s is not the same on the hosts that share %s: %s on %s; zzz on mx2", name, setting, shown, s.name)
			if at < 0 || got[at].Level != Warn || got[at].Text != want || got[at].Fix == "" || len(got) != 2 {
				t.Errorf("%s: %s", want, show(got))
			}
			s.alone()
		}
	}
	if compared != 25 {
		t.Errorf("%d settings are compared", compared)
	}
	s.beside("greylist-store", now, func(r map[string]any) {
		r["settings"] = map[string]any{"of-another-release": "x"}
		r["more"] = 1
	})
	expect("other fields", "ok : greylist-store: "+both, "ok : "+rest+": "+only)

	s.beside("greylist-store", now, func(r map[string]any) { r["release"] = "0" })
	s.beside("limit-store", now, func(r map[string]any) { r["release"] = "0" })
	expect("another release", fmt.Sprintf("warn : the hosts that share a Redis have different releases: 0 on mx2; %s on %s; fix: install the same on all of them\n", s.own["limit-store"]["release"], s.name),
		"ok : dkim-rotate-lead, report-store: "+only)

	s.beside("greylist-store", now, func(r map[string]any) { r["clock"] = now.Add(-2 * time.Hour).UnixMilli() })
	expect("another clock", "warn : the clock of mx2 is 2h0m0s behind that of the Redis server; fix: have both kept right (timedatectl set-ntp true); signatures carry the time of the host, and the greylist counts that of the server\n",
		"ok : "+rest+": "+only)

	s.beside("dkim-rotate-lead", now, func(r map[string]any) { r["host"], r["up"] = s.name, 1000 })
	expect("two machines of one name", "warn : two machines that share a Redis are called "+s.name+": if one of them leads the rotation of DKIM keys, both do; fix: give each a name of its own (hostnamectl set-hostname NAME) and restart both daemons there\n",
		"ok : greylist-store, limit-store, report-store: "+only)

	s.beside("greylist-store", now.Add(-hosts.Keep-time.Minute), func(r map[string]any) { r["settings"].(map[string]any)["greylist-delay"] = "1h" })
	expect("a host that is gone", "ok : greylist-store, "+rest+": "+only)
}

// What cannot be read, and settings that were not written, are warnings. A server that is away
// is one of the stores check.
func hostsThatCannotBeCompared(t *testing.T, s *sharedSite, f *Facts) {
	t.Helper()
	const setting = "greylist-store"
	s.server.Command("-e", "acl", "setuser", "default", "-evalsha") // so that the daemons write nothing meanwhile
	warned := func(what, text, fix string) {
		t.Helper()
		found := checkHosts(t.Context(), f)
		if len(found) != 2 || found[0].Level != Warn || !strings.Contains(found[0].Text, text) || !strings.Contains(found[0].Fix, fix) || found[1].Level != OK {
			t.Errorf("%s: %s", what, show(found))
		}
		s.alone()
	}
	for _, value := range []string{"garbage", "1 2 {}", strings.Repeat("x", 1<<20)} {
		s.put(setting, "other", value)
		warned(value[:1], "greylist-store: 1 records of hosts have another form", "?prefix=NAME")
	}
	if err := s.redis.Del(t.Context(), hashOf(setting)).Err(); err != nil {
		t.Fatal(err)
	}
	f.Options.now = func() time.Time { return s.begun[setting] } // the other daemon may have started minutes later
	if got := show(checkHosts(t.Context(), f)); !strings.Contains(got, "ok : greylist-store: no host has written its settings yet;") || strings.Contains(got, "warn") {
		t.Errorf("of a daemon that was just started: %s", got)
	}
	f.Options.now = func() time.Time { return time.Now().Add(time.Hour) }
	warned("of one that runs for an hour", "greylist-store: postern-policyd has not written the settings of "+s.name, "see the log of postern-policyd")
	f.Options.now = time.Now

	if err := s.redis.Set(t.Context(), hashOf(setting), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	found := checkHosts(t.Context(), f)
	if len(found) != 2 || found[0].Level != Warn || !strings.Contains(found[0].Text, "WRONGTYPE") || !strings.Contains(found[0].Fix, "which other program") {
		t.Errorf("of a key of another type: %s", show(found))
	}
	if err := s.redis.Close(); err != nil {
		t.Fatal(err)
	}
	s.server.Kill()
	if found := checkHosts(t.Context(), f); len(found) != 0 {
		t.Errorf("of a server that is away: %s", show(found))
	}
}

// The start of a process is that of the machine and its ticks.
func TestStartOf(t *testing.T) {
	if began := startOf(os.Getpid()); began.After(time.Now().Add(time.Second)) || time.Since(began) > 24*time.Hour {
		t.Errorf("this process began at %s", began)
	}
	if began := startOf(0); !began.IsZero() {
		t.Errorf("no process began at %s", began)
	}
}
