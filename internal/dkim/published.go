package dkim

import (
	"crypto"
	"errors"
	"strings"
)

// Published is what the DNS says about a key that signs.
type Published uint8

// What the records at the name of a key may come to.
const (
	// Unpublished: no record is a key. Whether verifiers see the same, one answer
	// cannot tell: a new record needs its time to reach every server.
	Unpublished Published = iota
	// PublishedSame: signatures of the key verify.
	PublishedSame
	// PublishedTesting: a record says t=y, so that failures count as no signature.
	PublishedTesting
	// PublishedOther: the records hold other keys, or a revoked one.
	PublishedOther
)

// String gives a phrase for the log.
func (p Published) String() string {
	switch p {
	case PublishedSame:
		return "published"
	case PublishedTesting:
		return "published as a test (t=y)"
	case PublishedOther:
		return "published with another key, or revoked"
	}
	return "not published"
}

// ComparePublished judges the TXT records at the name of a key by its public
// half. Records that are no keys are passed over, as verifiers do.
func ComparePublished(records []string, public crypto.PublicKey) Published {
	found := Unpublished
	for _, record := range records[:min(len(records), maxKeyRecords)] {
		k, err := parseKey(strings.TrimSpace(record))
		switch {
		case err != nil && !errors.Is(err, errRevoked):
		case k.testing:
			return PublishedTesting
		case err == nil && k.is(public):
			found = PublishedSame
		case found == Unpublished:
			found = PublishedOther
		}
	}
	return found
}

// is tells whether k is this public key.
func (k *publicKey) is(public crypto.PublicKey) bool {
	if k.rsa != nil {
		return k.rsa.Equal(public)
	}
	return k.ed25519.Equal(public)
}

// PublicKeyOf returns the public key that a key record holds.
func PublicKeyOf(record string) (crypto.PublicKey, error) {
	k, err := parseKey(record)
	if err != nil {
		return nil, err
	}
	if k.rsa != nil {
		return k.rsa, nil
	}
	return k.ed25519, nil
}
