package dkim

import (
	"crypto"
	"errors"
	"strings"
)

// Published is the state of a signing key in the DNS.
type Published uint8

// The states of a signing key in the DNS.
const (
	// Unpublished: there is no valid key record. Verifiers may get another
	// answer, because a new record takes time to reach every server.
	Unpublished Published = iota
	// PublishedSame: verifiers find the key, and its signatures verify.
	PublishedSame
	// PublishedTesting: a record has t=y, so a failure counts as no signature.
	PublishedTesting
	// PublishedOther: the records have other keys, or a revoked one.
	PublishedOther
)

// String returns a phrase for the log.
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

// ComparePublished compares the TXT records at the name of a key with its
// public half. Like verifiers, it ignores records that are not valid keys.
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

// is reports whether k is this public key.
func (k *publicKey) is(public crypto.PublicKey) bool {
	if k.rsa != nil {
		return k.rsa.Equal(public)
	}
	return k.ed25519.Equal(public)
}

// PublicKeyOf returns the public key in a key record.
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
