package dkim

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"

	"github.com/postern-mail/postern/internal/resolver"
)

// Resolver asks the DNS. Its errors are those of net.Resolver: a
// *net.DNSError, perhaps wrapped, which says whether a failure is temporary.
// Each string is one TXT record, with its character-strings joined.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// lookup is one question for keys. All signatures with the same key name share
// it. The goroutine that asks writes the fields; they are read after it has
// ended.
type lookup struct {
	keys    []*publicKey
	refused *refusal
	err     error
}

// known answers from the resolver's memory. It reports whether that was
// possible.
func (l *lookup) known(ctx context.Context, r Resolver, name string, cache *KeyCache) bool {
	m, ok := r.(resolver.Remembering)
	if !ok {
		return false
	}
	memory := m.Memory()
	l.run(ctx, memory, name, cache)
	if memory.Missed() {
		*l = lookup{}
		return false
	}
	return true
}

func (l *lookup) run(ctx context.Context, r Resolver, name string, cache *KeyCache) {
	records, err := r.LookupTXT(ctx, name)
	if err != nil {
		l.err, l.refused = err, refuseDNS(err)
		return
	}
	if l.keys, err = keysOf(records, cache); err != nil {
		l.refused = permError(err.Error())
	}
}

// verify tries the keys until one verifies the signature. It returns that key
// and a nil refusal. Otherwise it returns the refusal that came closest to
// success, with its key, which is nil if there was none. If spoiled is not
// empty, it is the reason why the signature fails with every key, because the
// body does not match.
func (l *lookup) verify(p *parsed, digest [sha256.Size]byte, spoiled string) (*publicKey, *refusal) {
	if l.refused != nil {
		return nil, l.refused
	}
	var closest *publicKey
	var worst *refusal
	for _, key := range l.keys {
		refused := key.verifySignature(p, digest, spoiled)
		if refused == nil {
			return key, nil
		}
		if worst == nil || closeness(refused) > closeness(worst) {
			closest, worst = key, refused
		}
	}
	return closest, worst
}

func (k *publicKey) verifySignature(p *parsed, digest [sha256.Size]byte, spoiled string) *refusal {
	if refused := k.allows(p); refused != nil {
		return refused
	}
	switch {
	case spoiled != "":
		return &refusal{Fail, spoiled}
	case !k.verify(digest, p.signature):
		return &refusal{Fail, "signature did not verify"}
	}
	return nil
}

// closeness orders the refusals of several keys at one name. A key that was
// tried has a better reason than one that could not be used.
func closeness(r *refusal) int {
	return slices.Index([]Status{PermError, Policy, Fail}, r.status)
}

// refuseDNS returns the refusal for a failed lookup. It is temporary unless
// the error is clearly an answer.
func refuseDNS(err error) *refusal {
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case !errors.As(err, &dns):
	case dns.IsTemporary, dns.IsTimeout:
	case dns.IsNotFound:
		return permError("no key")
	default:
		return permError("the DNS cannot answer for the key")
	}
	return &refusal{TempError, "the DNS lookup of the key failed"}
}
