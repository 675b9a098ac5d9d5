package sign

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// Record returns the text of the key's TXT record (RFC 6376 section 3.6.1).
func (k *Key) Record() (string, error) {
	head, public, err := k.recordParts()
	return head + "p=" + public, err
}

// ZoneEntry returns the key's TXT record as opendkim-genkey writes it, to be
// pasted into the zone of the domain. No string in it exceeds 255 octets.
func (k *Key) ZoneEntry() (string, error) {
	head, public, err := k.recordParts()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s._domainkey\tIN\tTXT\t( %q\n\t  \"p=", k.Selector, head)
	for len(public) > zoneString {
		b.WriteString(public[:zoneString] + "\"\n\t  \"")
		public = public[zoneString:]
	}
	fmt.Fprintf(&b, "%s\" )  ; ----- DKIM key %s for %s\n", public, k.Selector, k.Domain)
	return b.String(), nil
}

// zoneString is how much of a key goes into one character-string.
const zoneString = 250

// recordParts returns what is before p= and the value of p=.
func (k *Key) recordParts() (head, public string, err error) {
	switch key := k.Signer.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; h=sha256; k=ed25519; ", base64.StdEncoding.EncodeToString(key), nil
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(key)
		return "v=DKIM1; h=sha256; k=rsa; ", base64.StdEncoding.EncodeToString(der), err
	default:
		return "", "", fmt.Errorf("%s: a key of type %T", k.Name(), key)
	}
}
