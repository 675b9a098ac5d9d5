package sign

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
)

// ownLife is how long an existing signature of ours must still be valid, because the
// mail may wait in a queue.
const ownLife = 24 * time.Hour

// maxOwn bounds the signatures of ours that are looked at.
const maxOwn = 2 * MaxKeysPerDomain

// startOwn begins to verify the signatures that claim to be made with one of keys.
// Mail that a content filter or a list hands back was signed the first time. DNS is
// not asked. It returns nil if the mail has no signature at all.
func (s *Signer) startOwn(ctx context.Context, fields []dkim.Field, keys []*Key) *dkim.Verification {
	if !slices.ContainsFunc(fields, func(f dkim.Field) bool { return f.Is(dkim.FieldName) }) {
		return nil
	}
	own := newOwnKeys(keys)
	verifier := dkim.Verifier{Resolver: own, Now: s.options.Now, Want: own.has, MaxSignatures: maxOwn}
	return verifier.Start(ctx, fields, keys[0].Domain)
}

// unsigned returns the keys of which the mail has no usable signature yet. A usable
// one verifies, covers every field that is signed now and the whole body, and is
// valid long enough. Each key needs its own: with the Ed25519 signature alone, the
// mail has no signature for most receivers.
func (m *Message) unsigned() []*Key {
	if m.own == nil {
		return m.keys
	}
	have := make(ownKeys, len(m.keys))
	signatures := m.own.Finish().Signatures
	for i := range signatures {
		s := &signatures[i]
		if s.Status == dkim.Pass && !s.Limited && m.coveredBy(s.Signed) && m.holds(s.Expires) {
			have[nameOf(s.Domain, s.Selector)] = nil
		}
	}
	return slices.DeleteFunc(slices.Clone(m.keys), func(k *Key) bool {
		_, ok := have[k.Name()]
		return ok
	})
}

// coveredBy reports whether h= has at least the names that we sign now, each as often
// as we would list it. For example, a list may have added List-Unsubscribe.
func (m *Message) coveredBy(signed []string) bool {
	left := make(map[string]int, len(signed))
	for _, name := range signed {
		left[strings.ToLower(name)]++
	}
	for _, name := range m.names {
		name = strings.ToLower(name)
		if left[name] == 0 {
			return false
		}
		left[name]--
	}
	return true
}

// holds reports whether a signature with this x= is valid long enough. If signatures
// live less than two days, half of that life is enough; otherwise none would ever be.
func (m *Message) holds(expires time.Time) bool {
	need := ownLife
	if m.options.Expire > 0 {
		need = min(need, m.options.Expire/2)
	}
	return expires.IsZero() || expires.After(m.options.Now().Add(need))
}

// ownKeys answers DNS lookups with the public halves of our own keys.
type ownKeys map[string]*Key

func newOwnKeys(keys []*Key) ownKeys {
	own := make(ownKeys, len(keys))
	for _, key := range keys {
		own[key.Name()] = key
	}
	return own
}

func (o ownKeys) has(domain, selector string) bool {
	_, ok := o[nameOf(domain, selector)]
	return ok
}

// nameOf returns the name of a key's record, like Key.Name.
func nameOf(domain, selector string) string {
	return strings.ToLower(selector) + "._domainkey." + domain
}

// LookupTXT returns the record of a key of ours.
func (o ownKeys) LookupTXT(_ context.Context, name string) ([]string, error) {
	key, ok := o[strings.ToLower(name)]
	if !ok {
		return nil, &net.DNSError{Err: "no key of ours", Name: name, IsNotFound: true}
	}
	text, err := key.Record()
	return []string{text}, err
}
