// Package redisstore keeps the rows of DMARC reports in Redis or Valkey, which several
// hosts can share.
//
// Keys: {postern}:ry the days, by number; {postern}:rd:<day> a hash of domains with
// their policies; {postern}:rs:<day> a hash of sums and of first days; {postern}:rr:<day>:<domain> a
// list of rows, {postern}:rc:<day>:<domain> a hash of their counts by a hash of the
// row; {postern}:rb:<batch> the batches that have been counted; {postern}:rn a hash
// of notes.
package redisstore

import (
	"context"
	"crypto/sha256"
	_ "embed" // the scripts
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

//go:embed add.lua
var addSource string

//go:embed swap.lua
var swapSource string

const (
	// page is how many rows or notes are read in one round trip.
	page = 500
	// keepFor is longer than Retention, because the clocks of hosts may differ.
	keepFor = dmarcreport.Retention + 48*time.Hour
)

// Store implements dmarcreport.Store.
type Store struct {
	client    *redisclient.Client
	add, swap *redisclient.Script
}

// Options describe a store.
type Options struct {
	URL      string // see redisclient.CheckURL
	Password string
	Timeout  time.Duration // of an operation, see redisclient.Options
}

// Open makes a client. It sends nothing, because a server that is down now may be up
// when it is needed.
func Open(o Options) (*Store, error) {
	client, err := redisclient.Open(redisclient.Options{URL: o.URL, Password: o.Password, Timeout: o.Timeout})
	if err != nil {
		return nil, fmt.Errorf("DMARC report store: %w", err)
	}
	return &Store{client, redisclient.NewScript(addSource), redisclient.NewScript(swapSource)}, nil
}

// Client returns the connection to the servers.
func (s *Store) Client() *redisclient.Client { return s.client }

// Close ends all connections after running requests are done.
func (s *Store) Close() error { return s.client.Close() }

// Flush implements dmarcreport.Store.
func (s *Store) Flush(context.Context) error { return nil }

// Probe returns an error if the server cannot be used, or does not write.
func (s *Store) Probe(ctx context.Context) error { return s.client.ProbeWrites(ctx) }

// Add implements dmarcreport.Store.
func (s *Store) Add(ctx context.Context, b *dmarcreport.Batch) (int64, error) {
	policy, err := json.Marshal(b.Policy)
	if err != nil {
		return 0, err
	}
	call := s.client.NewCall(s.add)
	call.Key(s.client.Tag + "ry")
	call.Keys()
	for _, arg := range []string{
		s.client.Tag, b.ID, strconv.Itoa(int(keepFor.Seconds())), dayText(b.Day), b.Domain, string(policy),
		strconv.Itoa(dmarcreport.MaxRows), strconv.Itoa(dmarcreport.MaxDomains),
		dmarcreport.StateName(b.Day, b.Domain), dayText(b.Since),
	} {
		call.Arg(arg)
	}
	for _, r := range b.Rows {
		call.Arg(hashOf(r.Row))
		call.Arg(r.Row)
		call.Arg(strconv.FormatInt(r.Count, 10))
		call.Arg(map[bool]string{true: "1", false: "0"}[r.Plain])
	}
	lost, err := s.run(ctx, call)
	if lost < 0 {
		return 0, dmarcreport.ErrSealed
	}
	return lost, err
}

func (s *Store) run(ctx context.Context, call *redisclient.Call) (int64, error) {
	value, err := s.client.Ask(ctx, call)
	if err != nil {
		return 0, err
	}
	n, ok := value.(int64)
	if !ok {
		return 0, redisclient.ErrAnswer
	}
	return n, nil
}

func dayText(d dmarcreport.Day) string { return strconv.Itoa(int(d)) }

// hashOf returns a collision-resistant hash of a row.
func hashOf(row string) string {
	sum := sha256.Sum256([]byte(row))
	return string(sum[:16])
}

// do runs f with the server that has the keys.
func (s *Store) do(ctx context.Context, f func(ctx context.Context, node redis.Cmdable) error) error {
	return s.client.Do(ctx, func(ctx context.Context) error {
		node, err := s.client.Node(ctx)
		if err != nil {
			return err
		}
		return f(ctx, node)
	})
}

// Days implements dmarcreport.Store.
func (s *Store) Days(ctx context.Context) (days []dmarcreport.Day, err error) {
	err = s.do(ctx, func(ctx context.Context, node redis.Cmdable) error {
		texts, err := node.ZRange(ctx, s.client.Tag+"ry", 0, -1).Result()
		for _, text := range texts {
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return redisclient.ErrAnswer
			}
			days = append(days, dmarcreport.Day(n))
		}
		return err
	})
	return days, err
}

// Domains implements dmarcreport.Store.
func (s *Store) Domains(ctx context.Context, day dmarcreport.Day) (list []dmarcreport.Domain, err error) {
	var policies, sums map[string]string
	err = s.do(ctx, func(ctx context.Context, node redis.Cmdable) (err error) {
		if policies, err = node.HGetAll(ctx, s.client.Tag+"rd:"+dayText(day)).Result(); err != nil {
			return err
		}
		sums, err = node.HGetAll(ctx, s.client.Tag+"rs:"+dayText(day)).Result()
		return err
	})
	if err != nil {
		return nil, err
	}
	for name, text := range policies {
		d, err := parseDomain(name, text, func(sum string) string { return sums[sum+name] })
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b dmarcreport.Domain) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// The names of the sums of a domain begin with these.
const (
	sumMessages = "m "
	sumPlain    = "p "
	sumRows     = "r "
	sumSince    = "s "
)

// Domain implements dmarcreport.Store.
func (s *Store) Domain(ctx context.Context, day dmarcreport.Day, name string) (d dmarcreport.Domain, err error) {
	names := []string{sumMessages, sumPlain, sumRows, sumSince}
	var policy string
	var sums []any
	err = s.do(ctx, func(ctx context.Context, node redis.Cmdable) (err error) {
		if policy, err = node.HGet(ctx, s.client.Tag+"rd:"+dayText(day), name).Result(); err != nil {
			return err
		}
		fields := make([]string, len(names))
		for i := range names {
			fields[i] = names[i] + name
		}
		sums, err = node.HMGet(ctx, s.client.Tag+"rs:"+dayText(day), fields...).Result()
		return err
	})
	switch {
	case errors.Is(err, redis.Nil):
		return dmarcreport.Domain{Name: name}, nil
	case err != nil:
		return d, err
	}
	return parseDomain(name, policy, func(sum string) string {
		text, _ := sums[slices.Index(names, sum)].(string)
		return text
	})
}

// parseDomain parses a domain. sum returns one of its sums, "" if it is 0.
func parseDomain(name, policy string, sum func(name string) string) (dmarcreport.Domain, error) {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(sum(name), 10, 64)
		return n
	}
	d := dmarcreport.Domain{Name: name, Messages: number(sumMessages), Plain: number(sumPlain), Rows: number(sumRows), Since: dmarcreport.Day(number(sumSince))}
	if json.Unmarshal([]byte(policy), &d.Policy) != nil {
		return d, redisclient.ErrAnswer
	}
	return d, nil
}

// Rows implements dmarcreport.Store.
func (s *Store) Rows(ctx context.Context, day dmarcreport.Day, domain string, yield func(dmarcreport.Counted) error) error {
	of := dayText(day) + ":" + domain
	for from := int64(0); ; from += page {
		var rows []string
		var counts []any
		err := s.do(ctx, func(ctx context.Context, node redis.Cmdable) (err error) {
			rows, err = node.LRange(ctx, s.client.Tag+"rr:"+of, from, from+page-1).Result()
			if err != nil || len(rows) == 0 {
				return err
			}
			hashes := make([]string, len(rows))
			for i, row := range rows {
				hashes[i] = hashOf(row)
			}
			counts, err = node.HMGet(ctx, s.client.Tag+"rc:"+of, hashes...).Result()
			return err
		})
		if err != nil {
			return err
		}
		for i, row := range rows {
			text, _ := counts[i].(string)
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return redisclient.ErrAnswer
			}
			if err := yield(dmarcreport.Counted{Row: row, Count: n}); err != nil {
				return err
			}
		}
		if len(rows) < page {
			return nil
		}
	}
}

// Purge implements dmarcreport.Store. The keys of a day expire without it. If our clock is
// ahead of the server's, the server's counts: one host with a wrong clock must not remove
// what all hosts have counted.
func (s *Store) Purge(ctx context.Context, before dmarcreport.Day, now time.Time) error {
	if err := s.client.ReadClock(ctx); err != nil {
		return err
	}
	if server, ok := s.client.Now(); ok && server.Before(now) {
		before, now = min(before, dmarcreport.DayOf(server.Add(-dmarcreport.Retention))), server
	}
	err := s.do(ctx, func(ctx context.Context, node redis.Cmdable) error {
		return node.ZRemRangeByScore(ctx, s.client.Tag+"ry", "-inf", "("+dayText(before)).Err()
	})
	if err != nil {
		return err
	}
	return s.scan(ctx, "*", func(name, text string) error {
		if until, _, ok := cutNote(text); ok && until >= now.Unix() {
			return nil
		}
		_, err := s.SwapNote(ctx, name, "", "", now, now)
		return err
	})
}

// Note implements dmarcreport.Notes.
func (s *Store) Note(ctx context.Context, name string, now time.Time) (text string, err error) {
	err = s.do(ctx, func(ctx context.Context, node redis.Cmdable) error {
		is, err := node.HGet(ctx, s.client.Tag+"rn", name).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		if until, found, ok := cutNote(is); ok && until >= now.Unix() {
			text = found
		}
		return err
	})
	return text, err
}

func cutNote(is string) (until int64, text string, ok bool) {
	first, text, ok := strings.Cut(is, " ")
	until, err := strconv.ParseInt(first, 10, 64)
	return until, text, ok && err == nil
}

// SwapNote implements dmarcreport.Notes.
func (s *Store) SwapNote(ctx context.Context, name, old, text string, now, until time.Time) (bool, error) {
	call := s.client.NewCall(s.swap)
	call.Key(s.client.Tag + "rn")
	call.Keys()
	for _, arg := range []string{name, old, text, strconv.FormatInt(now.Unix(), 10), strconv.FormatInt(until.Unix(), 10), strconv.Itoa(dmarcreport.MaxNotes)} {
		call.Arg(arg)
	}
	n, err := s.run(ctx, call)
	return n == 1, err
}

// EachNote implements dmarcreport.Notes.
func (s *Store) EachNote(ctx context.Context, prefix string, now time.Time, yield func(name, text string) error) error {
	return s.scan(ctx, prefix+"*", func(name, is string) error {
		until, text, ok := cutNote(is)
		if !ok || until < now.Unix() {
			return nil
		}
		return yield(name, text)
	})
}

// scan calls yield for each note that matches a pattern, once.
func (s *Store) scan(ctx context.Context, pattern string, yield func(name, is string) error) error {
	seen := make(map[string]bool)
	for cursor := uint64(0); ; {
		var found []string
		err := s.do(ctx, func(ctx context.Context, node redis.Cmdable) (err error) {
			found, cursor, err = node.HScan(ctx, s.client.Tag+"rn", cursor, pattern, page).Result()
			return err
		})
		if err != nil {
			return err
		}
		for pair := range slices.Chunk(found, 2) {
			if seen[pair[0]] {
				continue
			}
			seen[pair[0]] = true
			if err := yield(pair[0], pair[1]); err != nil {
				return err
			}
		}
		if cursor == 0 {
			return nil
		}
	}
}
