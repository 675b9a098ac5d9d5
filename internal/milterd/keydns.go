package milterd

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/milter/sign"
)

// Times and bounds for watching keys in the DNS.
const (
	keyCheckEvery   = 10 * time.Minute
	keyCheckTimeout = 20 * time.Second // of one question, with all its tries
	// keyConfirmAfter is the least time between the two answers that must agree
	// before a key is left out. It is longer if the first answer is cached for longer.
	keyConfirmAfter = 5 * time.Minute
	maxKeyQuestions = 8 // at a time
)

// keyWatch asks the DNS for the records of our keys.
//
// A failing signature is no worse than no signature (RFC 6376 section 6.1), while mail
// without a signature may be refused. So a key signs whatever the DNS says, with one
// exception. A key is left out if two answers, minutes apart, had another key or a
// revoked one, and another key of its domain does verify.
type keyWatch struct {
	signer *sign.Signer
	all    *sign.Keys
	dns    txtQuerier
	log    *zap.Logger
	now    func() time.Time

	// states is replaced, never changed, by the goroutine of run.
	states atomic.Pointer[map[*sign.Key]keyState]
}

// txtQuerier asks the DNS.
type txtQuerier interface {
	Query(ctx context.Context, name string, qtype uint16) (resolver.Answer, error)
}

// keyState is what is known about one key.
type keyState struct {
	published dkim.Published
	err       error     // the DNS did not answer; published is from before
	asked     bool      // the DNS has answered
	again     time.Time // when an answer of PublishedOther may be confirmed
	confirmed bool      // it was confirmed
	leftOut   bool
}

// newKeyWatch returns a watch. It takes the states of unchanged keys from the watch
// before it, which may be nil.
func newKeyWatch(signer *sign.Signer, dns txtQuerier, log *zap.Logger, before *keyWatch) *keyWatch {
	w := &keyWatch{signer: signer, all: signer.Keys(), dns: dns, log: log, now: time.Now}
	known := make(map[*sign.Key]keyState)
	if before != nil {
		states := *before.states.Load()
		old := make(map[string]*sign.Key, len(states))
		for key := range states {
			old[key.Name()] = key
		}
		for _, key := range w.all.Signing() {
			if was := old[key.Name()]; was != nil && was.SameAs(key) {
				known[key] = states[was]
			}
		}
	}
	w.states.Store(&known)
	w.enforce(known)
	return w
}

// enforce makes the signer leave out the keys that states marks.
func (w *keyWatch) enforce(states map[*sign.Key]keyState) {
	w.signer.SetKeys(w.all.Without(func(k *sign.Key) bool { return states[k].leftOut }))
}

// run watches until ctx ends.
func (w *keyWatch) run(ctx context.Context) {
	if len(w.all.Signing()) == 0 {
		return
	}
	for {
		w.round(ctx)
		wait := time.NewTimer(w.untilNext())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// untilNext returns the time until the next round. It is short while an answer has to
// be confirmed.
func (w *keyWatch) untilNext() time.Duration {
	wait, now := keyCheckEvery, w.now()
	for _, s := range *w.states.Load() {
		if s.published == dkim.PublishedOther && !s.confirmed {
			wait = min(wait, max(s.again.Sub(now), time.Second))
		}
	}
	return wait
}

// round asks for every key and applies the result.
func (w *keyWatch) round(ctx context.Context) {
	next := w.lookUpKeys(ctx)
	if ctx.Err() != nil {
		return // interrupted: the result says nothing about the keys
	}
	decide(next)
	before := *w.states.Swap(&next)
	for _, key := range w.all.Signing() {
		w.logChange(key, before[key], next[key])
	}
	w.enforce(next)
}

// lookUpKeys asks for all keys, a few at a time.
func (w *keyWatch) lookUpKeys(ctx context.Context) map[*sign.Key]keyState {
	before := *w.states.Load()
	next := make(map[*sign.Key]keyState, len(before))
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, maxKeyQuestions)
	for _, key := range w.all.Signing() {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			state := w.askOne(ctx, key, before[key])
			mu.Lock()
			defer mu.Unlock()
			next[key] = state
		})
	}
	asking.Wait()
	return next
}

func (w *keyWatch) askOne(ctx context.Context, key *sign.Key, before keyState) keyState {
	ctx, cancel := context.WithTimeout(ctx, keyCheckTimeout)
	defer cancel()
	answer, err := w.dns.Query(ctx, key.Name(), resolver.TypeTXT)
	if err != nil {
		before.err = err
		return before
	}
	return before.after(dkim.ComparePublished(answer.TXT, key.Signer.Public()), answer.TTL, w.now())
}

// after returns the state after an answer, which caches keep for ttl.
func (s keyState) after(published dkim.Published, ttl time.Duration, now time.Time) keyState {
	next := keyState{published: published, asked: true}
	if published != dkim.PublishedOther {
		return next
	}
	next.again = now.Add(max(keyConfirmAfter, ttl+time.Second))
	if s.published == dkim.PublishedOther {
		next.again = s.again
		next.confirmed = s.confirmed || !now.Before(s.again)
	}
	return next
}

// decide marks the keys to leave out: those that the DNS contradicted twice, if another
// key of the same domain verifies.
func decide(states map[*sign.Key]keyState) {
	verifies := make(map[string]bool)
	for key, s := range states {
		if s.published == dkim.PublishedSame {
			verifies[key.Domain] = true
		}
	}
	for key, s := range states {
		s.leftOut = s.confirmed && verifies[key.Domain]
		states[key] = s
	}
}

// logChange logs a change of the state of a key.
func (w *keyWatch) logChange(key *sign.Key, before, now keyState) {
	fields := []zap.Field{zap.String("name", key.Name()), zap.String("key", key.Path)}
	switch {
	case now.leftOut && !before.leftOut:
		w.log.Warn("DKIM key is left out: the DNS has another one, and other keys of the domain verify", fields...)
	case now.err != nil && before.err == nil:
		w.log.Warn("DKIM key could not be looked up in the DNS; it signs as before", append(fields, zap.Error(now.err))...)
	case !now.asked || before.asked && before.published == now.published && before.leftOut == now.leftOut:
	case now.published == dkim.PublishedSame:
		w.log.Info("DKIM key is in the DNS", fields...)
	default:
		w.log.Warn("DKIM key signs, but receivers cannot verify it: publish what `postern dkim dns` prints",
			append(fields, zap.Stringer("dns", now.published))...)
	}
}

// status returns the state of a key in the DNS, for the administrator.
func (w *keyWatch) status(key *sign.Key) string {
	if w == nil {
		return ""
	}
	switch s := (*w.states.Load())[key]; {
	case s.err != nil:
		return "unknown: " + s.err.Error()
	case !s.asked:
		return "not asked yet"
	default:
		return s.published.String()
	}
}
