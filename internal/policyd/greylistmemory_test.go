package policyd

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// forgetful is a store that forgets.
type forgetful struct {
	browsedStore
	n atomic.Uint64
}

func (f *forgetful) Forgotten() uint64 { return f.n.Load() }

// What was forgotten is logged at once, and then at most once an hour.
func TestForgottenIsLogged(t *testing.T) {
	core, logs := observer.New(zap.ErrorLevel)
	synctest.Test(t, func(t *testing.T) {
		store := new(forgetful)
		g := &greylistStore{store: store}
		go g.warn(t.Context(), zap.New(core))
		time.Sleep(forgottenLook / 2) // between two looks
		for _, step := range []struct {
			forgotten uint64
			then      time.Duration
		}{{0, time.Hour}, {7, forgottenLook}, {9, 30 * time.Minute}, {12, time.Hour}, {12, 3 * time.Hour}} {
			synctest.Wait()
			store.n.Store(step.forgotten)
			time.Sleep(step.then)
		}
	})
	var entries []uint64
	for _, line := range logs.All() {
		entries = append(entries, line.ContextMap()["entries"].(uint64))
	}
	if want := []uint64{7, 5}; !slices.Equal(entries, want) {
		t.Errorf("logged %v, want %v", entries, want)
	}
}
