package redisclient

import (
	"context"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// Script is a script that runs in the server.
type Script struct {
	script *redis.Script
	hash   any // its SHA-1, as an argument
}

// NewScript returns the script with a text.
func NewScript(text string) *Script {
	s := redis.NewScript(text)
	return &Script{s, s.Hash()}
}

// firstKey is the place of the first key in EVALSHA.
const firstKey = 3

// NewCall returns a call of a script, to which keys and arguments are added. It may
// not be used any more after Ask, which keeps it for reuse.
func (c *Client) NewCall(script *Script) *Call {
	call, _ := c.idle.Get().(*Call)
	if call == nil {
		call = newCall()
	}
	call.script = script
	call.args = append(call.args[:0], "evalsha", script.hash, "0")
	return call
}

// Key adds a key. All keys come before the arguments.
func (call *Call) Key(name string) { call.args = append(call.args, name) }

// Keys ends the list of keys. Arguments follow.
func (call *Call) Keys() {
	call.args[firstKey-1] = small(len(call.args) - firstKey)
}

// small returns a number as an argument. The numbers that most scripts use need no
// allocation.
func small(n int) any {
	switch n {
	case 1:
		return "1"
	case 2:
		return "2"
	}
	return strconv.Itoa(n)
}

// Arg adds an argument.
func (call *Call) Arg(text string) { call.args = append(call.args, text) }

// Ask calls the script, in one round trip with other calls of the same moment.
func (c *Client) Ask(ctx context.Context, call *Call) (any, error) {
	value, err := c.calls.do(ctx, call)
	if err != nil {
		return nil, err // it may still be under way
	}
	c.idle.Put(call)
	return value, nil
}

// send calls scripts. It loads those that the server did not know, and calls them a
// second time.
func (c *Client) send(batch []*Call) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	unknown := c.pipeline(ctx, batch)
	if len(unknown) == 0 {
		return
	}
	loaded := map[*Script]error{}
	var again []*Call
	for _, one := range unknown {
		err, done := loaded[one.script]
		if !done {
			err = one.script.script.Load(ctx, c.Redis).Err()
			loaded[one.script] = err
		}
		if err != nil {
			one.err = Error(err)
			continue
		}
		again = append(again, one)
	}
	if len(again) > 0 {
		c.pipeline(ctx, again)
	}
}

// pipeline makes one round trip, and returns the calls whose script is not known.
func (c *Client) pipeline(ctx context.Context, batch []*Call) (unknown []*Call) {
	cmds := make([]*redis.Cmd, len(batch))
	p := c.Redis.Pipeline()
	for i, one := range batch {
		cmds[i] = redis.NewCmd(ctx, one.args...)
		cmds[i].SetFirstKeyPos(firstKey)
		_ = p.Process(ctx, cmds[i]) // it is kept for Exec
	}
	_, failed := p.Exec(ctx)
	for i, one := range batch {
		err := error(nil)
		if one.value, err = cmds[i].Result(); err == nil && one.value == nil {
			// It was not sent. Only Exec returns what is wrong with the connection,
			// such as a wrong password.
			err = failed
		}
		one.err = Error(err)
		if redis.HasErrorPrefix(err, "NOSCRIPT") {
			unknown = append(unknown, one)
		}
	}
	return unknown
}
