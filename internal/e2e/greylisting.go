package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/store/redistest/tied"
)

// Greylisting is a second MX service of the site, whose hook asks the greylist check.
const Greylisting = "greylisting"

// WithGreylist adds the service Greylisting to the site. store is the greylist's store.
// The delay is one second.
func WithGreylist(c SiteConfig, store string) SiteConfig {
	c.Policyd = slices.Concat(c.Policyd, []string{"--greylist-delay=1s", "--greylist-store=" + store})
	before := c.Postfix
	c.Postfix = func(p *postfixtest.Config) {
		for _, option := range p.MX {
			p.More = append(p.More, postfixtest.Service{Name: Greylisting, Options: []string{
				contextPattern.ReplaceAllString(option, "{ policy_context = greylist }"),
			}})
		}
		if before != nil {
			before(p)
		}
	}
	return c
}

// RedisEnv is the environment variable that makes "make try" keep the greylist in a
// private Redis.
const RedisEnv = "STORE"

// StartRedis starts a private Redis and returns its URL. stop ends it.
func StartRedis(ctx context.Context, dir string) (url string, stop func(), err error) {
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		return "", nil, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, err
	}
	cmd := exec.Command("redis-server", "--bind", host, "--port", port, "--dir", dir, "--save", "",
		"--daemonize", "no", "--logfile", filepath.Join(dir, "redis.log"))
	if err := tied.Start(cmd); err != nil {
		return "", nil, fmt.Errorf("redis-server: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // it keeps nothing
		_ = cmd.Wait()
	}
	if err := pingRedis(ctx, addr); err != nil {
		stop()
		return "", nil, err
	}
	return "redis://" + addr, stop, nil
}

// pingRedis returns when the server answers.
func pingRedis(ctx context.Context, addr string) error {
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			continue // it has not bound its port yet
		}
		_, err = io.WriteString(conn, "PING\r\n")
		answer := make([]byte, len("+PONG"))
		if err == nil {
			_, err = io.ReadFull(conn, answer)
		}
		_ = conn.Close()
		if err == nil && string(answer) == "+PONG" {
			return nil
		}
	}
	return fmt.Errorf("redis-server on %s does not answer: %w", addr, context.Cause(ctx))
}

// GreylistCases returns the mails to Greylisting, in the order in which they are shown.
func GreylistCases() []Case {
	return []Case{
		{"a server that was never seen before", Greylisting, client("198.51.100.9", "mx.new.example", "first@new.example", Alice), 450, record.GreylistNew},
		{"it comes back, as mail servers do", Greylisting, client("198.51.100.9", "mx.new.example", "first@new.example", Alice), 250, record.GreylistWaited},
		{"it writes again", Greylisting, client("198.51.100.9", "mx.new.example", "first@new.example", Alice), 250, record.GreylistKnown},
	}
}

// greylistHeader is the header field of a mail that had to wait.
const greylistHeader = "X-Greylist"

// comeBackAfter is how long the server in the example waits before it tries again.
const comeBackAfter = 300 * time.Millisecond

// RunGreylist sends the mail as Run does. A mail that must pass after waiting is sent
// again until it passes. It must then have the header field once.
func (c Case) RunGreylist(ctx context.Context, s *Site) (o Outcome, header string, err error) {
	for {
		o, header, err = c.runOnce(ctx, s)
		reason, _ := o.Record.Why()
		if err != nil || c.Reason != record.GreylistWaited || reason != string(record.GreylistEarly) {
			return o, header, err
		}
		select {
		case <-time.After(comeBackAfter):
		case <-ctx.Done():
			return o, header, context.Cause(ctx)
		}
	}
}

func (c Case) runOnce(ctx context.Context, s *Site) (o Outcome, header string, err error) {
	o, d, err := c.run(ctx, s)
	if err != nil || o.Wrong != nil {
		return o, "", err
	}
	fields := d.Headers(greylistHeader)
	want := 0
	if c.Reason == record.GreylistWaited {
		want = 1
	}
	if len(fields) != want {
		o.Wrong = fmt.Errorf("%s: delivered with %d fields %s, expected %d", c.Name, len(fields), greylistHeader, want)
	}
	return o, strings.Join(fields, " "), nil
}
