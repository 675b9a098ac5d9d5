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
	DNS       string `json:"dns,omitempty"` // "" while no one asks: see --dkim-require-dns
	// Error is why a file, folder or line is not used; nothing else is known of it.
	Error string `json:"error,omitempty"`
}

func signCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		"dkim.keys": command(c, (*signPart).list),
	}
}

// list lists the keys, by domain and selector.
func (o *signPart) list(context.Context, struct{}, func(any)) (any, error) {
	signs := make(map[string]bool)
	for _, key := range o.signer.Keys().All() {
		signs[key.Name()] = true
	}
	list := []KeyStatus{}
	for _, key := range o.keys.All() {
		list = append(list, KeyStatus{
			Domain: key.Domain, Selector: key.Selector, Algorithm: key.Algorithm, Bits: key.Bits, Path: key.Path,
			Signs: signs[key.Name()], DNS: o.watch.status(key),
		})
	}
	for _, err := range o.unused {
		list = append(list, KeyStatus{Error: err.Error()})
	}
	return list, nil
}
