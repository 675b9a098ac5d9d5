package redisclient

import "crypto/rand"

// GenerationKey is the key with the generation of what the server keeps for a store: a
// random text that the first probe of all hosts has written, and that does not expire.
func (c *Client) GenerationKey() string { return c.Tag + "generation" }

// NewGeneration returns a generation for a probe to write where there is none.
func NewGeneration() string { return rand.Text() }

// SawGeneration notes the generation that a probe has found or written. If it is another
// one than before, the server has lost what it kept: it was restarted without its data,
// emptied, replaced by one that knows nothing, or it evicts keys.
func (c *Client) SawGeneration(generation string) {
	if before := c.generation.Swap(&generation); before != nil && *before != generation && c.lost != nil {
		c.lost()
	}
}
