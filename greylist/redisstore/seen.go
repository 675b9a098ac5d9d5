package redisstore

import (
	"context"
	_ "embed" // the script
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
)

//go:embed seen.lua
var seenSource string

// terms are the arguments of the script that come of the limits. They change
// with the settings only, so they are written once.
type terms struct {
	limits greylist.Limits // without Full
	args   []any
}

func newTerms(l greylist.Limits) *terms {
	credit := fmt.Sprint(l.AllowAfter, l.AllowTTL.Milliseconds(), expiry(l.AllowTTL))
	return &terms{l, []any{
		decimal(l.Delay.Milliseconds()), decimal(l.RetryWindow.Milliseconds()), decimal(l.PassTTL.Milliseconds()),
		decimal(expiry(l.RetryWindow)), decimal(expiry(l.PassTTL)), decimal(int64(max(l.NetworkCap, 0))), credit}}
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func (s *Store) termsOf(l greylist.Limits) *terms {
	l.Full = false
	t := s.terms.Load()
	if t == nil || t.limits != l {
		t = newTerms(l)
		s.terms.Store(t)
	}
	return t
}

// Seen implements greylist.Store.
func (s *Store) Seen(ctx context.Context, k greylist.Key, now time.Time, l greylist.Limits) (greylist.Record, error) {
	value, err := s.sightings.ask(ctx, &sighting{args: s.question(k, now, l)})
	if err != nil {
		return greylist.Record{}, err
	}
	return record(value)
}

// question is EVALSHA of seen.lua.
func (s *Store) question(k greylist.Key, now time.Time, l greylist.Limits) []any {
	args := append(make([]any, 0, 16), "evalsha", s.seen.Hash(), "2", s.key(k.ByNetwork()), s.key(k.NetworkClient()))
	if k.Domain != "" || k.Claimed != "" {
		args = append(args, s.tag+"c:"+string(k.DomainClient()))
	}
	if k.Domain != "" {
		args = append(args, s.key(k.ByDomain()))
	}
	if l.NetworkCap > 0 {
		args = append(args, s.tag+"n:"+k.Network)
	}
	args[firstKey-1] = strconv.Itoa(len(args) - firstKey)
	args = append(args, decimal(int64(greylist.At(now))))
	args = append(args, s.termsOf(l).args...)
	if l.Full {
		args = append(args, "1")
	}
	return args
}

// firstKey is the place of the first key in EVALSHA.
const firstKey = 3

// record reads the script's answer: a number for nothing, the triplet of the
// network, or four values and the refusal.
func record(answer any) (r greylist.Record, err error) {
	var numbers [4][3]int64
	ok := false
	switch answer := answer.(type) {
	case int64:
		return r, nil
	case string:
		numbers[0], ok = three(answer)
	case []any:
		if ok = len(answer) == len(numbers)+1; ok {
			refused, isNumber := answer[len(numbers)].(int64)
			r.Refused, ok = greylist.Refusal(refused), isNumber
		}
		for i := 0; ok && i < len(numbers); i++ {
			text, isText := answer[i].(string)
			if ok = isText; ok && text != "" {
				numbers[i], ok = three(text)
			}
		}
	}
	if !ok {
		return greylist.Record{}, errAnswer
	}
	r.ByNetwork, r.NetworkClient = triplet(numbers[0]), client(numbers[1])
	r.DomainClient, r.ByDomain = client(numbers[2]), triplet(numbers[3])
	return r, nil
}

// sendSeen asks the server, and once more for those sightings whose script it
// did not know.
func (s *Store) sendSeen(batch []*sighting) {
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	unknown := s.pipeline(ctx, batch)
	if len(unknown) == 0 {
		return
	}
	if err := s.seen.Load(ctx, s.client).Err(); err != nil {
		for _, one := range unknown {
			one.err = fmt.Errorf("redis: %w", err)
		}
		return
	}
	s.pipeline(ctx, unknown)
}

// pipeline makes one round trip and returns those whose script is not known.
func (s *Store) pipeline(ctx context.Context, batch []*sighting) (unknown []*sighting) {
	cmds := make([]*redis.Cmd, len(batch))
	p := s.client.Pipeline()
	for i, one := range batch {
		cmds[i] = redis.NewCmd(ctx, one.args...)
		cmds[i].SetFirstKeyPos(firstKey)
		_ = p.Process(ctx, cmds[i]) // it is kept for Exec
	}
	_, _ = p.Exec(ctx) // each command has its own error
	for i, one := range batch {
		one.value, one.err = cmds[i].Result()
		switch {
		case one.err == nil:
		case redis.HasErrorPrefix(one.err, "NOSCRIPT"):
			unknown = append(unknown, one)
			fallthrough
		default:
			one.err = fmt.Errorf("redis: %w", one.err)
		}
	}
	return unknown
}
