package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// postfixes compares what passes a Postfix.
func (f field) postfixes() contest {
	return contest{
		key: "postfix", name: "A Postfix end to end", unit: "mail",
		text: "smtp-source sends mails of 10 KB in 16 sessions; a mail counts when it has left Postfix. The senders have waited in the greylists before. " +
			"Each row has a Postfix of its own, and the CPU and memory are those of the attached servers alone. Postfix works more as soon as anything is attached, " +
			"so Postern's bound of 0.9 is that of servers that do nothing: it is a share, how much of their rate remains.",
		contenders: []contender{
			{server: "nothing attached", start: f.through(func(context.Context, *env, *rateSite) (g guards, err error) { return g, nil })},
			{server: "servers that do nothing", note: "a milter that adds a field, a policy server that answers DUNNO", leastRate: 0.9, start: f.through(func(ctx context.Context, _ *env, s *rateSite) (guards, error) {
				return s.startIdle(ctx, guardedService)
			})},
			{server: "Postern", note: "ownership, DNS lists, greylisting; SPF, DKIM, ARC, DMARC", ours: true, start: f.through(func(ctx context.Context, e *env, s *rateSite) (guards, error) {
				return s.startPostern(ctx, e, f.at.String())
			})},
			{server: "postgrey, policyd-spf, OpenDKIM and OpenDMARC", note: "greylisting; SPF, DKIM, DMARC", start: f.through(f.attachPeers)},
			{server: "rspamd", note: "no greylisting, which needs Redis", start: f.through(func(ctx context.Context, e *env, s *rateSite) (g guards, err error) {
				peer, err := f.startRspamd(ctx, e, "rspamd")
				if err != nil {
					return g, err
				}
				s.quietly(peer.Kill)
				s.guards[guardedService] = []int{peer.PID()}
				return guards{milters: []string{"unix:" + peer.Socket}}, nil
			})},
		},
	}
}

// through returns a start function for a Postfix with what attach starts.
func (f field) through(attach func(context.Context, *env, *rateSite) (guards, error)) func(context.Context, *env) (candidate, error) {
	return func(ctx context.Context, parent *env) (candidate, error) {
		e, err := parent.below("rate")
		if err != nil {
			return candidate{}, err
		}
		s := newRateSite(e)
		g, err := attach(ctx, e, s)
		if err == nil {
			err = errors.Join(s.writeMail(f.key), s.open(ctx, attached{guardedService, g}))
		}
		c := candidate{subject: subject{pids: s.guards[guardedService]}, stop: s.stop}
		c.load = c.mailsThrough(s)
		return c, err
	}
}

// mailsThrough sends mails. Those that Postern has judged must have their records.
func (of subject) mailsThrough(s *rateSite) func(context.Context, turn) ([]loaded, error) {
	sent := 0
	return func(ctx context.Context, t turn) ([]loaded, error) {
		mails := t.sized(rateMails)
		got, err := s.sample(ctx, of, guardedService, mails)
		sent += mails
		if _, missing := os.Stat(s.records); err == nil && missing == nil {
			err = s.judged(sent)
		}
		return []loaded{{sample: got}}, err
	}
}

// attachPeers starts the programs that a Debian administrator would attach.
func (f field) attachPeers(ctx context.Context, e *env, s *rateSite) (g guards, err error) {
	postgrey, stop, err := startPostgrey(ctx, e)
	if err != nil {
		return g, err
	}
	s.quietly(stop)
	spf, socket, stopSPF, err := f.startPolicydSPF(e)
	if err != nil {
		return g, err
	}
	s.quietly(stopSPF)
	peers, err := startDMARCPeers(ctx, f.at, f.record)
	if err != nil {
		return g, err
	}
	s.quietly(peers.stop)
	s.guards[guardedService] = append(postgrey.pids, spf, peers.dkim.PID(), peers.dmarc.PID())
	if err := os.Chmod(filepath.Join(e.dir, "postgrey.sock"), 0o666); err != nil {
		return g, fmt.Errorf("postgrey: %w", err)
	}
	return guards{
		milters:  []string{"unix:" + peers.dkim.Socket, "unix:" + peers.dmarc.Socket},
		policies: []string{"unix:" + postgrey.socket, "unix:" + socket},
	}, passGreylist(ctx, postgrey.socket)
}
