// Package redisstore keeps counters in Redis or Valkey, where all hosts
// that send mail share one limit.
//
// One step of a mail is one run of a script (take.lua), whatever it touches.
// internal/store/redisclient loads the script into the server.
//
// Keys: {postern}:lc:<counter> a hash with its sum s, oldest and newest part o and w,
// reserved r, peak p, alarms a and b, last use l, a number for each part and a time
// for each member m…; {postern}:lt:<transaction> a hash of what it has counted;
// {postern}:lx the transactions by their end; {postern}:lzg and lzs the counters of
// logins and of strangers by age; {postern}:lb the blocked logins.
//
// Invariants:
//
//   - Times are those of the server's clock, which all hosts share.
//   - Counters of logins and of strangers have separate bounds, as in memory.
//   - When a master fails, counts are lost that it has acknowledged but not yet
//     replicated.
package redisstore

import (
	"cmp"
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

//go:embed take.lua
var takeSource string

//go:embed block.lua
var blockSource string

// Options describe a store.
type Options struct {
	URL      string // see redisclient.CheckURL
	Password string
	Timeout  time.Duration // of an operation, see redisclient.Options
	// CallerClock makes the store use the times of ops, not the server's clock.
	CallerClock       bool
	Logins, Strangers int // counters of each budget; 0 means the default
	// ClockStep is called when the server's clock was set, see redisclient.Options.
	ClockStep func(by time.Duration)
	// Lost is called when the server has lost what it kept, see redisclient.Options.
	Lost func(span time.Duration)
}

// Store implements limit.Store.
type Store struct {
	client *redisclient.Client
	script *redisclient.Script // take.lua
	block  *redisclient.Script // block.lua
	o      Options
	fixed  [2]string // the budgets as arguments
}

// Open makes a client. It sends nothing, because a server that is down now may be up
// when it is needed.
func Open(o Options) (*Store, error) {
	client, err := redisclient.Open(redisclient.Options{URL: o.URL, Password: o.Password, Timeout: o.Timeout, ClockStep: o.ClockStep, Lost: o.Lost})
	if err != nil {
		return nil, fmt.Errorf("limit store: %w", err)
	}
	return &Store{client: client, script: redisclient.NewScript(takeSource), block: redisclient.NewScript(blockSource), o: o, fixed: [2]string{
		strconv.Itoa(cmp.Or(o.Logins, limit.DefaultLogins)), strconv.Itoa(cmp.Or(o.Strangers, limit.DefaultStrangers)),
	}}, nil
}

// Client returns the connection to the servers.
func (s *Store) Client() *redisclient.Client { return s.client }

// Close ends all connections after running requests are done.
func (s *Store) Close() error { return s.client.Close() }

// Probe returns an error if the server cannot be used, or counts nothing.
func (s *Store) Probe(ctx context.Context) error { return failed(s.client.ProbeWrites(ctx)) }

// The steps as the script knows them.
const (
	stepName     = "n"
	stepEnd      = "e"
	stepUndoName = "u"
	stepUndoEnd  = "v"
	stepAdd      = "a"
)

var holdMillis = strconv.FormatInt(limit.HoldFor.Milliseconds(), 10)

// runScript runs the script.
func (s *Store) runScript(ctx context.Context, op *limit.Op, step string) (any, error) {
	call := s.client.NewCall(s.script)
	call.Key(s.client.Tag + "lx")
	call.Key(s.client.Tag + "never")
	call.Keys()
	now := "0"
	if s.o.CallerClock {
		now = strconv.FormatInt(op.Now.UnixMilli(), 10)
	}
	for _, arg := range []string{s.client.Tag, step, now, holdMillis, op.Txn.String(), op.Part.String(), reserveFlag(op), op.Block, s.fixed[0], s.fixed[1]} {
		call.Arg(arg)
	}
	for i := range op.Items {
		addItem(call, &op.Items[i])
	}
	value, err := s.client.Ask(ctx, call)
	return value, failed(err)
}

// reserveFlag returns the argument that makes the script reserve, count or only look.
func reserveFlag(op *limit.Op) string {
	if op.Look {
		return "l"
	}
	return flag(op.Reserve, "1")
}

func addItem(call *redisclient.Call, it *limit.Item) {
	window := it.Rule.Window.Milliseconds()
	call.Arg(it.ID.String())
	for _, n := range []int64{window, it.Rule.Count, it.Amount, it.Need} {
		call.Arg(strconv.FormatInt(n, 10))
	}
	call.Arg(flag(it.Once, "o") + flag(it.Direct, "d") + flag(it.Missing, "m") + flag(it.Lenient, "l") +
		flag(it.Rule.Unit == limit.Networks, "s") + flag(it.Rule.OfLogins(), "g"))
	call.Arg(it.Member)
	call.Arg(strconv.FormatInt(limit.KeepFor(it.Rule.OfLogins(), window)+2*limit.HoldFor.Milliseconds(), 10))
}

func flag(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

// Take implements limit.Store.
func (s *Store) Take(ctx context.Context, op *limit.Op) (limit.Answer, error) {
	step := stepName
	if op.Step == limit.End {
		step = stepEnd
	}
	value, err := s.runScript(ctx, op, step)
	if err != nil {
		return limit.Answer{}, err
	}
	return s.answer(value, op)
}

const (
	headNumbers = 5
	useNumbers  = 4
)

// answer reads what the script returns.
func (s *Store) answer(value any, op *limit.Op) (a limit.Answer, err error) {
	a = op.Answer()
	numbers, ok := integers(value)
	if !ok || len(numbers) != headNumbers+useNumbers*len(op.Items) {
		return a, redisclient.ErrAnswer
	}
	a.Refused, a.Repeat = numbers[0] == 1, numbers[1] == 1
	if numbers[2] == 1 {
		blocked := s.blockOf(op.Block, numbers[3], numbers[4])
		a.Blocked = &blocked
	}
	for i := range a.Uses {
		n := numbers[headNumbers+useNumbers*i:]
		a.Uses[i] = limit.Use{Used: n[0], Over: n[1] == 1, Wait: time.Duration(n[2]) * time.Millisecond, Alarm: int(n[3])}
	}
	return a, nil
}

func integers(value any) ([]int64, bool) {
	all, ok := value.([]any)
	if !ok {
		return nil, false
	}
	numbers := make([]int64, len(all))
	for i, v := range all {
		if numbers[i], ok = v.(int64); !ok {
			return nil, false
		}
	}
	return numbers, true
}

// Undo implements limit.Store.
func (s *Store) Undo(ctx context.Context, op *limit.Op) error {
	step := stepUndoName
	if op.Step == limit.End {
		step = stepUndoEnd
	}
	quiet := *op
	quiet.Block = "" // undo also if the login was blocked after it was counted
	_, err := s.runScript(ctx, &quiet, step)
	return err
}

// Add implements limit.Store.
func (s *Store) Add(ctx context.Context, op *limit.Op) error {
	quiet := *op
	quiet.Block = ""
	_, err := s.runScript(ctx, &quiet, stepAdd)
	return err
}

// failed marks the errors that open a breaker.
func failed(err error) error {
	switch {
	case errors.Is(err, redisclient.ErrReadOnly):
		return fmt.Errorf("%w: %w", limit.ErrFull, err)
	case redisclient.IsDenied(err):
		return fmt.Errorf("%w: %w", limit.ErrDenied, err)
	}
	return err
}

// page is how many keys are looked at in one round trip.
const page = 500

// Counters implements limit.Store.
func (s *Store) Counters(ctx context.Context, prefix string, now time.Time, yield func(limit.Counter) error) error {
	node, err := s.client.Node(ctx)
	if err != nil {
		return failed(redisclient.Error(err))
	}
	if !s.o.CallerClock {
		if now, err = s.serverTime(ctx, now); err != nil {
			return err
		}
	}
	base := s.client.Tag + "lc:"
	seen := make(map[string]bool)
	for cursor := uint64(0); ; {
		var keys []string
		err := s.client.Do(ctx, func(ctx context.Context) (err error) {
			keys, cursor, err = node.Scan(ctx, cursor, escape(base+prefix)+"*", page).Result()
			return err
		})
		if err != nil {
			return failed(err)
		}
		found, err := s.read(ctx, keys, len(base), now)
		if err != nil {
			return err
		}
		for _, c := range found {
			if seen[c.ID] {
				continue
			}
			seen[c.ID] = true
			if err := yield(c); err != nil {
				return err
			}
		}
		if cursor == 0 {
			return nil
		}
	}
}

// escape escapes the special characters of a pattern.
func escape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(text)
}

func (s *Store) serverTime(ctx context.Context, otherwise time.Time) (time.Time, error) {
	if err := s.client.ReadClock(ctx); err != nil {
		return otherwise, failed(err)
	}
	at, _ := s.client.Now()
	return at, nil
}

// read fetches counters in one round trip.
func (s *Store) read(ctx context.Context, keys []string, base int, now time.Time) ([]limit.Counter, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	values := make([]*redis.MapStringStringCmd, len(keys))
	err := s.client.Do(ctx, func(ctx context.Context) error {
		_, err := s.client.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				values[i] = p.HGetAll(ctx, key)
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, failed(err)
	}
	var found []limit.Counter
	for i, key := range keys {
		if fields := values[i].Val(); len(fields) > 0 {
			found = append(found, counter(key[base:], fields, now.UnixMilli()))
		}
	}
	return found, nil
}

// counter reads a hash.
func counter(id string, fields map[string]string, now limit.Millis) limit.Counter {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(fields[name], 10, 64)
		return n
	}
	c := limit.Counter{ID: id, Reserved: number("r"), Peak: number("p"), Last: time.UnixMilli(number("l"))}
	window := limit.WindowOf(id).Milliseconds()
	width := max(window/limit.Cells, 1)
	oldest := int64(0)
	for name, value := range fields {
		if member, ok := strings.CutPrefix(name, "m"); ok {
			if now-number(name) < window {
				c.Members = append(c.Members, member)
			}
			continue
		}
		at, err := strconv.ParseInt(name, 10, 64)
		if err != nil || at < now/width-limit.Cells {
			continue
		}
		n, _ := strconv.ParseInt(value, 10, 64)
		c.Used += n
		if oldest == 0 || at < oldest {
			oldest = at
		}
	}
	if oldest != 0 {
		c.Wait = time.Duration((oldest+limit.Cells+1)*width-now) * time.Millisecond
	}
	if c.Used += c.Reserved; len(c.Members) > 0 {
		c.Used = int64(len(c.Members))
	}
	return c
}

// Reset implements limit.Store.
func (s *Store) Reset(ctx context.Context, ids []string) (int, error) {
	if len(ids) == 0 {
		return 0, nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.client.Tag + "lc:" + id
	}
	var n int64
	err := s.client.Do(ctx, func(ctx context.Context) (err error) {
		n, err = s.client.Redis.Del(ctx, keys...).Result()
		return err
	})
	return int(n), failed(err)
}
