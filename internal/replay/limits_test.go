package replay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/limit/memstore"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// limitOf is the check of a rule.
func limitOf(t *testing.T, rules ...string) Settings {
	t.Helper()
	c := limit.Config{Keyer: limit.Keyer{Bits4: 24, Bits6: 64}, Store: memstore.New(memstore.Options{}), CountAt: limit.AtName}
	for _, text := range rules {
		r, err := limit.ParseRule(text, time.ParseDuration)
		if err != nil {
			t.Fatal(err)
		}
		r.Action = limit.Defer
		c.Rules = append(c.Rules, r)
	}
	return Settings{Limits: &checks.Limit{Judge: limit.NewJudge(c), Alarm: func(limit.Alarm) {}}, Rules: strings.Join(rules, " ")}
}

// submissions are mails of people who log in, to some recipients each. No one comes
// back: a record does not show when.
func submissions(seed uint64) (all []mail) {
	r := rand.New(rand.NewPCG(seed, 2))
	for n := range 120 {
		at := time.Duration(r.IntN(int(6*time.Hour))).Round(time.Second) + time.Duration(n)*time.Microsecond
		login := fmt.Sprintf("user%d", r.IntN(5))
		if n%3 == 0 {
			login = "busy"
		}
		for to := range 1 + r.IntN(4) {
			all = append(all, mail{client: fmt.Sprintf("198.51.100.%d", r.IntN(200)), login: login, sender: login + "@home.example", recipient: fmt.Sprintf("r%d@away.example", to), at: at})
		}
	}
	return all
}

// refuser is a check that turns some recipients away.
type refuser struct{}

func (refuser) Name() string { return "other" }
func (refuser) Check(_ context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	if r.Recipient.Local == "r2" {
		return policy.Verdict{Kind: policy.Reject, Reason: record.OwnerNotOwned, Text: "no"}, nil
	}
	return policy.Verdict{}, nil
}

// What replay says of a limit that is tried is what the daemon does with it, also
// when other checks turn some recipients away.
func TestALimitIsWhatTheDaemonDoes(t *testing.T) {
	for seed := range uint64(2) {
		for _, rules := range [][]string{{"login.recipients=20/1h"}, {"login.messages=5/30m"}, {"login.recipients=30/2h", "login.networks=1/1h"}, {"login.refused=3/1h"}, {"client.recipients=1000/1h"}} {
			free, _, _ := spendWith(t, policy.Chain{{Check: refuser{}}}, submissions(seed))
			bound, _, _ := spendWith(t, policy.Chain{{Check: limitOf(t, rules...).Limits}, {Check: refuser{}}}, submissions(seed))
			want := 0
			for line := range strings.Lines(bound) {
				if strings.Contains(line, `"check":"limit","verdict":"defer"`) {
					want++
				}
			}
			r := play(t, free, Options{Would: limitOf(t, rules...)})
			if r.Limits.Would != want || r.Limits.Was != 0 || r.Differ != want || (want == 0) != (rules[0] == "client.recipients=1000/1h") {
				t.Errorf("seed %d, %v: would refuse %d, want %d; %d differences", seed, rules, r.Limits.Would, want, r.Differ)
			}
			sum := 0
			for _, o := range r.Limits.Over {
				sum += o.Refused
			}
			if sum != want && len(r.Limits.Over) < 10 {
				t.Errorf("seed %d, %v: %+v", seed, rules, r.Limits.Over)
			}
			// The day with the limit, replayed with it, is not played at all.
			if r := play(t, bound, Options{Was: limitOf(t, rules...), Would: limitOf(t, rules...)}); r.Limits != nil || r.Differ != 0 {
				t.Errorf("unchanged: %+v", r)
			}
			// Without it, what it has refused would have passed.
			if r := play(t, bound, Options{Was: limitOf(t, rules...)}); r.Limits.Was != want || r.Limits.Would != 0 || r.Differ != want {
				t.Errorf("without the limit: %+v, want %d", r.Limits, want)
			}
		}
	}
}

// A mail that a limit keeps out does not reach the greylist.
func TestALimitComesBeforeTheGreylist(t *testing.T) {
	mails := submissions(1)
	for i := range mails {
		mails[i].login = ""
	}
	lines, _, _ := spend(t, newCheck(), mails, policy.Enforce)
	would := limitOf(t, "global.recipients=1/24h")
	would.Greylist = newCheck()
	alone := play(t, lines, Options{Was: of(newCheck()), Would: of(newCheck())}).Greylist
	r := play(t, lines, Options{Was: of(newCheck()), Would: would})
	if r.Limits.Would == 0 || r.Greylist.Would.Deferred >= alone.Would.Deferred || r.Greylist.Was != alone.Was || r.Greylist.Asked != alone.Asked || r.Misfits != 0 {
		t.Errorf("%+v, %+v, the greylist alone %+v", r.Limits, r.Greylist, alone)
	}
}
