package milterd

import (
	"context"
	"strings"

	"github.com/postern-mail/postern/internal/config"
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
	for _, r := range s.rooms {
		part, ok := r.part.(redisUser)
		if !ok {
			continue
		}
		setting := part.redis()
		if !strings.Contains(setting.where, "://") {
			continue
		}
		state := RedisState{Setting: setting.flag, URL: setting.where}
		var password config.Secret
		if setting.passwordFile != "" {
			password, state.Err = config.SecretFile(setting.passwordFile, config.Credentials(environ))
		}
		if state.Err == nil {
			state.ServerState, state.Err = redisclient.Look(ctx, redisclient.Options{URL: setting.where, Password: password.Reveal()})
		}
		all = append(all, state)
	}
	return all, nil
}

// redisUser is a part that may use a Redis.
type redisUser interface {
	redis() redisSetting
}

// redisSetting is a setting that may name a Redis.
type redisSetting struct {
	flag, where  string
	passwordFile string
}
