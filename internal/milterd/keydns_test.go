package milterd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// watched is a key watch over keys of home.example, its selectors postern (RSA)
// and postern-ed25519, and a zone to change.
type watched struct {
	*keyWatch
	zone *resolvertest.Zone
	text map[string]string // records of the keys, by selector
}

func watchKeys(t *testing.T) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{text: make(map[string]string)}
	for _, key := range genkey(t, dir, "home.example", sign.Both) {
		text, err := key.Record()
		if err != nil {
			t.Fatal(err)
		}
		w.text[key.Selector] = text
	}
	keys, err := sign.LoadKeys(sign.KeySource{Dir: dir, Group: -1})
	if err != nil {
		t.Fatal(err)
	}
	w.zone = resolvertest.NewZone(t, "")
	log, _ := observed()
	w.keyWatch = newKeyWatch(sign.New(sign.Options{}, keys), w.zone, log, nil)
	return w
}

// publish makes text the record of a selector.
func (w *watched) publish(t *testing.T, selector, text string) {
	t.Helper()
	name := selector + "._domainkey.home.example."
	w.zone.Remove(name)
	if text == "" {
		return
	}
	entry := fmt.Sprintf("%s 60 IN TXT", name)
	for part := range slices.Chunk([]byte(text), 200) {
		entry += fmt.Sprintf(" %q", part)
	}
	if err := w.zone.Add(entry + "\n"); err != nil {
		t.Fatal(err)
	}
}

func (w *watched) signing() string {
	var names []string
	for _, key := range w.signer.Keys().All() {
		names = append(names, key.Selector)
	}
	return strings.Join(names, " ")
}

const revoked = "v=DKIM1; k=ed25519; p="

// A key is left out only when two answers contradict it and another key of the
// domain verifies; it comes back with the first answer that has it again.
func TestKeysAreLeftOut(t *testing.T) {
	const both, rsaOnly = "postern postern-ed25519", "postern"
	w := watchKeys(t)
	rsaText, edText := w.text["postern"], w.text["postern-ed25519"]
	now := time.Unix(1_000_000, 0)
	w.now = func() time.Time { return now }
	steps := []struct {
		name    string
		rsa, ed string
		fault   bool // the DNS fails for both
		later   time.Duration
		want    string
	}{
		{"nothing published", "", "", false, 0, both},
		{"one published", rsaText, "", false, time.Hour, both},
		{"a test", rsaText, "v=DKIM1; t=y; k=ed25519; p=", false, time.Hour, both},
		{"revoked, seen once", rsaText, revoked, false, time.Hour, both},
		{"seen again too soon", rsaText, revoked, false, time.Minute, both},
		{"seen again", rsaText, revoked, false, 5 * time.Minute, rsaOnly},
		{"the DNS is down", rsaText, revoked, true, time.Hour, rsaOnly},
		{"gone", rsaText, "", false, time.Minute, both},
		{"contradicted", rsaText, rsaText, false, time.Hour, both},
		{"absent in between", rsaText, "", false, time.Hour, both},
		{"contradicted again, from the beginning", rsaText, rsaText, false, time.Minute, both},
		{"confirmed", rsaText, rsaText, false, time.Hour, rsaOnly},
		{"no other key verifies any more", edText, rsaText, false, time.Hour, both},
		{"even when confirmed", edText, rsaText, false, time.Hour, both},
		{"published", rsaText, edText, false, time.Hour, both},
	}
	for _, step := range steps {
		now = now.Add(step.later)
		w.publish(t, "postern", step.rsa)
		w.publish(t, "postern-ed25519", step.ed)
		for selector := range w.text {
			fault := resolvertest.Healthy
			if step.fault {
				fault = resolvertest.Unavailable
			}
			w.zone.Fail(selector+"._domainkey.home.example.", fault)
		}
		w.round(t.Context())
		if got := w.signing(); got != step.want {
			t.Errorf("%s: %q sign, want %q", step.name, got, step.want)
		}
	}
}

func TestAfter(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	first := keyState{}.after(dkim.PublishedOther, time.Hour, now)
	if first.confirmed || !first.again.Equal(now.Add(time.Hour+time.Second)) {
		t.Errorf("a cached answer may confirm itself: %+v", first)
	}
	if short := (keyState{}).after(dkim.PublishedOther, time.Second, now); !short.again.Equal(now.Add(keyConfirmAfter)) {
		t.Errorf("%+v", short)
	}
	if second := first.after(dkim.PublishedOther, 0, now.Add(time.Hour)); second.confirmed || !second.again.Equal(first.again) {
		t.Errorf("confirmed too soon, or put off: %+v", second)
	}
	if second := first.after(dkim.PublishedOther, 0, first.again); !second.confirmed {
		t.Errorf("not confirmed: %+v", second)
	}
}

// A reload does not forget what the DNS said, unless the key is another one.
func TestWatchIsInherited(t *testing.T) {
	w := watchKeys(t)
	w.publish(t, "postern", w.text["postern"])
	w.publish(t, "postern-ed25519", revoked)
	w.round(t.Context())
	states := *w.states.Load()
	for key, s := range states {
		s.again = time.Time{}
		states[key] = s
	}
	w.round(t.Context())
	if got := w.signing(); got != "postern" {
		t.Fatalf("%q sign", got)
	}
	next := newKeyWatch(sign.New(sign.Options{}, w.all), w.zone, w.log, w.keyWatch)
	if got := (&watched{keyWatch: next}).signing(); got != "postern" {
		t.Errorf("after a reload %q sign", got)
	}
	other := watchKeys(t)
	fresh := newKeyWatch(other.signer, w.zone, w.log, w.keyWatch)
	if got := (&watched{keyWatch: fresh}).signing(); got != "postern postern-ed25519" {
		t.Errorf("with new keys %q sign", got)
	}
}

// The second question comes by itself, and the watch ends with its context.
func TestWatchRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchKeys(t)
		w.publish(t, "postern", w.text["postern"])
		w.publish(t, "postern-ed25519", revoked)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.run(ctx); close(done) }()
		synctest.Wait()
		if got := w.signing(); got != "postern postern-ed25519" {
			t.Errorf("at once %q sign", got)
		}
		time.Sleep(keyConfirmAfter + time.Second)
		synctest.Wait()
		if got := w.signing(); got != "postern" {
			t.Errorf("after two answers %q sign", got)
		}
		if got := w.status(w.all.All()[1]); got != "published with another key, or revoked" {
			t.Errorf("status %q", got)
		}
		cancel()
		<-done
	})
}

// A round that is cut short says nothing about the keys.
func TestRoundCutShort(t *testing.T) {
	w := watchKeys(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.round(ctx)
	if states := *w.states.Load(); len(states) != 0 {
		t.Errorf("states %+v", states)
	}
}
