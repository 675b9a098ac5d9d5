package dkim

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"

	"github.com/postern-mail/postern/internal/resolver"
)

// Resolver asks the DNS. Errors are those of net.Resolver: a *net.DNSError,
// wrapped or not, says whether a failure is temporary. Each string is one TXT
// record, its character-strings joined.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// lookup is one question for keys, shared by all signatures that name it. Its
// fields are written by the goroutine that asks and read after it has ended.
type lookup struct {
	keys    []*publicKey
	refused *refusal
	err     error
}

// known answers from memory, if that is possible.
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

// judge applies the keys to a signature until one verifies it. It returns that key
// with a nil refusal, or the refusal that came closest with its key, which is nil
// if none was found. spoiled is why the signature fails whatever the key says of
// it: a body that is another one.
func (l *lookup) judge(p *parsed, digest [sha256.Size]byte, spoiled string) (*publicKey, *refusal) {
	if l.refused != nil {
		return nil, l.refused
	}
	var closest *publicKey
	var worst *refusal
	for _, key := range l.keys {
		refused := key.judge(p, digest, spoiled)
		if refused == nil {
			return key, nil
		}
		if worst == nil || closeness(refused) > closeness(worst) {
			closest, worst = key, refused
		}
	}
	return closest, worst
}

func (k *publicKey) judge(p *parsed, digest [sha256.Size]byte, spoiled string) *refusal {
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

// closeness orders the refusals of several keys at one name: a key that was
// applied says more than one that could not be.
func closeness(r *refusal) int {
	return slices.Index([]Status{PermError, Policy, Fail}, r.status)
}

// refuseDNS says what a failed lookup means. Anything that is not clearly an
// answer may be different the next time.
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
	return &refusal{TempError, "the DNS could not tell the key"}
}
