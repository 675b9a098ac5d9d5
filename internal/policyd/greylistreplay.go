package policyd

import (
	"github.com/postern-mail/postern/internal/replay"
	"github.com/postern-mail/postern/policy/checks"
)

// replay implements replayer. The check has neither its store nor DNS.
func (o *greylistPart) replay(n *needs, to *replay.Settings) error {
	to.FloodCap = o.GreylistFlood
	to.Greylist = &checks.Greylist{
		Delimiters: n.delimiters(), Limits: o.limits(), Keyer: o.keyer(), Relays: n.options.Relays, OnlySuspicious: o.GreylistWhen == wordSuspicious,
	}
	return o.readLists(to.Greylist, n)
}
