package limit

import (
	"context"
	"sync/atomic"
	"time"
)

// Blocks remembers which logins are blocked, so that a block holds while the store
// does not answer.
type Blocks struct {
	store Store
	known atomic.Pointer[map[string]Block]
}

// NewBlocks remembers the blocks of a store.
func NewBlocks(store Store) *Blocks { return &Blocks{store: store} }

// Find returns the block of a login that holds.
func (b *Blocks) Find(login string, now time.Time) *Block {
	if b == nil || login == "" {
		return nil
	}
	known := b.known.Load()
	if known == nil {
		return nil
	}
	block, ok := (*known)[login]
	if !ok || !block.Active(now) {
		return nil
	}
	found := block // block itself stays on the stack: hardly a login is blocked
	return &found
}

// Refresh reads the blocks. On error those that are known stay.
func (b *Blocks) Refresh(ctx context.Context) error {
	all, err := b.store.Blocks(ctx)
	if err != nil {
		return err
	}
	known := make(map[string]Block, len(all))
	for _, block := range all {
		known[block.Login] = block
	}
	b.known.Store(&known)
	return nil
}

// refreshEvery is how soon a block that was set at another host is known here without
// a word of the store.
const refreshEvery = 2 * time.Second

// Watch reads the blocks now and then, until ctx ends.
func (b *Blocks) Watch(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		_ = b.Refresh(ctx) // the breaker of the store reports it
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Len is how many are known.
func (b *Blocks) Len() int {
	known := b.known.Load()
	if known == nil {
		return 0
	}
	return len(*known)
}
