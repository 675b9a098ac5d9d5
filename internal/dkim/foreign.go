package dkim

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
)

// Foreign is a signature field of ARC, which uses the tags, keys and hashes of
// DKIM (RFC 8617 sections 4.1.2 and 4.1.3). The caller must interpret i=, and
// must check for required tags other than a, b, d and s.
type Foreign struct {
	parsed *parsed
	tags   tagList
}

// ParseForeign parses a field. index is its index in the header. The error
// contains only our own text, and can be shown.
func ParseForeign(field Field, index int) (*Foreign, error) {
	p, tags, err := openSignature(field, index)
	f := &Foreign{parsed: p, tags: tags}
	if err != nil {
		return f, err
	}
	p.Identity = "@" + p.Domain
	for _, name := range []string{"a", "b", "d", "s"} {
		if tags.text(name) == "" {
			return f, errors.New("no " + name + "=")
		}
	}
	if p.signature, err = decodeBase64(p.text); err != nil {
		return f, errors.New("b= is not base64")
	}
	if _, ok := tags.get("l"); ok {
		return f, errors.New("l= leaves part of the body unsigned")
	}
	return f, f.read(p.readDomain, p.readTimes, p.readAlgorithm)
}

func (f *Foreign) read(readers ...func(tagList) *refusal) error {
	for _, read := range readers {
		if refused := read(f.tags); refused != nil {
			return errors.New(refused.reason)
		}
	}
	return nil
}

// ReadMessage parses the tags of a field that signs the message itself: bh, c
// and h. RFC 8617 does not say what a missing c= and an empty name in h= mean.
// Both are handled as in the public test suite of its authors: without c= both
// forms are relaxed, and empty names in h= are ignored. If h= has names, From
// must be one of them.
func (f *Foreign) ReadMessage() error {
	_, ok := f.tags.get("c")
	if ok && f.tags.text("c") == "" {
		return errors.New("c= is empty")
	}
	if err := f.read(f.parsed.readForeignNames, f.parsed.readCanonicalization, f.parsed.readHashes); err != nil {
		return err
	}
	if !ok {
		f.parsed.header, f.parsed.body = Relaxed, Relaxed
	}
	return nil
}

// readForeignNames is like readNames, but ignores empty names.
func (p *parsed) readForeignNames(tags tagList) *refusal {
	if _, ok := tags.get("h"); !ok {
		return permError("no h=")
	}
	if refused := p.splitNames(tags); refused != nil {
		return refused
	}
	p.Signed = slices.DeleteFunc(p.Signed, func(name string) bool { return name == "" })
	if len(p.Signed) == 0 {
		return nil
	}
	return p.checkFrom()
}

// Tag returns the value of a tag without white space.
func (f *Foreign) Tag(name string) (value string, ok bool) {
	_, ok = f.tags.get(name)
	return f.tags.text(name), ok
}

// Signature returns the description of the signature. Its Status is empty.
func (f *Foreign) Signature() Signature { return f.parsed.Signature }

// Unsigned returns the field as its signer hashed it: with an empty b=.
func (f *Foreign) Unsigned() Field { return f.parsed.unsigned() }

// Body returns the canonicalization of the body for bh=.
func (f *Foreign) Body() Canonicalization { return f.parsed.body }

// MatchesBody reports whether bh= is the hash of the body.
func (f *Foreign) MatchesBody(sums Sums) bool { return f.parsed.matchesBody(sums) }

// KeyName returns the domain name of the key record, without a final dot.
func (f *Foreign) KeyName() string { return f.parsed.keyName() }

// HeaderHash hashes the header fields of one message for several signatures.
// It is not safe for concurrent use.
type HeaderHash struct{ hash *headerHash }

// NewHeaderHash returns a HeaderHash for the whole header of a message.
func NewHeaderHash(fields []Field) *HeaderHash {
	return &HeaderHash{newHeaderHash(fields)}
}

// Sum returns the hash of f and the fields that f signed. ReadMessage must
// have been called for f.
func (h *HeaderHash) Sum(f *Foreign) [sha256.Size]byte { return h.hash.sum(f.parsed) }

// Keys are the keys at one name, or the reason why there are none.
type Keys struct{ lookup lookup }

// LookupKeys asks the DNS for the keys at a KeyName. It returns when ctx ends.
func LookupKeys(ctx context.Context, r Resolver, name string) *Keys {
	k := new(Keys)
	k.lookup.run(ctx, r, name, nil)
	return k
}

// Verify verifies the signature of f over the hash of a header. The status is
// Pass, Fail, Policy (an RSA key whose size is refused), TempError or
// PermError. The reason contains only our own text, and is empty for Pass. The
// error is that of the DNS.
func (k *Keys) Verify(f *Foreign, digest [sha256.Size]byte) (Status, string, error) {
	if _, refused := k.lookup.verify(f.parsed, digest, ""); refused != nil {
		return refused.status, refused.reason, k.lookup.err
	}
	return Pass, "", nil
}
