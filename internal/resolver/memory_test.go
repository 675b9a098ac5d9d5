package resolver_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// What is known is answered, absent names included; what is not is not asked.
func TestFromMemory(t *testing.T) {
	server := resolvertest.New(t, `known.example. 60 TXT "text"
known.example. 60 A 192.0.2.1
other.example. 60 TXT "text"
`)
	r, err := resolver.New(resolver.Config{Servers: []string{server.Addr()}, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.LookupTXT(t.Context(), "known.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.LookupTXT(t.Context(), "absent.example"); err == nil {
		t.Fatal("absent.example is there")
	}
	asked := len(server.Queries())

	memory, missed := r.FromMemory(t.Context())
	inner, cancel := context.WithTimeout(memory, time.Minute) // callers bound their own parts
	defer cancel()
	if got, err := r.LookupTXT(inner, "Known.Example."); err != nil || len(got) != 1 {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := r.LookupTXT(inner, "absent.example"); errors.Is(err, resolver.ErrNotInMemory) || err == nil {
		t.Errorf("an absence that is known: %v", err)
	}
	if missed() {
		t.Error("missed what it knows")
	}
	if _, err := r.LookupTXT(inner, "other.example"); !errors.Is(err, resolver.ErrNotInMemory) || !missed() {
		t.Errorf("%v, missed %t", err, missed())
	}
	memory, missed = r.FromMemory(t.Context())
	if _, err := r.LookupNetIP(memory, "ip", "known.example"); err == nil || !missed() {
		t.Errorf("addresses: %v, missed %t", err, missed())
	}
	if now := len(server.Queries()); now != asked {
		t.Errorf("%d questions were sent", now-asked)
	}
}
