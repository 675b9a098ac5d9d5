package dkim

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"testing"
)

func TestComparePublished(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	ours, other := "v=DKIM1; k=ed25519; p="+b64(edPublic), "v=DKIM1; k=ed25519; p="+b64(otherPublic)
	asRSA := "v=DKIM1; p=" + b64(der)
	tests := []struct {
		name    string
		records []string
		want    Published
	}{
		{"none", nil, Unpublished},
		{"no key", []string{"v=spf1 -all", "nonsense"}, Unpublished},
		{"ours", []string{ours}, PublishedSame},
		{"ours beside a wildcard", []string{"v=spf1 -all", ours}, PublishedSame},
		{"ours beside another", []string{other, ours}, PublishedSame},
		{"ours before another", []string{ours, other}, PublishedSame},
		{"another", []string{other}, PublishedOther},
		{"of another type", []string{asRSA}, PublishedOther},
		{"revoked", []string{"v=DKIM1; k=ed25519; p="}, PublishedOther},
		{"revoked beside a wildcard", []string{"v=spf1 -all", "v=DKIM1; p="}, PublishedOther},
		{"test of another", []string{"v=DKIM1; t=y; k=ed25519; p=" + b64(otherPublic)}, PublishedTesting},
		{"test of ours", []string{"v=DKIM1; t=s:y; k=ed25519; p=" + b64(edPublic)}, PublishedTesting},
		{"revoked test", []string{"v=DKIM1; t=y; p="}, PublishedTesting},
		{"DKIM2", []string{"v=DKIM2; k=ed25519; p=" + b64(edPublic)}, Unpublished},
		{"DKIM2 of another", []string{"v=DKIM2; k=ed25519; p=" + b64(otherPublic)}, Unpublished},
		{"revoked DKIM2", []string{"v=DKIM2; p="}, Unpublished},
		{"DKIM2 in another place", []string{"k=ed25519; p=" + b64(edPublic) + "; v=DKIM2"}, Unpublished},
		{"DKIM2 with space", []string{" v = DKIM2 ; k=ed25519; p=" + b64(edPublic)}, Unpublished},
		{"DKIM2 beside ours", []string{"v=DKIM2; k=ed25519; p=" + b64(otherPublic), ours}, PublishedSame},
		{"broken key", []string{"v=DKIM1; p=AAAA"}, Unpublished},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := ComparePublished(test.records, edPublic); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	if got := ComparePublished([]string{asRSA}, rsaKey.Public()); got != PublishedSame {
		t.Errorf("RSA: %v", got)
	}
}
