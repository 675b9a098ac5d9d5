package dkim

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func keyRecord(n int) string {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(n), byte(n>>8)
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public)
}

// A key is read once, what is no key is not kept, and neither is one too many.
func TestKeyCache(t *testing.T) {
	c := NewKeyCache()
	first, err := c.parse(keyRecord(0))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.parse(keyRecord(0)); err != nil || again != first {
		t.Errorf("%p after %p, %v", again, first, err)
	}
	for _, bad := range []string{"p=", "nonsense", keyRecord(1) + "; n=" + strings.Repeat("x", maxCachedRecord)} {
		_, _ = c.parse(bad)
	}
	if len(c.keys) != 1 {
		t.Errorf("%d keys", len(c.keys))
	}
	var running sync.WaitGroup
	for from := range 4 {
		running.Go(func() {
			for n := range maxCachedKeys {
				if key, err := c.parse(keyRecord(n*2 + from%2)); err != nil || fmt.Sprint(key.ed25519) == "" {
					t.Errorf("%d: %v", n, err)
				}
			}
		})
	}
	running.Wait()
	if len(c.keys) != maxCachedKeys {
		t.Errorf("%d keys, the bound is %d", len(c.keys), maxCachedKeys)
	}
	if key, err := (*KeyCache)(nil).parse(keyRecord(7)); err != nil || key == nil {
		t.Error(err)
	}
}
