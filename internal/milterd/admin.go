package milterd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
)

// KeyStatus is one private key of the running daemon, in the answer to
// "dkim.keys".
type KeyStatus struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	Bits      int    `json:"bits,omitempty"` // of RSA
	Path      string `json:"path"`
	Signs     bool   `json:"signs"`
	DNS       string `json:"dns,omitempty"` // "" while nobody asks: see --dkim-require-dns
}

// commands are what the postern command may ask of this daemon.
func (a *app) commands() map[string]admin.Handler {
	return map[string]admin.Handler{
		"dkim.keys": admin.Typed(a.dkimKeys),
	}
}

// dkimKeys lists the keys in force, by domain and selector.
func (a *app) dkimKeys(_ context.Context, _ struct{}, _ func(any)) (any, error) {
	s := a.current.Load().signing
	signs := make(map[string]bool)
	for _, key := range s.signer.Keys().All() {
		signs[key.Name()] = true
	}
	list := []KeyStatus{}
	for _, key := range s.keys.All() {
		list = append(list, KeyStatus{
			Domain: key.Domain, Selector: key.Selector, Algorithm: key.Algorithm, Bits: key.Bits, Path: key.Path,
			Signs: signs[key.Name()], DNS: s.dns.status(key),
		})
	}
	return list, nil
}
