package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// write is the one goroutine that writes to the file. It ends with Close.
func (k *Keeper) write() {
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case <-k.stop:
			return
		case <-k.suspect:
			_ = k.settle(k.restart(errCorrupt))
		case answer := <-k.syncs:
			answer <- k.flush()
		case <-ticker.C:
			k.tick()
		}
	}
}

func (k *Keeper) tick() {
	if k.failing && k.options.Now().Before(k.retryAt) {
		return
	}
	if k.flush() != nil {
		return
	}
	if err := k.memory.Idle(k.file); isCorrupt(err) {
		_ = k.settle(k.restart(err))
		return
	}
	k.file.seen = look(k.file.path)
}

// flush writes all changes. It uses a new file if something has happened to the one
// before.
func (k *Keeper) flush() error {
	err := k.check()
	if err == nil {
		err = k.turn()
	}
	if isCorrupt(err) {
		if err = k.restart(err); err == nil {
			err = k.turn()
		}
	}
	return k.settle(err)
}

// check returns an error if the file is not the one that was written last.
func (k *Keeper) check() error {
	if k.file == nil {
		return k.restart(nil)
	}
	if err := k.file.untouched(); err != nil {
		return k.restart(err)
	}
	return nil
}

func (k *Keeper) turn() error {
	began := time.Now()
	err := k.memory.Turn(k.file)
	k.file.seen = look(k.file.path) // a turn that failed may have written too
	if err != nil {
		return k.file.explain(err)
	}
	k.Pace.stored(began)
	return nil
}

// settle plans the next try. Then it reports if writing now fails, or works again.
// The plan is made first, so that it exists when the report is seen.
func (k *Keeper) settle(err error) error {
	was := k.failing
	k.plan(err != nil)
	switch {
	case err == nil && was:
		k.options.Report(Event{Kind: WritingAgain, Path: k.options.Path})
	case err != nil && !was:
		k.options.Report(Event{Kind: WriteFailing, Path: k.options.Path, Err: err})
	}
	return err
}

// plan notes whether the file can be written, and when the next try is if not.
func (k *Keeper) plan(failing bool) {
	if k.failing && failing {
		k.pause = min(2*k.pause, lastPause)
	} else {
		k.pause = firstPause
	}
	k.failing = failing
	k.Pace.failing.Store(failing)
	k.retryAt = k.options.Now().Add(k.pause)
}

// restart closes the file and opens what is at its path now, or a new file. cause is
// what was noticed; nil means that the file was not open.
func (k *Keeper) restart(cause error) error {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	if err := k.use.Acquire(ctx, maxReads); err != nil {
		return errors.Join(fmt.Errorf("%s store %s: it is read all the time: %w", k.options.Schema.Name, k.options.Path, err), cause)
	}
	defer k.use.Release(maxReads)
	select {
	case <-k.suspect: // it is about the file that ends now
	default:
	}
	aside, err := k.giveUp(ctx)
	if err != nil {
		return errors.Join(err, cause)
	}
	err = k.open(ctx, nil)
	switch {
	case aside != "" && err == nil:
		k.options.Report(Event{Kind: SetAside, Path: k.options.Path, Aside: aside, Err: cause})
	case isUnusable(err):
		err = k.replace(ctx, err)
	case err == nil && errors.Is(cause, errGone):
		k.options.Report(Event{Kind: Gone, Path: k.options.Path, Err: cause})
	case err == nil && cause != nil:
		k.options.Report(Event{Kind: Replaced, Path: k.options.Path, Err: cause})
	}
	return err
}

// giveUp closes the file. Closing writes to the file that SQLite has open. So if
// another program's database was copied over it, that database is first copied to
// another name.
func (k *Keeper) giveUp(ctx context.Context) (aside string, err error) {
	f := k.file
	if f == nil {
		return "", nil
	}
	if f.isCopiedOver() {
		if aside, err = f.copyAside(k.options.Now()); err != nil {
			return "", err
		}
	}
	k.file = nil
	k.memory.Lost()
	f.forsake(ctx)
	return aside, nil
}
