package milterd

import "github.com/postern-mail/postern/internal/config"

// idleSettings collects settings that have no effect because of other settings.
type idleSettings struct {
	set  *config.Set
	errs []error

	signs, verifies bool // there is a socket for this role
	// shadowed reports whether a verdict is only watched. A part with verdicts notes
	// in watches that it has some.
	shadowed func(what string) bool
	watches  bool
	// watchesFrom is the same for From ownership, which any socket can have.
	watchesFrom bool
}

// The fixes for settings of a role that no socket has.
const (
	fixSigns    = "no socket signs mail; add --listen-sign, or remove it"
	fixVerifies = "no socket verifies mail; add --listen-verify, or remove it"
)

// addFlags adds those of the flags that were set, if they have no effect.
func (i *idleSettings) addFlags(idles bool, fix string, flags ...string) {
	for _, flag := range flags {
		if idles && i.set.Origin(flag).Level != config.Default {
			i.errs = append(i.errs, i.set.Errorf(flag, "has no effect: %s", fix))
		}
	}
}

// findIdle returns an error for each setting that has no effect because of other
// settings. --check-config fails for them. The daemon logs them as errors and runs,
// because mail must not stop for them.
func (o *Options) findIdle(s *config.Set) []error {
	bySession := len(o.Listen) > 0
	i := &idleSettings{
		set: s, shadowed: o.shadowed,
		signs: bySession || len(o.ListenSign) > 0, verifies: bySession || len(o.ListenVerify) > 0,
	}
	i.addFlags(!bySession, "it decides on sockets of --listen, and there is none; run postern setup --apply, replace --listen-verify by --listen, or have the mail of these clients come in at a --listen-sign socket", "internal-networks")
	i.addFlags(!bySession, "it decides on sockets of --listen, and there is none; have those services use a --listen-sign socket, or replace --listen-verify by --listen", "originating")
	i.addFlags(!i.verifies, fixVerifies, "trusted-relays")
	i.addFlags(!i.verifies && o.AuthservID != "", fixVerifies, "authserv-id")
	for _, r := range o.rooms {
		if p, ok := r.part.(interface{ findIdle(*idleSettings) }); ok {
			p.findIdle(i)
		}
	}
	switch {
	case len(o.Shadow) == 0:
	case i.watchesFrom:
	case !i.verifies:
		i.addFlags(true, fixVerifies, "shadow")
	default:
		i.addFlags(!i.watches, "what it names refuses and marks nothing; set --spf-reject fail or --dmarc-enforce quarantine, or remove this", "shadow")
	}
	return i.errs
}
