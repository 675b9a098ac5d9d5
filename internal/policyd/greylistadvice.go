package policyd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
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

// adviseWait says how long there is to wait, and what would shorten it.
func (o *greylistPart) adviseWait(step *policy.Step) []string {
	waited, left := detailSeconds(step.Verdict.Detail, "waited"), detailSeconds(step.Verdict.Detail, "left")
	wait := fmt.Sprintf("%s left; the same mail passes when the client tries again after that", left)
	switch reason := step.Verdict.Reason; {
	case reason == record.GreylistEarly && waited > time.Second:
		// What is shown is rounded up.
		return []string{fmt.Sprintf("%s; --greylist-delay=%s or less would pass it now", wait, config.FormatDuration(waited-time.Second))}
	case reason == record.GreylistFloodNetwork:
		return []string{"a higher --greylist-flood-network, or 0, would record it and have it wait as others do"}
	case reason == record.GreylistFlood:
		return []string{"a higher --greylist-flood, or 0, would record it and have it wait as others do"}
	}
	return []string{wait}
}

func detailSeconds(detail, name string) time.Duration {
	for word := range strings.FieldsSeq(detail) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			d, _ := time.ParseDuration(value)
			return d
		}
	}
	return 0
}
