package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// mailLoad is a mail that milter clients send repeatedly. Each mail passes all filters
// in turn, as from Postfix: the next one gets the fields that the one before has added.
type mailLoad struct {
	sockets []string
	conns   int // 0 for milterConns
	mails   int // of all connections together; a multiple of conns
	sender  string
	login   string // of the client; "" for none
	mail    string
	good    func(added string) bool // whether the added fields are right
}

// deliver is send without the times.
func (l mailLoad) deliver(ctx context.Context) error {
	_, _, err := l.send(ctx)
	return err
}

// turn sends the load in a turn of a server.
func (l mailLoad) turn(ctx context.Context, _ int) error { return l.deliver(ctx) }

// cost returns the microseconds of CPU that each mail cost pid.
func (l mailLoad) cost(ctx context.Context, pid int) (float64, error) {
	spent, err := used(pid, func() error { return l.deliver(ctx) })
	return float64(spent.Microseconds()) / float64(l.mails), err
}

// send returns how long each mail took, and all together.
func (l mailLoad) send(ctx context.Context) (all latencies, wall time.Duration, err error) {
	if l.conns == 0 {
		l.conns = milterConns
	}
	took := make([]latencies, l.conns)
	start := time.Now()
	err = together(l.conns, func(c int) (err error) {
		took[c], err = l.session(ctx)
		return err
	})
	wall = time.Since(start)
	all = slices.Concat(took...)
	slices.Sort(all)
	return all, wall, err
}

// together runs a function for each connection.
func together(conns int, session func(c int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, conns)
	for c := range conns {
		wg.Go(func() { errs[c] = session(c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// session sends the mails of one connection.
func (l mailLoad) session(ctx context.Context) (took latencies, err error) {
	var filters []*postfixtest.MilterClient
	for _, socket := range l.sockets {
		f, err := openVerify(ctx, socket, dmarcClient)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		filters = append(filters, f)
	}
	for range l.mails / l.conns {
		start, mail, all := time.Now(), l.mail, ""
		for _, f := range filters {
			added, err := delivered(f, postfixtest.MilterMail{Sender: l.sender, Login: l.login, Message: mail})
			if err != nil {
				return took, err
			}
			all += added + "\n"
			if added != "" {
				mail = strings.ReplaceAll(added, "\n", "\r\n") + "\r\n" + mail
			}
		}
		took = append(took, time.Since(start))
		if !l.good(all) {
			return took, fmt.Errorf("results %q", all)
		}
	}
	return took, nil
}
