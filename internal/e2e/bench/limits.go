package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

const (
	limitLoad   = 16_000 // mails of a turn
	limitLogins = 20_000
)

// limiting is a daemon that is measured.
type limiting struct {
	args     []string
	asks     int // the requests of a mail
	requests func(load int) func(c, i int) []byte
}

// benchLimits compares a request that also touches two limits of its login in the embedded
// store with an ownership decision alone. Each request is a recipient of another mail. It
// also measures whole mails with the hooks that the manual has: one recipient, and the end
// of the mail, which counts. The first round fills the memory of mails.
func benchLimits(ctx context.Context, e *env) (results []result, err error) {
	table, err := writeOwners(e, "owners-limits")
	if err != nil {
		return nil, err
	}
	limits := []string{"--checks=ownership,limit", "--limit=login=1G/1h", "--limit=login=2G/1d"}
	var sides []*side
	var stops []func() error
	for i, l := range []limiting{
		{asks: 1, requests: limitRequest, args: []string{"--checks=ownership"}},
		{asks: 1, requests: limitRequest, args: limits},
		{asks: 2, requests: limitMail, args: append(limits[:len(limits):len(limits)], "--limit-count-at=end-of-data")},
	} {
		name := fmt.Sprint("limits", i)
		daemon, socket, err := startPolicyd(ctx, e, name, append(l.args, "--owners=hash:"+table, "--limit-store=sqlite:"+filepath.Join(e.dir, name+".db"))...)
		if err != nil {
			return nil, err
		}
		defer daemon.Kill()
		sides, stops = append(sides, l.side(daemon.PID(), socket)), append(stops, daemon.Stop)
	}
	if err := takeTurns(ctx, sides...); err != nil {
		return nil, err
	}
	reference, request, mail := sides[0].micros, sides[1].micros, sides[2].micros
	return []result{
		against("CPU of a decision with two limits of its login, against ownership alone", request, reference, 1.6),
		against("CPU of a mail, counted at its end, against an ownership decision", mail, reference, 0),
	}, ender(stops...)()
}

func (l limiting) side(pid int, socket string) *side {
	return serverSide(pid, limitLoad, func(ctx context.Context, turn int) error {
		load := load{conns: ownershipConns, requests: limitLoad * l.asks, request: l.requests(turn)}
		_, actions, err := load.send(ctx, "unix", socket)
		return errors.Join(err, expect(actions, map[string]int{"DUNNO": load.requests}))
	})
}

// against compares the CPU of two sides, by round.
func against(what string, ours, reference []float64, most float64) result {
	each := ratios(ours, reference)
	return result{what: what, value: median(each), unit: "times", most: most, detail: fmt.Sprintf("%.1f against %.1f µs, %s, %.2f of all rounds",
		median(ours), median(reference), spread(each), sum(ours)/sum(reference))}
}

func sum(values []float64) (all float64) {
	for _, v := range values {
		all += v
	}
	return all
}

// limitRequest returns the requests of a load, of many logins and each for its own mail.
func limitRequest(load int) func(c, i int) []byte {
	return func(c, i int) []byte {
		sender, login := owner((c*7919 + i*104_729) % limitLogins)
		return fmt.Appendf(nil, policyRequest, "192.0.2.7", "client.example", sender, "rcpt@example.org", fmt.Sprintf("%x.%x.%x", c, i, load), login)
	}
}

// limitMail returns the requests of mails with one recipient: Postfix asks when the
// recipient is named, and at the end of the mail.
func limitMail(load int) func(c, i int) []byte {
	named := limitRequest(load)
	return func(c, i int) []byte {
		request := named(c, i/2)
		if i%2 == 0 {
			return inContext(request, "ownership, limit")
		}
		end := strings.NewReplacer("protocol_state=RCPT", "protocol_state=END-OF-MESSAGE", "recipient_count=0", "recipient_count=1", "queue_id=", "queue_id=4cQW2y0001")
		return inContext([]byte(end.Replace(string(request))), "limit")
	}
}

// inContext adds a policy_context to a request.
func inContext(request []byte, checks string) []byte {
	return []byte(strings.Replace(string(request), "policy_context=", "policy_context="+checks, 1))
}
