package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/maillog"
)

const (
	// followDelay is how long a record may wait for an older one of another
	// source.
	followDelay = 200 * time.Millisecond
	// followRetry is the time between two attempts to reach a daemon.
	followRetry = time.Second
)

// feed collects records from the goroutines that follow the sources.
type feed struct {
	records chan *maillog.Entry
	notes   chan string // for the person who reads
}

func (f *feed) record(ctx context.Context, e *maillog.Entry) {
	select {
	case f.records <- e:
	case <-ctx.Done():
	}
}

func (f *feed) note(ctx context.Context, format string, args ...any) {
	select {
	case f.notes <- fmt.Sprintf(format, args...):
	case <-ctx.Done():
	}
}

// followAll prints records as they arrive, until ctx or all sources have ended.
func (o *logOptions) followAll(ctx context.Context, io streams, files []string, p *logPrinter) error {
	ctx, cancel := context.WithCancel(ctx)
	f := &feed{make(chan *maillog.Entry, 1000), make(chan string, 10)}
	var followers sync.WaitGroup
	defer func() {
		cancel()
		followers.Wait()
	}()
	sources, err := o.openFollowed(ctx, io, files)
	if err != nil {
		return err
	}
	for _, s := range sources {
		followers.Go(func() { f.readSource(ctx, s) })
	}
	if !o.journal && len(files) == 0 {
		for _, c := range o.asked {
			followers.Go(func() { f.readMemory(ctx, c) })
		}
	}
	ended := make(chan struct{})
	go func() { // ends with the followers, which end with ctx
		followers.Wait()
		close(ended)
	}()
	return f.print(ctx, io, p, ended)
}

// openFollowed opens the journal or the files. A daemon needs no source.
func (o *logOptions) openFollowed(ctx context.Context, io streams, files []string) ([]*maillog.Source, error) {
	if o.journal {
		s, err := o.openJournal(ctx, io)
		return []*maillog.Source{s}, err
	}
	return openFiles(files, func(name string) (*maillog.Source, error) { return o.openTail(ctx, name) })
}

func (o *logOptions) openTail(ctx context.Context, name string) (*maillog.Source, error) {
	if name == "-" {
		return openRecords(ctx)(name)
	}
	tail, err := maillog.OpenTail(ctx, name, o.since == "")
	if err != nil {
		return nil, err
	}
	return maillog.NewSource(name, tail, tail.Close), nil
}

// readSource reads a source to its end.
func (f *feed) readSource(ctx context.Context, s *maillog.Source) {
	for {
		e, err := s.Next()
		if err != nil || ctx.Err() != nil {
			if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
				f.note(ctx, "%v", err)
			}
			break
		}
		f.record(ctx, e)
	}
	if err := s.Close(); err != nil && ctx.Err() == nil {
		f.note(ctx, "%v", err)
	}
}

// readMemory asks a daemon until ctx ends, also after the daemon restarts.
func (f *feed) readMemory(ctx context.Context, c *admin.Client) {
	args, answers := api.LogArgs{}, true
	for ctx.Err() == nil {
		result, err := askLog(ctx, c, args, func(line []byte) {
			if e := maillog.Parse(line); e != nil {
				f.record(ctx, e)
			}
		})
		switch {
		case err == nil:
			if result.Lost > 0 {
				f.note(ctx, "%s: %d records came too fast to be read", c.Daemon, result.Lost)
			}
			answers, args = true, api.LogArgs{After: result.Next, Run: result.Run, Wait: true}
			continue
		case answers && ctx.Err() == nil:
			f.note(ctx, "%v; trying again", err)
			answers = false
		}
		select {
		case <-time.After(followRetry):
		case <-ctx.Done():
		}
	}
}

// print prints records as they arrive, ordered by time.
func (f *feed) print(ctx context.Context, io streams, p *logPrinter, ended <-chan struct{}) error {
	var order maillog.Order
	joiner := maillog.NewJoiner()
	pause := time.NewTicker(followDelay)
	defer pause.Stop()
	// The times of the newest record, and of the newest record before the last
	// pause. These are times in the records: clocks of other hosts may differ.
	var newest, due time.Time
	for {
		select {
		case e := <-f.records:
			order.Add(e)
			if e.Time.After(newest) {
				newest = e.Time
			}
		case text := <-f.notes:
			fmt.Fprintf(io.err, "postern log: %s\n", text)
		case <-ctx.Done():
			return nil
		case <-ended:
			f.drain(io, &order)
			return p.follow(order.Rest(), joiner)
		case <-pause.C:
			if err := p.follow(order.Ready(due), joiner); err != nil {
				return err
			}
			for range joiner.Ended(due) { // they get no more records
			}
			due = newest
		}
	}
}

// drain takes the remaining records when all sources have ended.
func (f *feed) drain(io streams, order *maillog.Order) {
	for {
		select {
		case e := <-f.records:
			order.Add(e)
		case text := <-f.notes:
			fmt.Fprintf(io.err, "postern log: %s\n", text)
		default:
			return
		}
	}
}
