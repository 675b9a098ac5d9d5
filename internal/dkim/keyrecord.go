package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
)

// publicKey is a key record (RFC 6376 section 3.6.1).
type publicKey struct {
	algorithm string // k=
	hashes    []string
	services  []string
	strict    bool // t=s: the domain of i= must be equal to d=
	testing   bool // t=y
	rsa       *rsa.PublicKey
	ed25519   ed25519.PublicKey
	bits      int
}

// parseKey parses one key record. The error contains only our own text, and
// can be shown.
func parseKey(record string) (*publicKey, error) {
	if len(record) > maxKeyRecord {
		return nil, errors.New("key record too long")
	}
	tags, err := parseTags(record)
	if err != nil {
		return nil, errors.New("key record syntax: " + err.Error())
	}
	if v, ok := tags.get("v"); ok && (v.value != "DKIM1" || tags[0].name != "v") {
		return nil, errors.New("key record is not of version DKIM1")
	}
	k := &publicKey{
		algorithm: tags.text("k"),
		hashes:    tags.words("h"),
		services:  tags.words("s"),
		strict:    slices.Contains(tags.words("t"), "s"),
		testing:   slices.Contains(tags.words("t"), "y"),
	}
	if k.algorithm == "" {
		k.algorithm = "rsa"
	}
	if _, ok := tags.get("p"); !ok {
		return nil, errors.New("key record has no p=")
	}
	return k, k.readKey(tags.text("p"))
}

var errRevoked = errors.New("key revoked")

func (k *publicKey) readKey(text string) error {
	if text == "" {
		return errRevoked
	}
	data, err := decodeBase64(text)
	if err != nil {
		return errors.New("p= is not base64")
	}
	switch k.algorithm {
	case "rsa":
		return k.readRSA(data)
	case "ed25519":
		if len(data) != ed25519.PublicKeySize {
			return errors.New("p= is not an Ed25519 key")
		}
		k.ed25519 = data
		return nil
	default:
		return errors.New("unknown key algorithm")
	}
}

// readRSA parses an RSA key. It accepts SubjectPublicKeyInfo, which is what
// everyone publishes, and the RSAPublicKey of RFC 6376 (erratum 3017).
func (k *publicKey) readRSA(data []byte) error {
	if key, err := x509.ParsePKCS1PublicKey(data); err == nil {
		k.rsa = key
	} else if key, err := x509.ParsePKIXPublicKey(data); err == nil {
		k.rsa, _ = key.(*rsa.PublicKey)
	}
	if k.rsa == nil {
		return errors.New("p= is not an RSA key")
	}
	k.bits = k.rsa.N.BitLen()
	return nil
}

// allows checks whether the key may be used for p. It returns nil if so.
func (k *publicKey) allows(p *parsed) *refusal {
	if k.algorithm != p.keyAlgorithm {
		return permError("key is for another algorithm")
	}
	if k.hashes != nil && !slices.Contains(k.hashes, "sha256") {
		return permError("key does not allow SHA-256")
	}
	if k.services != nil && !slices.Contains(k.services, "email") && !slices.Contains(k.services, "*") {
		return permError("key is not for email")
	}
	if domain, _ := p.identityDomain(); k.strict && domain != p.Domain {
		return permError("key demands that i= be in d= itself")
	}
	if k.rsa != nil && k.bits < minRSABits {
		return &refusal{Policy, "RSA key under 1024 bit"}
	}
	if k.rsa != nil && k.bits > maxRSABits {
		return &refusal{Policy, "RSA key over 4096 bit"}
	}
	return nil
}

// verify reports whether the signature over the hash of the header is valid.
func (k *publicKey) verify(digest [sha256.Size]byte, signature []byte) bool {
	if k.rsa != nil {
		return rsa.VerifyPKCS1v15(k.rsa, crypto.SHA256, digest[:], signature) == nil
	}
	return ed25519.Verify(k.ed25519, digest[:], signature)
}

// keysOf parses the records at a key name. The RFC does not define the result
// for several records (section 3.6.2.2). In practice they come from a wildcard
// record, or from a key rotation within one selector. So invalid records are
// ignored, and a signature may verify with any of the other keys. If there is
// no valid key, the error is that of the first record.
func keysOf(records []string, cache *KeyCache) ([]*publicKey, error) {
	if len(records) == 0 {
		return nil, errors.New("no key")
	}
	if len(records) > maxKeyRecords {
		return nil, errors.New("too many key records")
	}
	var keys []*publicKey
	var first error
	for _, record := range records {
		key, err := cache.parse(strings.TrimSpace(record))
		switch {
		case err == nil:
			keys = append(keys, key)
		case first == nil:
			first = err
		}
	}
	if len(keys) == 0 {
		return nil, first
	}
	return keys, nil
}
