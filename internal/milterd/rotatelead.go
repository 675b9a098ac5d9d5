package milterd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// leaseTime is how long a host leads without renewing its lease. It is longer than the
// steps between two renewals can take.
const leaseTime = 10 * time.Minute

// takeLease gives the lease to the caller unless another host has it, and returns the
// host that has it.
var takeLease = redisclient.NewScript(`
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
	redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
	return ARGV[1]
end
return holder`)

// lease decides which of several hosts rotates keys. Hosts must have different names.
// A nil lease is for a single host.
type lease struct {
	redis  *redisclient.Client
	host   string
	unable error // why Redis cannot be asked, or nil
}

func openLease(url string, password config.Secret) (*lease, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	client, err := redisclient.Open(redisclient.Options{URL: url, Password: password.Reveal()})
	if err != nil {
		return nil, err
	}
	return &lease{redis: client, host: host}, nil
}

// Client returns the connection to the servers.
func (l *lease) Client() *redisclient.Client { return l.redis }

// take takes or renews the lease. If another host has it, holder is that host.
func (l *lease) take(ctx context.Context) (leads bool, holder string, err error) {
	if l == nil {
		return true, "", nil
	}
	if l.unable != nil {
		return false, "", l.unable
	}
	call := l.redis.NewCall(takeLease)
	call.Key(l.redis.Tag + "dkim-rotate")
	call.Keys()
	call.Arg(l.host)
	call.Arg(fmt.Sprint(leaseTime.Milliseconds()))
	value, err := l.redis.Ask(ctx, call)
	if err != nil {
		return false, "", err
	}
	holder, ok := value.(string)
	if !ok {
		return false, "", redisclient.ErrAnswer
	}
	return holder == l.host, holder, nil
}

func (l *lease) close() error {
	if l == nil {
		return nil
	}
	return l.redis.Close()
}
