package milterd

import (
	"context"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/service/hosts"
	"github.com/postern-mail/postern/internal/store/redisclient"
)

// Settings returns the settings that the daemon would have with these arguments and
// environment. No daemon has to run.
func Settings(args, environ []string) ([]config.Value, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	return s.set.Values(), nil
}

// RedisState is the state of a Redis that several hosts share.
type RedisState struct {
	Setting string // the name of its flag
	URL     string
	redisclient.ServerState
	Err error
}

// ProbeRedis asks the Redis servers of the daemon with these arguments and environment:
// where the results of DMARC are counted, and where hosts agree on which of them rotates
// keys. It changes nothing in them. An error is about the settings.
func ProbeRedis(ctx context.Context, args, environ []string) ([]RedisState, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	var all []RedisState
	for _, setting := range s.redis() {
		if setting.idle {
			continue
		}
		state := RedisState{Setting: setting.flag, URL: setting.where}
		var password config.Secret
		if password, state.Err = setting.secret(environ); state.Err == nil {
			state.ServerState, state.Err = redisclient.Look(ctx, redisclient.Options{URL: setting.where, Password: password.Reveal()})
		}
		all = append(all, state)
	}
	return all, nil
}

// SharedRedis returns which hosts share the Redis servers that a daemon with these arguments
// and environment has, and what they have written there. It changes nothing. An error is about
// the settings.
func SharedRedis(ctx context.Context, args, environ []string) ([]hosts.Shared, error) {
	s, err := configure(args, environ)
	if err != nil {
		return nil, err
	}
	var all []hosts.Shared
	for _, setting := range s.redis() {
		password, err := setting.secret(environ)
		if err != nil {
			all = append(all, hosts.Shared{Setting: setting.flag, Err: fmt.Errorf("%w: %w", hosts.ErrAway, err)})
			continue
		}
		all = append(all, hosts.Read(ctx, setting.flag, redisclient.Options{URL: setting.where, Password: password.Reveal()}))
	}
	return all, nil
}

// redis returns the settings that name a Redis.
func (o *Options) redis() (all []redisSetting) {
	for _, r := range o.rooms {
		if part, ok := r.part.(redisUser); ok && strings.Contains(part.redis().where, "://") {
			all = append(all, part.redis())
		}
	}
	return all
}

// redisUser is a part that may use a Redis.
type redisUser interface {
	redis() redisSetting
}

// redisSetting is a setting that may name a Redis.
type redisSetting struct {
	flag, where  string
	passwordFile string
	idle         bool // no work needs it, only the settings of hosts are compared there
}

// secret reads the password for someone who only looks.
func (s redisSetting) secret(environ []string) (config.Secret, error) {
	if s.passwordFile == "" {
		return config.Secret{}, nil
	}
	return config.SecretFile(s.passwordFile, config.Credentials(environ))
}
