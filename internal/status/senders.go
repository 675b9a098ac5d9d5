package status

import (
	"context"
	"slices"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
)

// Times for asking who sends in the names of our domains. The daemon may have to read a
// large file, so nothing waits for the answer.
const (
	sendersEvery   = 15 * time.Second
	sendersTimeout = 30 * time.Second
)

// askSenders asks the daemon. The answer is nil if it does not read reports.
func (s *Server) askSenders(ctx context.Context) *api.DMARCSendersResult {
	trouble := map[string]string{}
	senders, ok := askAs[*api.DMARCSendersResult](ctx, s, trouble, api.DMARCSenders, nil)
	if why := trouble[api.DMARCSenders]; !ok && why != "" {
		senders = &api.DMARCSendersResult{Error: why, Domains: []api.DMARCDomain{}}
	}
	if s.o.Privacy {
		senders = hideSenders(senders)
	}
	return senders
}

// hideSenders returns a copy without addresses.
func hideSenders(r *api.DMARCSendersResult) *api.DMARCSendersResult {
	if r == nil {
		return nil
	}
	shown := *r
	shown.Error = hideText(r.Error)
	shown.Domains = slices.Clone(r.Domains)
	for i := range shown.Domains {
		d := &shown.Domains[i]
		d.Domain, d.Policy, d.Reporters = hideText(d.Domain), hideText(d.Policy), hideTexts(d.Reporters)
		d.Sources = slices.Clone(d.Sources)
		for k := range d.Sources {
			one := &d.Sources[k]
			one.Address, one.SPF, one.Why = hideIP(one.Address), hideText(one.SPF), hideTexts(one.Why)
			if one.Hosts > 1 {
				one.Name = hideText(one.Name) // of a domain
			} else {
				one.Name = hideHost(one.Name)
			}
		}
	}
	return &shown
}

func hideTexts(texts []string) []string {
	texts = slices.Clone(texts)
	for i := range texts {
		texts[i] = hideText(texts[i])
	}
	return texts
}
