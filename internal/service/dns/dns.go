// Package dns opens the DNS resolver of a daemon, and reports its state.
//
// Each daemon has one resolver, made from --resolver and --dns-timeout. All parts
// of a daemon that ask the DNS share it, and so its cache.
//
// Invariant: a reload that does not change these settings keeps the resolver,
// with its cache and what it knows about the servers.
package dns

import (
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/breaker"
	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/service"
)

// Settings are the settings of the resolver.
type Settings struct {
	Servers []string      // as [resolver.Config] wants them; if empty, those of /etc/resolv.conf
	Timeout time.Duration // for one question to one server
	// Took is called with the outcome and time of each question, see
	// [resolver.Config].
	Took func(outcome string, took time.Duration)
}

// Resolver is a resolver that the states of a daemon share.
type Resolver struct {
	*resolver.Resolver
	Key Key
}

// Key identifies a resolver by its settings. It is part of the key of everything
// that is kept over a reload and asks this resolver.
type Key struct {
	servers string
	timeout time.Duration
}

// Open returns the resolver for a state: the one in force when it asks the same
// servers with the same time-out, else a new one. It logs a warning when a new
// one asks a public resolver. The error is for the operator, about --resolver.
func (s Settings) Open(l *service.Life, log *zap.Logger) (*Resolver, error) {
	if len(s.Servers) == 0 {
		l.Watch(resolver.DefaultResolvConf)
	}
	made, err := resolver.New(resolver.Config{Servers: s.Servers, Timeout: s.Timeout, Took: s.Took, Changed: report(log), TCPChanged: reportTCP(log)})
	if err != nil {
		return nil, err
	}
	key := Key{fmt.Sprint(made.Servers()), s.Timeout}
	kept, err := service.Keep(l, key, func() (service.Opened[*Resolver], error) {
		warnPublic(made, log)
		return service.Opened[*Resolver]{
			Value: &Resolver{made, key},
			Close: func() error { made.Close(); return nil },
		}, nil
	})
	if kept.Resolver != made {
		made.Close() // it has asked nothing
	}
	return kept, err
}

// report returns a function for resolver.Config's Changed, which logs each outage
// and its end.
func report(log *zap.Logger) func(breaker.Change) {
	state := logging.NewStateLog(log, "DNS", stateUp)
	return func(c breaker.Change) {
		if c.Up {
			state.Report(zapcore.InfoLevel, stateUp, zap.Duration("down", c.Down))
			return
		}
		state.Report(zapcore.ErrorLevel, stateDown, zap.Error(c.Err),
			zap.String("fix", "until a DNS server answers, questions fail at once; check the servers of --resolver or /etc/resolv.conf and the way to them"))
	}
}

// reportTCP returns a function for resolver.Config's TCPChanged, which logs each
// change of a server.
func reportTCP(log *zap.Logger) func(resolver.TCPChange) {
	var mu sync.Mutex
	states := map[string]*logging.StateLog{}
	return func(c resolver.TCPChange) {
		mu.Lock()
		defer mu.Unlock()
		state := states[c.Server]
		if state == nil {
			state = logging.NewStateLog(log, "DNS server "+c.Server+" over TCP", stateUp)
			states[c.Server] = state
		}
		if c.Up {
			state.Report(zapcore.InfoLevel, stateUp, zap.Duration("down", c.Down))
			return
		}
		state.Report(zapcore.ErrorLevel, stateSilent, zap.Error(c.Err),
			zap.String("fix", "answers that do not fit into a packet, such as those of large SPF records, fail until it does; let TCP to port 53 of the server through"))
	}
}

// The states of DNS as a whole, and of a server, for the log.
const (
	stateUp   = "answers"
	stateDown = "no server answers"

	stateSilent = "does not answer"
)

// warnPublic warns of public resolvers. Many DNS lists refuse them, and some
// answer that no address is listed.
func warnPublic(r *resolver.Resolver, log *zap.Logger) {
	for _, server := range r.Servers() {
		if operator := resolver.PublicResolver(server.Addr()); operator != "" {
			log.Warn("public DNS resolver: slow, and lists such as Spamhaus refuse it or answer that no address is listed; run a resolver on this machine, such as unbound, and name it with --resolver",
				zap.Stringer("server", server), zap.String("operator", operator))
		}
	}
}
