package milterd

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/internal/rotate"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/internal/store/redistest"
	"github.com/postern-mail/postern/milter/sign"
)

func TestRotateSettings(t *testing.T) {
	for args, want := range map[string]string{
		"--dkim-rotate=90m":                                             "is too short",
		"--dkim-rotate=90d --dkim-keys=":                                "a folder of keys that the daemon may write",
		"--dkim-rotate=90d --dkim-keys=dkim":                            "a folder of keys that the daemon may write",
		"--dkim-rotate=90d --dkim-key-table=/a --dkim-signing-table=/b": "moves the files that a key table names",
		"--dkim-rotate-lead=maybe":                                      "neither yes nor no",
		"--dkim-rotate-password-file=/x":                                "is for Redis",
		"--dkim-rotate-servers=ns.example.org":                          "not the address of a name server",
		"--dns-update=tsig:/key@1.2.3.4 --dns-command=/bin/true":        "remove one of them",
		"--dns-update=/key@1.2.3.4":                                     "not tsig:KEYFILE@SERVER",
		"--dns-update=tsig:/no/such/key@1.2.3.4 --check-config":         "/no/such/key: no such file",
		"--dns-command=publish":                                         "is relative",
		"--dns-command=/etc --check-config":                             "not a program",
		"--dkim-rotate=90d --dkim-rotate-lead=redis://127.0.0.1/0 --dkim-rotate-password-file=/no/such --check-config": "dkim-rotate-password-file",
	} {
		_, err := loadInto(newCurrent(), service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{})), strings.Fields(args)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// oldKey makes a key of example.org that is old enough to be replaced, and returns the
// folder of all keys.
func oldKey(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	keys, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: "example.org", Type: sign.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-100 * 24 * time.Hour)
	if err := os.Chtimes(keys[0].Path, old, old); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Mail is signed although records cannot be published or the lease cannot be had. This is
// logged, recorded once and counted, and no rotation begins. It is over without a restart.
func TestSigningWithoutRotation(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	for _, args := range [][]string{
		{"--dns-update=tsig:" + missing + "@192.0.2.1"},
		{"--dns-command=" + missing},
		{"--dkim-rotate-lead=redis://127.0.0.1:1/0", "--dkim-rotate-password-file=" + missing},
	} {
		dir := oldKey(t)
		core, logs := observer.New(zap.ErrorLevel)
		var kept records
		runtime := service.Runtime{Log: zap.New(core), Metrics: metrics.New(metrics.Options{}), Records: &kept}
		l, err := loadInto(newCurrent(), runtime, append(args, "--dkim-keys="+dir, "--dkim-rotate=90d")...)
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if got := logs.FilterMessageSnippet("mail is signed as before").All(); len(got) != 1 || !strings.Contains(got[0].ContextMap()["error"].(string), missing) {
			t.Errorf("%q: logged %v", args, logs.All())
		}
		part := partOf[*signPart](t, l.state)
		r := part.rotation.running
		r.round(t.Context())
		r.round(t.Context())
		if len(kept.all) != 1 || kept.all[0].Reason != record.RotateFailed || !strings.Contains(kept.all[0].Err.Error(), missing) || r.seen.Load().problems != 1 {
			t.Errorf("%q: records %+v, %d problems", args, kept.all, r.seen.Load().problems)
		}
		if part.signer == nil || part.keys.Empty() {
			t.Errorf("%q: no mail is signed", args)
		}
		if err := os.WriteFile(missing, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if part.rotation.DNSCommand != "" {
			if r.round(t.Context()); len(kept.all) < 2 || kept.all[1].Reason != record.RotateStarted {
				t.Errorf("records %+v", kept.all)
			}
		}
		if err := os.Remove(missing); err != nil {
			t.Fatal(err)
		}
		l.life.Discard()
	}
}

// records keeps what the daemon would log.
type records struct{ all []record.Record }

func (r *records) Record(one *record.Record, _ time.Time) {
	kept := *one
	kept.Steps = append([]record.Step(nil), one.Steps...)
	r.all = append(r.all, kept)
}

// noServers asks a name server that does not answer.
func noServers() rotate.DNS {
	return &rotate.Authorities{Asker: authority.Asker{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}}}
}

// A daemon begins a rotation of keys that are old enough, writes a record of each step,
// and says once what it cannot do.
func TestRotationInTheDaemon(t *testing.T) {
	dir := oldKey(t)
	var kept records
	n := &needs{Runtime: service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{}))}
	n.Records = &kept
	r := newRotation(90*24*time.Hour, nil, n)
	now := time.Now()
	r.now = func() time.Time { return now }
	r.rotator = rotate.New(rotate.Settings{
		Dir: dir, Report: r.report, QueueLifetime: rotate.QueueLifetime,
		DNS: noServers(),
	})
	for range 3 {
		r.round(t.Context())
		now = now.Add(2 * time.Minute)
	}
	var got []string
	for _, one := range kept.all {
		got = append(got, string(one.Reason))
		if one.Check != rotateCheck || one.From != "example.org" || one.Daemon != daemonName || len(one.Steps) != 1 {
			t.Errorf("record %+v", one)
		}
	}
	if text := strings.Join(got, " "); text != "rotate_started rotate_by_hand rotate_failed" {
		t.Fatalf("records %s", text)
	}
	if detail := kept.all[1].Steps[0].Detail; !strings.Contains(detail, "IN TXT \"v=DKIM1;") {
		t.Errorf("detail %q", detail)
	}
	if last := kept.all[2]; last.Verdict != "error" || last.Err == nil {
		t.Errorf("record %+v", last)
	}
	if seen := r.seen.Load(); !seen.leads || seen.problems != 1 || seen.phases[rotate.Publish] != 1 {
		t.Errorf("seen %+v", seen)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "example.org", "*.private")); err != nil || len(files) != 1 {
		t.Errorf("%v sign, %v", files, err)
	}
}

// A clock that was set moves the times of a rotation under way. A round that is late does
// not.
func TestRotationClockSet(t *testing.T) {
	dir := oldKey(t)
	log, logged := observer.New(zap.ErrorLevel)
	n := &needs{Runtime: service.NewRuntime(zap.New(log), metrics.New(metrics.Options{}))}
	n.Records = new(records)
	r := newRotation(90*24*time.Hour, nil, n)
	now, passed := time.Now(), time.Duration(0)
	r.now, r.steady = func() time.Time { return now }, func() time.Duration { return passed }
	r.rotator = rotate.New(rotate.Settings{
		Dir: dir, QueueLifetime: rotate.QueueLifetime, Now: r.now,
		DNS: noServers(),
	})
	since := func() time.Time {
		t.Helper()
		r.round(t.Context())
		state, err := r.rotator.State("example.org")
		if err != nil || state == nil {
			t.Fatal(state, err)
		}
		return state.Since
	}
	began := since()
	for _, step := range []time.Duration{0, 24 * time.Hour, 0, -48 * time.Hour, time.Minute} {
		now, passed = now.Add(step+3*time.Hour), passed+3*time.Hour
		if step.Abs() >= time.Hour {
			began = began.Add(step)
		}
		if got := since(); !got.Equal(began) {
			t.Errorf("the clock was set by %s: the phase began at %s, want %s", step, got, began)
		}
	}
	if n := logged.FilterMessageSnippet("the clock was set").Len(); n != 2 {
		t.Errorf("%d lines", n)
	}
}

// A daemon that starts with a clock far ahead does not end a wait, and says so. When NTP has
// set the clock back, the wait has its length again.
func TestRotationStartsWithAWrongClock(t *testing.T) {
	dir := oldKey(t)
	log, logged := observer.New(zap.ErrorLevel)
	now, passed := time.Now(), time.Duration(0)
	start := func() *rotation {
		n := &needs{Runtime: service.NewRuntime(zap.New(log), metrics.New(metrics.Options{}))}
		n.Records = new(records)
		r := newRotation(90*24*time.Hour, nil, n)
		r.now, r.steady = func() time.Time { return now }, func() time.Duration { return passed }
		r.rotator = rotate.New(rotate.Settings{
			Dir: dir, QueueLifetime: rotate.QueueLifetime, Now: r.now,
			DNS: noServers(),
		})
		return r
	}
	since := func(r *rotation) time.Time {
		t.Helper()
		r.round(t.Context())
		state, err := r.rotator.State("example.org")
		if err != nil || state == nil {
			t.Fatal(state, err)
		}
		return state.Since
	}
	began := since(start())
	const year = 365 * 24 * time.Hour
	now = now.Add(year)
	r := start()
	if got := since(r); !got.Equal(began.Add(year)) {
		t.Errorf("the phase began at %s, want %s", got, began.Add(year))
	}
	if logged.FilterMessageSnippet("that time does not count").Len() != 1 {
		t.Errorf("logged %v", logged.All())
	}
	now, passed = now.Add(time.Minute-year), passed+time.Minute
	if got := since(r); !got.Equal(began) {
		t.Errorf("after the clock was set: the phase began at %s, want %s", got, began)
	}
}

// Of several hosts one leads, until it has been silent for the time of the lease.
func TestLease(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	var hosts []*lease
	for _, name := range []string{"mx1", "mx2"} {
		l, err := openLease("redis://"+server.Addr, config.Secret{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		l.host = name
		hosts = append(hosts, l)
	}
	take := func(i int, want bool, holder string) {
		t.Helper()
		leads, got, err := hosts[i].take(t.Context())
		if err != nil || leads != want || got != holder {
			t.Errorf("host %d: %v %q %v", i, leads, got, err)
		}
	}
	take(0, true, "mx1")
	take(1, false, "mx1")
	take(0, true, "mx1")
	if err := hosts[0].redis.Redis.Del(t.Context(), hosts[0].redis.Tag+"dkim-rotate").Err(); err != nil {
		t.Fatal(err)
	}
	take(1, true, "mx2")
	take(0, false, "mx2")
	server.Kill()
	if leads, _, err := hosts[1].take(t.Context()); leads || err == nil {
		t.Errorf("leads %v without Redis: %v", leads, err)
	}
}

// Each change of the host that leads is one line of the log: that this host begins, that it
// ceases, and again when Redis was away in between.
func TestLeaderIsLogged(t *testing.T) {
	redistest.Require(t)
	server := redistest.Start(t)
	l, err := openLease("redis://"+server.Addr, config.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.host = "mx1"
	log, logged := observer.New(zap.InfoLevel)
	n := &needs{Runtime: service.NewRuntime(zap.New(log), metrics.New(metrics.Options{}))}
	n.Records = new(records)
	r := newRotation(90*24*time.Hour, l, n)
	r.rotator = rotate.New(rotate.Settings{Dir: t.TempDir(), QueueLifetime: rotate.QueueLifetime})
	key := l.redis.Tag + "dkim-rotate"
	for _, step := range []struct{ holder, want string }{
		{"", "this host rotates the DKIM keys now mx1"},
		{"mx2", "another host rotates the DKIM keys now mx2"},
		{"mx3", "another host rotates the DKIM keys now mx3"},
		{"", "this host rotates the DKIM keys now mx1"},
		{"broken", ""},
		{"", "this host rotates the DKIM keys now mx1"},
	} {
		if err := l.redis.Redis.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
		switch step.holder {
		case "":
		case "broken": // not a lease: the script fails
			err = l.redis.Redis.LPush(t.Context(), key, "x").Err()
		default:
			err = l.redis.Redis.Set(t.Context(), key, step.holder, 0).Err()
		}
		if err != nil {
			t.Fatal(err)
		}
		r.round(t.Context())
		r.round(t.Context())
		var got []string
		for _, line := range logged.TakeAll() {
			got = append(got, fmt.Sprint(line.Message, " ", line.ContextMap()["host"]))
		}
		if strings.Join(got, "\n") != step.want {
			t.Errorf("holder %q: logged %q, want %q", step.holder, got, step.want)
		}
	}
}

// A lease that cannot be taken is reported again when it could be taken in between.
func TestLeaseProblemsAreReportedAgain(t *testing.T) {
	redistest.Require(t)
	l, err := openLease("redis://"+redistest.Start(t).Addr, config.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	l.host = "mx1"
	var kept records
	n := &needs{Runtime: service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{}))}
	n.Records = &kept
	r := newRotation(90*24*time.Hour, l, n)
	client, key := l.redis.Redis, l.redis.Tag+"dkim-rotate"
	for range 2 {
		// Not a lease: the script fails.
		if err := errors.Join(client.Del(t.Context(), key).Err(), client.LPush(t.Context(), key, "x").Err()); err != nil {
			t.Fatal(err)
		}
		r.round(t.Context())
		r.round(t.Context())
		if err := errors.Join(client.Del(t.Context(), key).Err(), client.Set(t.Context(), key, "mx2", 0).Err()); err != nil {
			t.Fatal(err)
		}
		r.round(t.Context())
	}
	if len(kept.all) != 2 || kept.all[0].Reason != record.RotateFailed || kept.all[1].Reason != record.RotateFailed {
		t.Errorf("records %+v", kept.all)
	}
}

// A command that waits stops making steps when another host has got the lease.
func TestCommandWithoutTheLease(t *testing.T) {
	redistest.Require(t)
	url := "redis://" + redistest.Start(t).Addr
	l, err := openLease(url, config.Secret{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	dir := t.TempDir()
	if _, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: "example.org", Type: sign.Ed25519}); err != nil {
		t.Fatal(err)
	}
	r, end, err := OpenRotator(t.Context(), []string{"--config=", "--resolver=127.0.0.1", "--dkim-keys=" + dir, "--dkim-rotate-lead=" + url}, false, func(rotate.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	if _, err := r.Advance(t.Context(), "example.org"); err != nil {
		t.Error(err)
	}
	if err := l.redis.Redis.Set(t.Context(), l.redis.Tag+"dkim-rotate", "mx2", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Advance(t.Context(), "example.org"); err == nil || !strings.Contains(err.Error(), "mx2 leads the rotation now") {
		t.Errorf("error %v", err)
	}
}

// A new password in the file of the Redis is used after the reload that it causes.
func TestRotationWithANewPassword(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "password")
	c := newCurrent()
	defer c.Close()
	runtime := service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{}))
	reload := func(password string) *rotation {
		t.Helper()
		if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := loadInto(c, runtime, "--dkim-keys="+dir, "--dkim-rotate=90d", "--dkim-rotate-lead=redis://127.0.0.1:1/0", "--dkim-rotate-password-file="+file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(l.life.Files(), file) {
			t.Errorf("%s is not among the files that are watched", file)
		}
		c.Apply(l.state, l.life)
		part, release := inForce[*signPart](c)
		defer release()
		return part.rotation.running
	}
	first := reload("one")
	if second := reload("one"); second != first {
		t.Error("a reload ends a rotation")
	}
	if third := reload("two"); third == first {
		t.Error("the old password is used")
	}
}

// A daemon that rotates nothing shows it.
func TestRotationMetricsWithoutRotation(t *testing.T) {
	c := newCurrent()
	l, err := loadInto(c, service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{})), "--dkim-keys=")
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(l.state, l.life)
	defer c.Close()
	if err := testutil.CollectAndCompare(newRotateCollector(c), strings.NewReader(`
# HELP postern_dkim_rotation_leads 1 while this host is the one that rotates DKIM keys.
# TYPE postern_dkim_rotation_leads gauge
postern_dkim_rotation_leads 0
`), "postern_dkim_rotation_leads"); err != nil {
		t.Error(err)
	}
}
