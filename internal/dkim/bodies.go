package dkim

import "crypto/sha256"

// Bodies computes the hashes of one body: one for each canonical form that
// signatures of the message use. The zero value computes none.
type Bodies struct {
	hashes map[Canonicalization]*BodyHash
}

// Want adds a form. It must be called before the body is written.
func (b *Bodies) Want(c Canonicalization) {
	if b.hashes == nil {
		b.hashes = make(map[Canonicalization]*BodyHash)
	}
	if b.hashes[c] == nil {
		b.hashes[c] = NewBodyHash(c)
	}
}

// NeedsBody reports whether a signature depends on the body. If not, the body
// need not be written.
func (b *Bodies) NeedsBody() bool { return len(b.hashes) > 0 }

// Write adds p to the body. It never fails. Line ends are CRLF.
func (b *Bodies) Write(p []byte) (int, error) {
	for _, h := range b.hashes {
		h.Write(p)
	}
	return len(p), nil
}

// Sums ends the body and returns its hashes.
func (b *Bodies) Sums() Sums {
	sums := make(Sums, len(b.hashes))
	for c, h := range b.hashes {
		sums[c] = BodySum{h.Sum(), h.Size()}
	}
	return sums
}

// Sums are the hashes of a complete body.
type Sums map[Canonicalization]BodySum

// BodySum is the hash of one canonical form, and its size in octets.
type BodySum struct {
	Hash [sha256.Size]byte
	Size int64
}
