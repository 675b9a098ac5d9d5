package redisstore

import (
	"context"
	_ "embed" // the script
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/greylist"
)

//go:embed seen.lua
var seenSource string

// terms are the script for one set of limits. The limits are part of its text:
// they change with the settings only. A server keeps the text of former settings,
// some 5 kB each, until it restarts.
type terms struct {
	limits greylist.Limits // without Full
	script *redis.Script
	hash   any // its SHA-1, as an argument
}

func newTerms(l greylist.Limits) *terms {
	text := fmt.Sprintf("local delay, retry_window, pass_ttl, cap, allow_after, allow_ttl = %d, %d, %d, %d, %d, %d\n",
		l.Delay.Milliseconds(), l.RetryWindow.Milliseconds(), l.PassTTL.Milliseconds(), max(l.NetworkCap, 0), max(l.AllowAfter, 0), l.AllowTTL.Milliseconds())
	fixed := fmt.Sprintf("local flood_window, credit_interval = %d, %d\n", greylist.FloodWindow.Milliseconds(), greylist.CreditInterval.Milliseconds())
	keep := fmt.Sprintf("local keep_waiting, keep_passed, keep_client, keep_window = '%d', '%d', '%d', '%d'\n",
		expiry(l.RetryWindow), expiry(l.PassTTL), expiry(l.AllowTTL), expiry(greylist.FloodWindow))
	script := redis.NewScript(text + fixed + keep + seenSource)
	return &terms{l, script, script.Hash()}
}

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
	one, _ := s.idle.Get().(*sighting)
	if one == nil {
		one = newSighting()
	}
	s.question(one, k, now, l)
	value, err := s.sightings.ask(ctx, one)
	if err != nil {
		return greylist.Record{}, err // it may still be under way
	}
	s.idle.Put(one)
	return record(value)
}

// question makes EVALSHA of the script.
func (s *Store) question(one *sighting, k greylist.Key, now time.Time, l greylist.Limits) {
	t := s.termsOf(l)
	args := append(one.args[:0], "evalsha", t.hash, "2", s.key(k.ByNetwork()), s.key(k.NetworkClient()))
	if k.Domain != "" || k.Claimed != "" {
		args = append(args, s.key(k.DomainClient()))
	}
	if k.Domain != "" {
		args = append(args, s.key(k.ByDomain()))
	}
	if l.NetworkCap > 0 {
		args = append(args, s.tag+"n:"+k.Network)
	}
	if keys := len(args) - firstKey; keys != 2 {
		args[firstKey-1] = strconv.Itoa(keys)
	}
	args = append(args, strconv.FormatInt(int64(greylist.At(now)), 10))
	if l.Full {
		args = append(args, "1")
	}
	one.script, one.args = t.script, args
}

// firstKey is the place of the first key in EVALSHA.
const firstKey = 3

// record reads the script's answer: a number for nothing, the triplet of the
// network, or four values and the refusal.
func record(answer any) (r greylist.Record, err error) {
	if _, nothing := answer.(int64); nothing {
		return r, nil
	}
	var numbers [4][3]int64
	ok := false
	text, _ := answer.(string) // what is no text is no triplet either
	if !strings.Contains(text, ";") {
		numbers[0], ok = three(text)
	} else if values := strings.Split(text, ";"); len(values) == len(numbers)+1 {
		refused, err := strconv.ParseUint(values[len(numbers)], 10, 8)
		r.Refused, ok = greylist.Refusal(refused), err == nil
		for i := 0; ok && i < len(numbers); i++ {
			if values[i] != "" {
				numbers[i], ok = three(values[i])
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
	loaded := map[*redis.Script]error{}
	for _, one := range unknown {
		err, done := loaded[one.script]
		if !done {
			err = one.script.Load(ctx, s.client).Err()
			loaded[one.script] = err
		}
		if err != nil {
			one.err = fmt.Errorf("redis: %w", err)
			return
		}
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
