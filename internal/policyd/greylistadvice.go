package policyd

import (
	"context"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// advise implements adviser.
func (o *greylistPart) advise(_ context.Context, r *policy.Request, step *policy.Step) []string {
	if step.Err != nil {
		return []string{"the store must answer (the error says why it does not), or --greylist-on-error=pass"}
	}
	lists := []string{
		fmt.Sprintf("an entry for %s in --greylist-allow-clients, or `postern greylist allow %s`, would pass it", r.Client.Address, r.Client.Address),
		fmt.Sprintf("an entry for %s in --greylist-allow-recipients would pass it", r.Recipient.Raw),
	}
	return append(o.adviseWait(step), lists...)
}

// adviseWait returns how long the client has to wait, and what would shorten that.
func (o *greylistPart) adviseWait(step *policy.Step) []string {
	detail := checks.ParseGreylistDetail(step.Verdict.Detail)
	wait := fmt.Sprintf("%s left; the same mail passes when the client tries again after that", detail.Left)
	switch reason := step.Verdict.Reason; {
	case reason == record.GreylistEarly && detail.Waited > time.Second:
		// What is shown is rounded up.
		return []string{fmt.Sprintf("%s; --greylist-delay=%s or less would pass it now", wait, config.FormatDuration(detail.Waited-time.Second))}
	case reason == record.GreylistFloodNetwork:
		return []string{"a higher --greylist-flood-network, or 0, would record it and have it wait as others do"}
	case reason == record.GreylistFlood:
		return []string{"a higher --greylist-flood, or 0, would record it and have it wait as others do"}
	}
	return []string{wait}
}
