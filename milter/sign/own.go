package sign

import (
	"context"
	"net"
	"strings"

	"github.com/postern-mail/postern/internal/dkim"
)

// startOwn begins to verify the signatures that claim to be by one of keys: mail
// that a content filter hands back was signed on its first way through. No DNS
// is asked.
func (s *Signer) startOwn(ctx context.Context, fields []dkim.Field, keys []*Key) *dkim.Verification {
	own := make(ownKeys, len(keys))
	for _, key := range keys {
		own[key.Name()] = key
	}
	verifier := dkim.Verifier{Resolver: own, Now: s.options.Now, Want: own.has}
	return verifier.Start(ctx, fields, keys[0].Domain)
}

// ownKeys answers for the DNS with the public halves of our own keys.
type ownKeys map[string]*Key

func (o ownKeys) has(domain, selector string) bool {
	_, ok := o[strings.ToLower(selector)+"._domainkey."+domain]
	return ok
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
