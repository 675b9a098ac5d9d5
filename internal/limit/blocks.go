package limit

import (
	"context"
	"sync/atomic"
	"time"
)

// Blocks remembers which logins are blocked, so that blocks are effective while the
// store does not answer.
type Blocks struct {
	store Store
	known atomic.Pointer[map[string]Block]
}

// NewBlocks returns a Blocks for a store.
func NewBlocks(store Store) *Blocks { return &Blocks{store: store} }

// Find returns the active block of a login, or nil.
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
	found := block // a copy: block itself can stay on the stack, since few logins are blocked
	return &found
}

// Refresh reads the blocks. After an error, the known blocks stay.
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

// refreshEvery is how often blocks are read: a block that was set on another host is
// known here after this time.
const refreshEvery = 2 * time.Second

// Watch reads the blocks regularly until ctx ends.
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

// Len returns the number of known blocks.
func (b *Blocks) Len() int {
	known := b.known.Load()
	if known == nil {
		return 0
	}
	return len(*known)
}
