package policyd

import (
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/service/owners"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// ownershipPart is the part for the ownership check.
type ownershipPart struct {
	owners.Flags

	opened *owners.Opened
	check  *checks.Ownership
	shadow bool
}

func (o *ownershipPart) bind(fs *pflag.FlagSet) { o.Bind(fs) }

func (o *ownershipPart) validate(s *config.Set) error { return o.Validate(s) }

func (o *ownershipPart) build(n *needs) (policy.Entry, error) {
	opened, err := o.Open(owners.Deps{Runtime: n.Runtime, Set: n.set, Life: n.life})
	if err != nil {
		return policy.Entry{}, err
	}
	o.opened = opened
	n.tables = append(n.tables, opened.Tables...)
	o.shadow = n.options.shadowed(checks.OwnershipName)
	o.check = &checks.Ownership{Rules: opened.Judge}
	return policy.Entry{Check: o.check, OnError: onError(o.OnError), ErrorReason: record.OwnerLookupFailed}, nil
}
