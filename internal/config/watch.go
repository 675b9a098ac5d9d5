package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// maxWatched bounds the files and directories of one Watch call.
	maxWatched = 1024
	// maxWatchedEntries bounds how many entries of a watched directory are
	// looked at, sub-directories included.
	maxWatchedEntries = 16384
	// debounce is how long there must be no change before an event is sent,
	// because an editor or a deployment changes several files at once.
	debounce = 200 * time.Millisecond
	// maxDebounce is how long further changes may delay an event.
	maxDebounce = 2 * time.Second
	// clockSlack is how much older than the clock the time stamp of a new change
	// may be.
	clockSlack = 10 * time.Millisecond
)

// Watcher sends an event when one of a set of files has changed.
//
// It watches directories, never files: an editor renames a new file over the old
// one, a Kubernetes volume replaces a symbolic link several levels up, and a file
// may be created later. A change in those directories only makes the Watcher look
// again. It sends an event when a file to which one of the names leads has
// changed since it looked last. A directory in the set means its entries and
// those of its direct sub-directories.
type Watcher struct {
	events   chan struct{}
	requests chan watchRequest
	stop     chan struct{}
	workers  sync.WaitGroup
	failed   func(error)
}

type watchRequest struct {
	since time.Time
	paths []string
	reply chan error
}

// notifier is the part of fsnotify.Watcher that a Watcher uses.
type notifier interface {
	Add(dir string) error
	Remove(dir string) error
	Close() error
}

// NewWatcher starts a watcher that watches nothing yet. failed is called, from
// the watcher's goroutine, when a later change of watches fails; it may be nil. A
// daemon can log the error of NewWatcher (no inotify instance left) and run
// without a watcher.
func NewWatcher(failed func(error)) (*Watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w: raise fs.inotify.max_user_instances", err)
	}
	return startWatcher(n, n.Events, n.Errors, failed), nil
}

func startWatcher(n notifier, events <-chan fsnotify.Event, errs <-chan error, failed func(error)) *Watcher {
	if failed == nil {
		failed = func(error) {}
	}
	w := &Watcher{
		events:   make(chan struct{}, 1),
		requests: make(chan watchRequest),
		stop:     make(chan struct{}),
		failed:   failed,
	}
	dirty := make(chan struct{}, 1)
	w.workers.Go(func() { pump(events, errs, dirty) })
	w.workers.Go(func() { w.run(&watchState{notifier: n, dirs: make(map[string]fileID)}, dirty) })
	return w
}

// pump receives from fsnotify's channels, and ends when the watcher closes them.
// It is a goroutine of its own, because fsnotify sends while it holds the lock
// that Add and Remove need. After an error (lost events, for instance) the
// watcher looks again, as after an event.
func pump(events <-chan fsnotify.Event, errs <-chan error, dirty chan<- struct{}) {
	for events != nil || errs != nil {
		var ok bool
		select {
		case _, ok = <-events:
			if !ok {
				events = nil
			}
		case _, ok = <-errs:
			if !ok {
				errs = nil
			}
		}
		if ok {
			signal(dirty)
		}
	}
}

// signal puts a token into c, unless one is there already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Events returns a channel with a token when watched files have changed. Many
// changes lead to one token. The channel is never closed.
func (w *Watcher) Events() <-chan struct{} { return w.events }

// Watch replaces the watched set. since is when the caller began to read the
// files: a change after that leads to an event, even if it came before this call.
// After an error some changes will not be noticed; the rest is watched.
func (w *Watcher) Watch(since time.Time, paths []string) error {
	r := watchRequest{since, slices.Clone(paths), make(chan error, 1)}
	select {
	case w.requests <- r:
		return <-r.reply
	case <-w.stop:
		return errors.New("watch files: the watcher is closed")
	}
}

// Close ends the watcher and waits for its goroutines. It may be called once.
func (w *Watcher) Close() {
	close(w.stop)
	w.workers.Wait()
}

func (w *Watcher) run(s *watchState, dirty <-chan struct{}) {
	defer s.notifier.Close()
	var t quietTime
	for {
		select {
		case <-w.stop:
			return
		case r := <-w.requests:
			changed, err := s.replace(r)
			if changed {
				s.force = true
				t.change()
			}
			r.reply <- err
		case <-dirty:
			t.change()
		case <-t.timer:
			if !t.over() {
				continue
			}
			changed, err := s.look()
			if changed {
				signal(w.events)
			}
			if err != nil {
				w.failed(err)
			}
		}
	}
}

// quietTime waits until there was no change for debounce, but not longer than
// maxDebounce.
type quietTime struct {
	timer       <-chan time.Time // nil when nothing has changed
	first, last time.Time
}

// change notes a change. It must be cheap, because a busy directory has many
// changes.
func (q *quietTime) change() {
	q.last = time.Now()
	if q.timer == nil {
		q.first = q.last
		q.timer = time.After(debounce)
	}
}

// over is called when the timer has fired. It reports whether the wait is over,
// or else extends it.
func (q *quietTime) over() bool {
	wait := min(debounce-time.Since(q.last), maxDebounce-time.Since(q.first))
	if wait > 0 {
		q.timer = time.After(wait)
		return false
	}
	q.timer = nil
	return true
}

// watchState belongs to the goroutine of run.
type watchState struct {
	notifier notifier
	paths    []string
	seen     map[string]fileID // the last seen state of every file system entry that matters
	dirs     map[string]fileID // watched directories
	force    bool              // the next look sends an event in any case
}

// replace watches another set, and reports whether something in it has changed
// after r.since.
func (s *watchState) replace(r watchRequest) (changed bool, err error) {
	s.paths, s.force = r.paths, false
	if len(s.paths) > maxWatched {
		err = fmt.Errorf("watch files: %d files, only the first %d are watched", len(s.paths), maxWatched)
		s.paths = s.paths[:maxWatched]
	}
	_, lookErr := s.look()
	since, now := r.since.Add(-clockSlack), time.Now()
	for _, id := range s.seen {
		// A time stamp of the future (a file server with another clock) would
		// look like a change after every reload.
		changed = changed || id.changed.After(since) && !id.changed.After(now)
	}
	return changed, errors.Join(err, lookErr)
}

// look surveys the paths, updates the watches, and reports whether anything has
// changed since the last look.
func (s *watchState) look() (changed bool, err error) {
	v := survey(s.paths)
	if err = s.arrange(v.dirs); err != nil {
		err = fmt.Errorf("watch files: %w: SIGHUP still reloads; raise fs.inotify.max_user_watches", err)
	}
	// Survey again: a change between the first survey and the watch has sent no
	// event.
	v = survey(s.paths)
	changed = s.force || !maps.Equal(v.seen, s.seen)
	s.seen, s.force = v.seen, false
	return changed, err
}

// arrange makes the set of watched directories equal to want. The watch of a
// directory that was replaced by another of the same name is renewed.
func (s *watchState) arrange(want map[string]fileID) error {
	for dir, id := range s.dirs {
		if now, ok := want[dir]; !ok || !now.same(id) {
			// This fails when the directory was removed, and the watch with it.
			_ = s.notifier.Remove(dir)
			delete(s.dirs, dir)
		}
	}
	var errs problems
	for _, dir := range slices.Sorted(maps.Keys(want)) {
		// Watched directories are added again, because one that was moved away
		// and back has lost its watch.
		if err := s.notifier.Add(dir); err != nil {
			errs.addError(fmt.Errorf("%s: %w", dir, err))
			continue
		}
		s.dirs[dir] = want[dir]
	}
	return errs.err()
}

// surveyed is the state of the file system now.
type surveyed struct {
	seen    map[string]fileID // by path as written
	dirs    map[string]fileID // by path without symbolic links
	entries int
}

func survey(paths []string) *surveyed {
	v := &surveyed{seen: make(map[string]fileID), dirs: make(map[string]fileID)}
	for _, p := range paths {
		if abs, err := filepath.Abs(p); err == nil {
			v.follow(abs)
		}
	}
	return v
}

// watch adds a directory by its real name: fsnotify confuses two names of one
// directory.
func (v *surveyed) watch(dir string) {
	clean, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return
	}
	if info, err := os.Stat(clean); err == nil && info.IsDir() {
		v.dirs[clean] = identify(info)
	}
}

// maxLinks bounds the symbolic links of one path, as the kernel does.
const maxLinks = 40

// follow notes every symbolic link on the way to path, and the target.
func (v *surveyed) follow(path string) {
	for range maxLinks {
		at, info, err := firstLink(path)
		v.watch(filepath.Dir(at))
		if err != nil {
			v.seen[at] = fileID{}
			return
		}
		v.seen[at] = identify(info)
		if info.Mode()&os.ModeSymlink == 0 {
			if info.IsDir() {
				v.list(at, 2)
			}
			return
		}
		target, err := os.Readlink(at)
		if err != nil {
			return
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(at), target)
		}
		path = filepath.Join(target, path[len(at):])
	}
}

// firstLink returns the first component of an absolute path that is a symbolic
// link or missing, or else the path itself.
func firstLink(path string) (at string, info os.FileInfo, err error) {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator {
			continue
		}
		at = path[:i]
		info, err = os.Lstat(at)
		if err != nil || info.Mode()&os.ModeSymlink != 0 {
			return at, info, err
		}
	}
	return at, info, err
}

// list notes the entries of a directory down to depth levels. Of a link it notes
// the target.
func (v *surveyed) list(dir string, depth int) {
	if depth == 0 {
		return
	}
	v.watch(dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if v.entries++; v.entries > maxWatchedEntries {
			return
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path)
		switch {
		case err != nil:
			v.seen[path] = fileID{}
		case info.IsDir():
			v.seen[path] = fileID{}
			v.list(path, depth-1)
		default:
			v.seen[path] = identify(info)
		}
	}
}
