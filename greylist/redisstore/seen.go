package redisstore

import (
	"context"
	_ "embed" // the script
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

//go:embed seen.lua
var seenSource string

// terms are the script for one set of limits. The limits are part of its text, so
// the text changes with the settings only. The server keeps the text of earlier
// settings, about 5 kB each, until it restarts.
type terms struct {
	limits greylist.Limits // without Full
	script *redisclient.Script
}

func newTerms(l greylist.Limits) *terms {
	text := fmt.Sprintf("local delay, retry_window, pass_ttl, cap, allow_after, allow_ttl = %d, %d, %d, %d, %d, %d\n",
		l.Delay.Milliseconds(), l.RetryWindow.Milliseconds(), l.PassTTL.Milliseconds(), max(l.NetworkCap, 0), max(l.AllowAfter, 0), l.AllowTTL.Milliseconds())
	fixed := fmt.Sprintf("local flood_window, credit_interval, note_interval = %d, %d, %d\n",
		greylist.FloodWindow.Milliseconds(), greylist.CreditInterval.Milliseconds(), l.NoteInterval().Milliseconds())
	keep := fmt.Sprintf("local keep_waiting, keep_passed, keep_client, keep_window = '%d', '%d', '%d', '%d'\n",
		expiry(l.RetryWindow), expiry(l.PassTTL), expiry(l.AllowTTL), expiry(greylist.FloodWindow))
	return &terms{l, redisclient.NewScript(text + fixed + keep + seenSource)}
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
	at, err := s.now(ctx, now)
	if err != nil {
		return greylist.Record{}, err
	}
	value, err := s.client.Ask(ctx, s.question(k, at, l))
	if err != nil {
		return greylist.Record{}, failed(err)
	}
	r, err := record(value)
	if err == nil && !s.callerClock {
		r.At = greylist.At(at)
	}
	return r, err
}

// now returns the time of the server's clock, so that a host with a wrong clock does
// not harm the others. If the clock has not been read yet, now reads it first.
func (s *Store) now(ctx context.Context, caller time.Time) (time.Time, error) {
	if s.callerClock {
		return caller, nil
	}
	if at, ok := s.client.Now(); ok {
		return at, nil
	}
	if err := s.client.Probe(ctx); err != nil {
		return time.Time{}, failed(err)
	}
	at, _ := s.client.Now()
	return at, nil
}

func (s *Store) question(k greylist.Key, now time.Time, l greylist.Limits) *redisclient.Call {
	call := s.client.NewCall(s.termsOf(l).script)
	call.Key(s.key(k.ByNetwork()))
	call.Key(s.key(k.NetworkClient()))
	if k.Domain != "" || k.Claimed != "" {
		call.Key(s.key(k.DomainClient()))
	}
	if k.Domain != "" {
		call.Key(s.key(k.ByDomain()))
	}
	if l.NetworkCap > 0 {
		call.Key(s.client.Tag + windowKind + k.Window())
	}
	call.Keys()
	call.Arg(strconv.FormatInt(int64(greylist.At(now)), 10))
	if l.Full {
		call.Arg("1")
	}
	return call
}

// record parses the answer of the script: a number when nothing is known, the triplet
// of the network, or four values and the refusal.
func record(answer any) (r greylist.Record, err error) {
	if _, nothing := answer.(int64); nothing {
		return r, nil
	}
	var numbers [4][3]int64
	ok := false
	text, _ := answer.(string) // anything but a text fails below
	if !strings.Contains(text, ";") {
		numbers[0], ok = three(text)
	} else if values := strings.Split(text, ";"); len(values) == len(numbers)+1 {
		why, ends, _ := strings.Cut(values[len(numbers)], " ")
		refused, err := strconv.ParseUint(why, 10, 8)
		until, _ := strconv.ParseInt(ends, 10, 64)
		r.Refused, r.FloodEnds, ok = greylist.Refusal(refused), greylist.Stamp(until), err == nil
		for i := 0; ok && i < len(numbers); i++ {
			if values[i] != "" {
				numbers[i], ok = three(values[i])
			}
		}
	}
	if !ok {
		return greylist.Record{}, redisclient.ErrAnswer
	}
	r.ByNetwork, r.NetworkClient = triplet(numbers[0]), client(numbers[1])
	r.DomainClient, r.ByDomain = client(numbers[2]), triplet(numbers[3])
	return r, nil
}
