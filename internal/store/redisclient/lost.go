package redisclient

import (
	"context"
	"crypto/rand"
	_ "embed" // probe.lua
	"strconv"
	"time"
)

//go:embed probe.lua
var probeSource string

var probeScript = NewScript(probeSource)

const (
	// probeKeep is how long the server keeps what a probe has written to see whether it can.
	probeKeep = time.Minute
	// stampKeep is how long it keeps the stamp of a client: longer than it is down.
	stampKeep = 30 * 24 * time.Hour
	// staleMost is how much of the latest writes a server may lose when it fails, as far as
	// Redis promises: what it has not sent to a replica, or written to its disk. If it has
	// lost more, its data are from a snapshot or a backup.
	staleMost = 30 * time.Second
)

// ProbeWrites asks whether the server can be used, and runs a script that writes: a user may
// have the right to read and not to do this, and a server that is full, has too few replicas
// or is moving the keys to another one answers reads. It also finds out what the server has
// lost since the latest probe, see [Options].
//
// A probe leaves the generation of the data, a random text that the first probe of all
// clients has written, and a stamp of its client, the time of the server's clock in seconds.
// With another generation the server has lost everything: it was restarted without its data,
// emptied, replaced by one that knows nothing, or it evicts keys. With an older stamp it has
// lost what is newer: a snapshot was restored, or a replica has taken over that was far
// behind. The stamp is that of one client, so that each of them notices it.
func (c *Client) ProbeWrites(ctx context.Context) error {
	if err := c.Probe(ctx); err != nil {
		return err
	}
	call := c.NewCall(probeScript)
	for _, name := range []string{"probe", "generation", "stamp:" + c.id, "never"} {
		call.Key(c.Tag + name)
	}
	call.Keys()
	call.Arg(strconv.FormatInt(probeKeep.Milliseconds(), 10))
	call.Arg(strconv.FormatInt(stampKeep.Milliseconds(), 10))
	call.Arg(rand.Text())
	answer, err := c.Ask(ctx, call)
	if err != nil {
		return err
	}
	return c.sawProbe(answer)
}

// probed is what a probe has left.
type probed struct {
	generation   string
	first, stamp int64 // the stamps of the first probe that found this generation, and of the latest one
}

// sawProbe compares the answer of the script with that of the probe before.
func (c *Client) sawProbe(answer any) error {
	parts, ok := answer.([]any)
	if !ok || len(parts) != 3 {
		return ErrAnswer
	}
	generation, isText := parts[0].(string)
	found, isNumber := parts[1].(int64)
	written, isNumberToo := parts[2].(int64)
	if !isText || !isNumber || !isNumberToo {
		return ErrAnswer
	}
	now := &probed{generation, written, written}
	before := c.probed.Load()
	if before != nil && before.generation == generation {
		now.first = before.first
	}
	c.probed.Store(now)
	if before == nil || c.lost == nil {
		return nil
	}
	if found == 0 {
		found = before.first // it is not known how much older the data are
	}
	if before.generation != generation {
		c.lost(0)
	} else if older := time.Duration(before.stamp-found) * time.Second; older > staleMost {
		c.lost(older)
	}
	return nil
}
