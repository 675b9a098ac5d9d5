package hosts

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/internal/store/redistest"
)

const (
	setting = "greylist-store"
	hash    = "{postern}:hosts:" + setting
)

// announcerOf is a daemon on a host, with the settings of a map.
func announcerOf(t *testing.T, url, password, host string, settings map[string]string) *announcer {
	t.Helper()
	c, err := redisclient.Open(redisclient.Options{URL: url, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &announcer{client: c, script: redisclient.NewScript(announceSource), setting: setting, log: zap.NewNop(),
		self: record{Host: host, Release: "1.0", Settings: settings}}
}

func mustWrite(t *testing.T, a *announcer) {
	t.Helper()
	if err := a.write(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A user with the rights that the manual names writes and reads the records of all hosts, in
// a server and in a Cluster. A host has one record, however often it writes it.
func TestRecordsOfHosts(t *testing.T) {
	t.Parallel()
	rights := append([]string{"acl", "setuser", "postern", "on", ">secret"}, strings.Fields("~{postern}:* "+redisclient.Rights)...)
	check := func(t *testing.T, url string, nodes ...*redistest.Server) {
		t.Parallel()
		for _, node := range nodes {
			node.Command(rights...)
		}
		url = strings.Replace(url, "://", "://postern@", 1)
		mx1 := announcerOf(t, url, "secret", "mx1", map[string]string{"greylist-delay": "3m"})
		mx2 := announcerOf(t, url, "secret", "mx2", map[string]string{"greylist-delay": "5m"})
		mustWrite(t, mx1)
		mustWrite(t, mx2)
		var s Shared
		for range 1000 { // until the server's clock has gone on: it shows milliseconds
			mustWrite(t, mx1)
			s = Read(t.Context(), setting, redisclient.Options{URL: url, Password: "secret"})
			if len(s.Hosts) == 0 || s.Hosts[0].Since.Before(s.Hosts[0].Seen) {
				break
			}
		}
		if s.Err != nil || s.Unreadable != 0 || len(s.Hosts) != 2 {
			t.Fatalf("%+v", s)
		}
		for i, want := range []*announcer{mx1, mx2} {
			h := s.Hosts[i]
			if h.Name != want.self.Host || h.Release != "1.0" || !maps.Equal(h.Settings, want.self.Settings) || h.Since.After(h.Seen) || h.Ahead.Abs() > time.Minute {
				t.Errorf("%+v, want %+v", h, want.self)
			}
		}
		if !s.Hosts[0].SameMachine(s.Hosts[1]) {
			t.Errorf("this machine was started at %s and at %s", s.Hosts[0].Booted, s.Hosts[1].Booted)
		}
		if s.Hosts[0].Since.Equal(s.Hosts[0].Seen) {
			t.Errorf("the last record of mx1 is at %s, as its first", s.Hosts[0].Seen)
		}
		left, err := mx1.client.Redis.PTTL(t.Context(), hash).Result()
		if err != nil || left <= 0 || left > Keep {
			t.Errorf("the hash ends in %s, %v", left, err)
		}
	}
	redistest.Require(t)
	server, cluster := redistest.Start(t), redistest.StartCluster(t)
	t.Run("a server", func(t *testing.T) { check(t, "redis://"+server.Addr, server) })
	t.Run("a Cluster", func(t *testing.T) { check(t, cluster.URL(), cluster.Nodes...) })
}

// A right that is missing is logged once, with the right. That the server is away is not
// logged here.
func TestMissingRight(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Command("acl", "setuser", "few", "on", ">secret", "~{postern}:g*", "+@all")
	log, logged := observer.New(zap.DebugLevel)
	a := announcerOf(t, "redis://few@"+server.Addr, "secret", "mx1", nil)
	a.log = zap.New(log)
	for range 3 {
		a.try(t.Context())
	}
	lines := logged.TakeAll()
	if len(lines) != 1 || lines[0].ContextMap()["setting"] != setting || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["error"]), redisclient.Rights) {
		t.Errorf("logged %v", lines)
	}
	server.Kill()
	other := announcerOf(t, "redis://few@"+server.Addr, "secret", "mx1", nil)
	other.log = a.log
	other.try(t.Context())
	if lines := logged.TakeAll(); len(lines) != 0 {
		t.Errorf("logged %v while the server is away", lines)
	}
}

// raw is a value as the script writes it, of a record that is age old.
func raw(t *testing.T, age time.Duration, r any) string {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age).UnixMilli()
	return fmt.Sprintf("%d %d %s", at, at, text)
}

// Each record that is written removes those of hosts that are gone and what is no record, and
// there are no more than the bound.
func TestOldRecordsGo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := announcerOf(t, "redis://"+server.Addr, "", "mx1", nil)
	set := func(pairs ...any) {
		t.Helper()
		if err := a.client.Redis.HSet(t.Context(), hash, pairs...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	fields := func() []string {
		t.Helper()
		all, err := a.client.Redis.HKeys(t.Context(), hash).Result()
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(all)
		return all
	}
	set("new", raw(t, Keep-time.Minute, record{Host: "new"}), "old", raw(t, Keep+time.Minute, record{Host: "old"}),
		"ahead", raw(t, -Keep-time.Minute, record{Host: "ahead"}), "garbage", "\x00\xff", "empty", "",
		"long", raw(t, 0, record{Host: strings.Repeat("x", longest)}))
	mustWrite(t, a)
	want := []string{a.client.ID(), "new"}
	slices.Sort(want)
	if got := fields(); !slices.Equal(got, want) {
		t.Errorf("left are %q", got)
	}

	for i := range Most + 3 {
		set(fmt.Sprint("host", i), raw(t, time.Duration(i+1)*time.Second, record{Host: "x"}))
	}
	for range 10 {
		mustWrite(t, a)
	}
	got := fields()
	if len(got) != Most || !slices.Contains(got, a.client.ID()) || !slices.Contains(got, "host0") || slices.Contains(got, "new") || slices.Contains(got, fmt.Sprint("host", Most+2)) {
		t.Errorf("%d are left: %q", len(got), got)
	}

	for i := range 4*Most + 1 {
		set(fmt.Sprint("flood", i), "x")
	}
	mustWrite(t, a)
	if got := fields(); len(got) != 1 || got[0] != a.client.ID() {
		t.Errorf("after a flood: %q", got)
	}
}

// What another release or another program has written is no error: what is known of it
// counts, and the rest is counted.
func TestStrangeRecords(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	a := announcerOf(t, "redis://"+server.Addr, "", "mx1", nil)
	ask := func() Shared {
		return Read(t.Context(), setting, redisclient.Options{URL: "redis://" + server.Addr})
	}
	if s := ask(); s.Err != nil || len(s.Hosts)+s.Unreadable != 0 {
		t.Errorf("of an empty server: %+v", s)
	}
	now := time.Now().UnixMilli()
	for field, value := range map[string]string{
		"newer":   raw(t, 0, map[string]any{"host": "newer", "release": "9", "more": []int{1}, "settings": map[string]string{"other": "x"}}),
		"older":   raw(t, 0, map[string]any{"host": "older"}),
		"gone":    raw(t, Keep+time.Minute, record{Host: "gone"}),
		"time":    "x y {}",
		"text":    fmt.Sprintf("%d %d {", now, now),
		"control": raw(t, 0, record{Host: "a\x1b[2Jb"}),
		"long":    raw(t, 0, record{Host: strings.Repeat("x", longest)}),
		"name":    raw(t, 0, record{Host: "x", Settings: map[string]string{strings.Repeat("x", maxText+1): "y"}}),
		"kind":    raw(t, 0, map[string]any{"host": 7}),
	} {
		if err := a.client.Redis.HSet(t.Context(), hash, field, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := ask()
	if s.Err != nil || s.Unreadable != 6 || len(s.Hosts) != 2 || s.Hosts[0].Name != "newer" || s.Hosts[0].Settings["other"] != "x" || s.Hosts[1].Name != "older" {
		t.Errorf("%+v", s)
	}

	for i := range 4*Most + 1 {
		if err := a.client.Redis.HSet(t.Context(), hash, i, "x").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if s := ask(); s.Err == nil || errors.Is(s.Err, ErrAway) || !strings.Contains(s.Err.Error(), hash) {
		t.Errorf("of a flood: %+v", s)
	}
	if err := errors.Join(a.client.Redis.Del(t.Context(), hash).Err(), a.client.Redis.Set(t.Context(), hash, "x", 0).Err()); err != nil {
		t.Fatal(err)
	}
	if s := ask(); s.Err == nil || errors.Is(s.Err, ErrAway) {
		t.Errorf("of a key of another type: %+v", s)
	}
	server.Kill()
	if s := ask(); !errors.Is(s.Err, ErrAway) {
		t.Errorf("of a server that is away: %+v", s)
	}
}

// Of daemons with one name those count that are at work: not the one before a restart, nor one
// that has handed over and still has sessions. Two machines of one name both count.
func TestDaemonsOfOneName(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	before := Host{Name: "mx1", Since: at(0), Seen: at(2 * time.Minute), Booted: at(-time.Hour), Release: "before"}
	next := Host{Name: "mx1", Since: at(2*time.Minute + 5*time.Second), Seen: at(5 * time.Minute), Booted: at(-time.Hour), Release: "next"}
	with := func(h Host, change func(*Host)) Host { change(&h); return h }
	for name, test := range map[string]struct {
		all  []Host
		want string
	}{
		"after a restart":            {[]Host{before, next}, "next"},
		"after a reboot":             {[]Host{before, with(next, func(h *Host) { h.Booted = at(2 * time.Minute) })}, "next"},
		"written while it began":     {[]Host{with(before, func(h *Host) { h.Seen = at(2*time.Minute + 10*time.Second) }), next}, "next"},
		"both at work":               {[]Host{with(before, func(h *Host) { h.Seen = at(5 * time.Minute) }), next}, "before next"},
		"one that has handed over":   {[]Host{with(before, func(h *Host) { h.Seen = at(5 * time.Minute) }), with(next, func(h *Host) { h.Successor = true })}, "next"},
		"a successor on another one": {[]Host{with(before, func(h *Host) { h.Seen = at(5 * time.Minute) }), with(next, func(h *Host) { h.Successor, h.Booted = true, at(0) })}, "before next"},
		"other names":                {[]Host{before, with(next, func(h *Host) { h.Name = "mx2" })}, "before next"},
		"a host that is gone":        {[]Host{with(before, func(h *Host) { h.Name, h.Seen = "mx0", at(5*time.Minute-Keep-time.Second) }), next}, "next"},
	} {
		var values []string
		for _, h := range test.all {
			text, err := json.Marshal(record{Host: h.Name, Release: h.Release, Up: h.Seen.Sub(h.Booted).Milliseconds(), Clock: h.Seen.UnixMilli(), Successor: h.Successor})
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, fmt.Sprintf("%d %d %s", h.Since.UnixMilli(), h.Seen.UnixMilli(), text))
		}
		var s Shared
		s.add(values, at(5*time.Minute))
		var got []string
		for _, h := range s.Hosts {
			got = append(got, h.Release)
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want || s.Unreadable != 0 {
			t.Errorf("%s: %q, want %q; %d unreadable", name, got, test.want, s.Unreadable)
		}
	}
}

// A store that is not in Redis writes nothing, and one that is writes while the state is in
// force: a reload has the record changed, and leaves one.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	url := "redis://" + server.Addr
	client := announcerOf(t, url, "", "", nil).client
	var current service.Current[int]
	defer current.Close()
	for _, delay := range []string{"3m", strings.Repeat("x", maxText+1)} {
		life := current.NewLife(nil)
		for _, s := range []any{"a file", inRedis{client}} {
			Announce(life, service.NewRuntime(zap.NewNop(), nil), Self{setting, s, map[string]string{"greylist-delay": delay}})
		}
		current.Apply(0, life)
		want := clip(delay)
		for {
			s := Read(t.Context(), setting, redisclient.Options{URL: url})
			if s.Err != nil || len(s.Hosts) > 1 || s.Unreadable > 0 {
				t.Fatalf("%+v", s)
			}
			if len(s.Hosts) == 1 && s.Hosts[0].Settings["greylist-delay"] == want {
				break
			}
		}
	}
}

type inRedis struct{ client *redisclient.Client }

func (s inRedis) Client() *redisclient.Client { return s.client }

// Any text becomes one that is written and read. Two long texts that differ stay different.
func TestClip(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", maxText)
	for _, text := range []string{"", "3m", "a\nb", "a\x00b", "\xff", "a\u0085b", long, long + "b", strings.Repeat("\x01", 500)} {
		if got := clip(text); !plain(got) || plain(text) && got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
	if clip(long) == clip(long+"b") {
		t.Error("two long texts become the same")
	}
}
