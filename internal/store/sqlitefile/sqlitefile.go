// Package sqlitefile keeps a copy of a daemon's memory in a SQLite file. The daemon
// answers from memory, and one goroutine writes what has changed.
//
// Invariants:
//
//   - Memory is the authority. Changes are written every 200 ms: a crash loses at
//     most the last second, and Close loses nothing. Requests that come faster than
//     the file can be written are slowed down (Pace).
//   - One Keeper owns a path, among all processes, by a lock on the file.
//   - A file that was removed, replaced, overwritten or damaged is noticed before
//     the next write. What is found at the path is renamed and not changed. Then
//     memory is written to a new file.
//   - A file that cannot be opened or written is tried again without end. Memory
//     still answers, until it is full of changes that wait to be written.
//   - Each change between these states is reported once. If Close loses something,
//     its error says how much.
//   - The database of another program is never opened for writing.
package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	flushInterval = 200 * time.Millisecond
	// firstPause is the time from the first failure to the next try. It doubles
	// with each try that fails, up to lastPause.
	firstPause = time.Second
	lastPause  = 8 * time.Second
	// openTimeout bounds the opening of a file while requests may have to wait for it,
	// its check and its reading included.
	openTimeout = 5 * time.Minute
)

// EventKind is the kind of an Event.
type EventKind uint8

// The events.
const (
	SetAside     EventKind = iota + 1 // the file at the path is not usable: it was renamed to Aside, and a new one is in use
	Gone                              // the file was removed, and a new one is in use
	Replaced                          // another process wrote or replaced the file, and it is usable: the entries in memory were added to it
	WriteFailing                      // reported once, until WritingAgain
	WritingAgain
	Reading // Rows more rows have been read from the file, or it is being checked
	Waiting // the process that this one replaces still has the file, see Options.Succeeds; until WritingAgain
)

// maxReads is how many calls of Read can be at work at once.
const maxReads = 1 << 30

// readingStep is how many rows an event of reading is about.
const readingStep = 100_000

// Event is something for the log.
type Event struct {
	Kind  EventKind
	Path  string
	Aside string
	Err   error
	Rows  int
}

// Memory is the state of which the file keeps a copy. Its methods are called by one
// goroutine at a time.
type Memory interface {
	// Fill reads a file into memory. The first time memory is empty. Later, another
	// file has replaced the one before: then what memory knows takes precedence, and
	// the next Turn must write it.
	Fill(ctx context.Context, f *File) error
	// Lost is called when the file is gone, with all its rows. Fill is called once
	// there is another file.
	Lost()
	// Turn writes what has changed.
	Turn(f *File) error
	// Idle is called between two writes, for small work on the file. Of its errors only
	// that of a corrupt file counts, because any other fails the next write, too.
	Idle(f *File) error
	// Pending returns how many changes have not been written.
	Pending() int
}

// Forgetter is a Memory that Open fills while the file is checked, which takes less
// time.
type Forgetter interface {
	Memory
	// Forget empties memory: Fill has read a file that cannot be used.
	Forget()
}

// Salvager is a Memory that reads what can be read from a corrupt file, before Open
// renames it.
type Salvager interface {
	Memory
	// Salvage may only use the Reader of the file.
	Salvage(ctx context.Context, f *File)
}

// Options describe a Keeper.
type Options struct {
	Path   string
	Schema Schema
	Report func(Event)      // is called for each event, by the Keeper's goroutine and by Open, for Reading by two at once; may be nil
	Now    func() time.Time // clock for pauses and for file names; nil: time.Now
	// Succeeds is set if this process replaces another one, which may have the file until
	// its sessions end. Then Open does not wait for it: the file is opened, and memory
	// filled, when it is free.
	Succeeds bool
}

// Keeper writes a Memory to its file.
type Keeper struct {
	// Pace slows requests down when the file falls behind.
	Pace    *Pace
	memory  Memory
	options Options

	use  *semaphore.Weighted // guards file: a reader holds one of maxReads, a restart all
	file *File               // nil while it cannot be opened

	syncs   chan chan error // asks the writer to write now
	suspect chan struct{}   // a reader found the file corrupt
	stop    chan struct{}
	done    sync.WaitGroup

	// These fields are used by the writer only.
	failing bool
	retryAt time.Time
	pause   time.Duration
}

// Open opens or creates the file and fills memory from it. A corrupt file is renamed
// and reported. The file of another program is an error. There is no time limit: a
// large file takes long, and Reading events show that the start goes on.
func Open(o Options, memory Memory) (*Keeper, error) {
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{
		Pace:    NewPace(),
		memory:  memory,
		options: o,
		use:     semaphore.NewWeighted(maxReads),
		syncs:   make(chan chan error),
		suspect: make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	ctx := context.Background()
	err := k.firstOpen(ctx)
	if isCorrupt(err) {
		k.salvage(ctx)
		err = k.replace(ctx, err)
	}
	if o.Succeeds && errors.Is(err, errInUse) {
		k.plan(true)
		o.Report(Event{Kind: Waiting, Path: o.Path, Err: err})
		err = nil
	}
	if err != nil {
		return nil, err
	}
	k.done.Go(k.write)
	return k, nil
}

// firstOpen opens the file and fills memory, which is empty, from it.
func (k *Keeper) firstOpen(ctx context.Context) error {
	memory, ok := k.memory.(Forgetter)
	if !ok {
		return k.open(ctx, nil)
	}
	err := k.open(ctx, memory.Fill)
	if err != nil {
		memory.Forget()
	}
	return err
}

// salvage lets memory read a corrupt file.
func (k *Keeper) salvage(ctx context.Context) {
	memory, ok := k.memory.(Salvager)
	if !ok {
		return
	}
	f := &File{path: k.options.Path, schema: k.options.Schema}
	if f.openReader() == nil {
		memory.Salvage(ctx, f)
		_ = f.Reader.Close() // nothing was written
	}
}

// open opens the file and fills memory from it. read is for openFile.
func (k *Keeper) open(ctx context.Context, read func(context.Context, *File) error) error {
	f, err := openFile(ctx, k.options.Schema, k.options.Path, k.note, read)
	if err != nil {
		return err
	}
	if !f.isRead {
		if err := k.memory.Fill(ctx, f); err != nil {
			k.memory.Lost()
			return errors.Join(f.explain(err), f.close())
		}
	}
	f.seen = look(f.path)
	k.file = f
	return nil
}

// note reports rows that have been read.
func (k *Keeper) note(rows int) {
	k.options.Report(Event{Kind: Reading, Path: k.options.Path, Rows: rows})
}

// replace renames an unusable file and creates a new one.
func (k *Keeper) replace(ctx context.Context, cause error) error {
	aside, err := setAside(k.options.Path, k.options.Now(), cause)
	if err != nil {
		return fmt.Errorf("%s store: set an unusable file aside: %w", k.options.Schema.Name, err)
	}
	if err := k.open(ctx, nil); err != nil {
		return err
	}
	k.options.Report(Event{Kind: SetAside, Path: k.options.Path, Aside: aside, Err: cause})
	return nil
}

// Read calls f with the file, which does not change meanwhile. While the file is opened
// again, Read waits until ctx ends.
func (k *Keeper) Read(ctx context.Context, f func(*File) error) error {
	if err := k.use.Acquire(ctx, 1); err != nil {
		return fmt.Errorf("%s store %s: the file is being opened again: %w", k.options.Schema.Name, k.options.Path, err)
	}
	defer k.use.Release(1)
	if k.file == nil {
		return fmt.Errorf("%s store %s: the file is not open", k.options.Schema.Name, k.options.Path)
	}
	err := f(k.file)
	if isCorrupt(err) {
		select {
		case k.suspect <- struct{}{}:
		default:
		}
	}
	return err
}

// Sync writes all changes now.
func (k *Keeper) Sync(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case k.syncs <- answer:
	case <-k.stop:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errors.New("the store is closed")

// Close writes all changes and closes the file. It must be called once, after the
// last use. If something is lost, its error says how much.
func (k *Keeper) Close() error {
	close(k.stop)
	k.done.Wait()
	err := k.flush()
	_ = k.use.Acquire(context.Background(), maxReads) // cannot fail
	defer k.use.Release(maxReads)
	switch {
	case k.file == nil:
	case err == nil:
		err = k.file.end()
	default:
		err = errors.Join(err, k.file.close())
	}
	if lost := k.memory.Pending(); lost > 0 && err != nil {
		err = fmt.Errorf("%d entries could not be written and are lost: %w", lost, err)
	}
	return err
}
