package milterd

import (
	"context"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func signCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.DKIMKeys: command(c, (*signPart).list),
	}
}

// list lists the keys of files, by domain and selector, and then those of Postfix
// tables that have signed.
func (o *signPart) list(context.Context, struct{}, func(any)) (any, error) {
	signs := make(map[string]bool)
	for _, key := range o.signer.Keys().Signing() {
		signs[key.Name()] = true
	}
	list := []api.KeyStatus{}
	for _, key := range o.keys.Signing() {
		list = append(list, api.KeyStatus{
			Domain: key.Domain, Selector: key.Selector, Algorithm: key.Algorithm, Bits: key.Bits, Path: key.Path,
			Signs: signs[key.Name()], DNS: o.watch.status(key),
		})
	}
	for _, key := range o.lookups.Seen() {
		list = append(list, api.KeyStatus{Domain: key.Domain, Selector: key.Selector, Algorithm: key.Algorithm, Bits: key.Bits, Path: key.Path, Signs: true})
	}
	for _, err := range o.unused {
		list = append(list, api.KeyStatus{Error: err.Error()})
	}
	return list, nil
}
