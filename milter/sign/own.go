package sign

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/dkim"
)

// ownLife is how long a signature of ours must still hold for a mail that comes
// back: it may wait in a queue yet.
const ownLife = 24 * time.Hour

// maxOwn bounds the signatures of ours that are looked at.
const maxOwn = 2 * MaxKeysPerDomain

// startOwn begins to verify the signatures that claim to be by one of keys: mail
// that a content filter or a list hands back was signed on its first way through.
// No DNS is asked.
func (s *Signer) startOwn(ctx context.Context, fields []dkim.Field, keys []*Key) *dkim.Verification {
	own := make(ownKeys, len(keys))
	for _, key := range keys {
		own[key.Name()] = key
	}
	verifier := dkim.Verifier{Resolver: own, Now: s.options.Now, Want: own.has, MaxSignatures: maxOwn}
	return verifier.Start(ctx, fields, keys[0].Domain)
}

// unsigned returns the keys of which the mail has no signature that does what a new
// one would: it verifies, covers every field that is signed now and whatever body
// comes, and holds long enough. Each key is asked for: a mail that has the Ed25519
// signature alone has none for most receivers.
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

// coveredBy reports whether the names in h= are at least those that we sign, as
// often as we name them: a list may have added List-Unsubscribe since.
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

// holds reports whether a signature with that x= has life enough. What is given
// less than two days has enough with half of that, or nothing ever would.
func (m *Message) holds(expires time.Time) bool {
	need := ownLife
	if m.options.Expire > 0 {
		need = min(need, m.options.Expire/2)
	}
	return expires.IsZero() || expires.After(m.options.Now().Add(need))
}

// ownKeys answers for the DNS with the public halves of our own keys.
type ownKeys map[string]*Key

func (o ownKeys) has(domain, selector string) bool {
	_, ok := o[nameOf(domain, selector)]
	return ok
}

// nameOf is the name of a key's record, as Key.Name has it.
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
