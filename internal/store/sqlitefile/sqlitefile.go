// Package sqlitefile keeps what a daemon knows in a SQLite file that follows
// memory: the daemon answers from memory, one goroutine writes what has changed.
//
// Invariants:
//
//   - Memory is the authority. What changed is written every 200 ms: a crash
//     loses at most the last second, an orderly Close nothing. Requests that come
//     faster than the file takes them are slowed down (Pace).
//   - One Keeper owns a path, over all processes, by a lock on the file.
//   - A file that was removed, replaced, overwritten or damaged is noticed before
//     the next write. What is found at the path is kept under another name, and
//     never changed; then memory is written into a new file.
//   - A file that cannot be opened or written is tried again for ever. It costs
//     no answer until memory is full of what waits for it.
//   - Each change between these states is reported once, and a Close that loses
//     something returns an error that says how much.
//   - The database of another program is never opened for writing.
package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	flushInterval = 200 * time.Millisecond
	// firstPause is the time from the first failure to the next try. It doubles
	// with each try that fails, up to lastPause.
	firstPause = time.Second
	lastPause  = 8 * time.Second
	// openTimeout bounds the opening of a file, its check and its reading
	// included.
	openTimeout = 5 * time.Minute
)

// EventKind says what an Event is about.
type EventKind uint8

// The events.
const (
	SetAside     EventKind = iota + 1 // what was at the path is no usable file: it was renamed to Aside, a new one is in use
	Gone                              // the file was removed, a new one is in use
	Replaced                          // a sound file of ours is at the path that others have written or put there: what memory knows was added to it
	WriteFailing                      // reported once, until WritingAgain
	WritingAgain
)

// Event is something for the log.
type Event struct {
	Kind  EventKind
	Path  string
	Aside string
	Err   error
}

// Memory is what a file follows. Its methods are called by one goroutine at a
// time.
type Memory interface {
	// Fill reads a file. The first time memory is empty. Later another file has
	// taken the place of the one before: what memory knows counts, and has to be
	// written by the next Turn.
	Fill(ctx context.Context, f *File) error
	// Lost hears that the file is gone with all rows that memory knew of. Fill
	// follows, once there is another.
	Lost()
	// Turn writes what has changed.
	Turn(f *File) error
	// Idle is called between two writes, for small work on the file.
	Idle(f *File)
	// Pending counts what has not been written.
	Pending() int
}

// Options describe a Keeper.
type Options struct {
	Path   string
	Schema Schema
	Report func(Event)      // hears of events, from the Keeper's goroutine and from Open; may be nil
	Now    func() time.Time // clock of pauses and of names; nil: time.Now
}

// Keeper writes what memory has into its file.
type Keeper struct {
	// Pace slows requests down when the file falls behind.
	Pace    *Pace
	memory  Memory
	options Options

	mu   sync.RWMutex // of file: held for reading by those who use it
	file *File        // nil while it cannot be opened

	syncs   chan chan error // asks the writer to write now
	suspect chan struct{}   // a reader found the file corrupt
	stop    chan struct{}
	done    sync.WaitGroup

	// What follows belongs to the writer.
	failing bool
	retryAt time.Time
	pause   time.Duration
}

// Open opens or makes the file and fills memory from it. A corrupt file is set
// aside and reported; the file of another program is an error.
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
		syncs:   make(chan chan error),
		suspect: make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	err := k.open(ctx)
	if isCorrupt(err) {
		err = k.replace(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	k.done.Go(k.write)
	return k, nil
}

// open opens the file and fills memory from it.
func (k *Keeper) open(ctx context.Context) error {
	f, err := openFile(ctx, k.options.Schema, k.options.Path)
	if err != nil {
		return err
	}
	if err := k.memory.Fill(ctx, f); err != nil {
		k.memory.Lost()
		return errors.Join(f.explain(err), f.close())
	}
	f.seen = look(f.path)
	k.file = f
	return nil
}

// replace sets an unusable file aside and makes a new one.
func (k *Keeper) replace(ctx context.Context, cause error) error {
	aside, err := setAside(k.options.Path, k.options.Now(), cause)
	if err != nil {
		return fmt.Errorf("%s store: set an unusable file aside: %w", k.options.Schema.Name, err)
	}
	if err := k.open(ctx); err != nil {
		return err
	}
	k.options.Report(Event{Kind: SetAside, Path: k.options.Path, Aside: aside, Err: cause})
	return nil
}

// Read calls f with the file, which does not change meanwhile.
func (k *Keeper) Read(f func(*File) error) error {
	k.mu.RLock()
	defer k.mu.RUnlock()
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

// Sync writes what has changed.
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

// Close writes what has changed and closes the file. It must be called once,
// after the last use. Its error says how much is lost, if anything is.
func (k *Keeper) Close() error {
	close(k.stop)
	k.done.Wait()
	err := k.flush()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.file != nil {
		err = errors.Join(err, k.file.close())
	}
	if lost := k.memory.Pending(); lost > 0 && err != nil {
		err = fmt.Errorf("%d entries could not be written and are lost: %w", lost, err)
	}
	return err
}
