package dkim

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
)

// Foreign is a signature field of another protocol that borrows DKIM's tags,
// keys and hashes: those of ARC (RFC 8617 sections 4.1.2 and 4.1.3). What i=
// means, and which tags must be there beyond a, b, d and s, is for the caller.
type Foreign struct {
	parsed *parsed
	tags   tagList
}

// ParseForeign reads a field, the one at index of its header. The error is of
// ours alone and can be shown.
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

// ReadMessage reads the tags of a field that signs the message itself: bh, c
// and h. RFC 8617 leaves open what other sealers do, so two things are as the
// public suite of its authors has them: without c= both forms are relaxed, and
// empty names in h= sign nothing. A list that names fields must name From.
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

// readForeignNames is readNames but for empty names, which are dropped.
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

// Tag gives the value of a tag without white space.
func (f *Foreign) Tag(name string) (value string, ok bool) {
	_, ok = f.tags.get(name)
	return f.tags.text(name), ok
}

// Signature gives what the field says of itself; its Status is empty.
func (f *Foreign) Signature() Signature { return f.parsed.Signature }

// Unsigned is the field as its signer saw it: with an empty b=.
func (f *Foreign) Unsigned() Field { return f.parsed.unsigned() }

// Body is how the body is canonicalized for bh=.
func (f *Foreign) Body() Canonicalization { return f.parsed.body }

// MatchesBody compares bh= with the hash of the body.
func (f *Foreign) MatchesBody(sums Sums) bool { return f.parsed.matchesBody(sums) }

// KeyName is the name that the key is at, without a last dot.
func (f *Foreign) KeyName() string { return f.parsed.keyName() }

// HeaderHash hashes the fields of one message for several signatures. It is
// not safe for concurrent use.
type HeaderHash struct{ hash *headerHash }

// NewHeaderHash takes the whole header of a message.
func NewHeaderHash(fields []Field) *HeaderHash {
	return &HeaderHash{newHeaderHash(fields)}
}

// Sum hashes the fields that f signed and f itself, after ReadMessage.
func (h *HeaderHash) Sum(f *Foreign) [sha256.Size]byte { return h.hash.sum(f.parsed) }

// Keys is what is at one key name.
type Keys struct{ lookup lookup }

// LookupKeys asks for the keys at a KeyName. It returns when ctx ends.
func LookupKeys(ctx context.Context, r Resolver, name string) *Keys {
	k := new(Keys)
	k.lookup.run(ctx, r, name, nil)
	return k
}

// Verify checks the signature of f over a header's hash. The status is Pass,
// Fail, Policy (an RSA key of a size that is refused), TempError or PermError;
// the reason, of ours alone, is empty for a pass. The error is that of the DNS.
func (k *Keys) Verify(f *Foreign, digest [sha256.Size]byte) (Status, string, error) {
	if _, refused := k.lookup.judge(f.parsed, digest, ""); refused != nil {
		return refused.status, refused.reason, k.lookup.err
	}
	return Pass, "", nil
}
