package policyd

import (
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/replay"
	"github.com/postern-mail/postern/policy/checks"
)

// replay implements replayer. The check has its own store. Recipients count when they
// are named, because records do not show whether a mail was completed.
func (o *limitPart) replay(n *needs, to *replay.Settings) error {
	to.Rules = strings.Join(o.Limits, " ") + "; " + strings.Join(o.LimitActions, " ") + "; " + strings.Join(o.LimitOverrides, " ")
	if !o.limited() {
		return nil
	}
	to.Sizes = slices.ContainsFunc(o.rules, func(r limit.Rule) bool { return r.Unit == limit.Bytes })
	c, err := o.judgeConfig(n)
	if err != nil {
		return err
	}
	c.Store, c.CountAt = memstore.New(memstore.Options{}), limit.AtName
	to.Limits = &checks.Limit{Alarm: func(limit.Alarm) {}, Judge: limit.NewJudge(c)}
	return nil
}
