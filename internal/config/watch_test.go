package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// patience is how long a test waits for an event that must come. It is only
// ever used up by a failure.
const patience = 20 * time.Second

func wait(t *testing.T, w *Watcher) {
	t.Helper()
	select {
	case <-w.Events():
	case <-time.After(patience):
		t.Fatal("no event")
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := NewWatcher(func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// Each change by an administrator or an orchestrator leads to an event. The
// changes of one row are made one after the other, each with its event.
func TestWatcherSees(t *testing.T) {
	tests := []struct {
		name  string
		setUp func(t *testing.T, dir string)
		watch string
		steps []func(t *testing.T, dir string)
	}{
		{
			name:  "written in place",
			setUp: func(t *testing.T, dir string) { put(t, dir+"/owners", "a b\n") },
			watch: "owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) { put(t, dir+"/owners", "a c\n") },
				func(t *testing.T, dir string) { put(t, dir+"/owners", "a d\n") },
			},
		},
		{
			name:  "renamed over",
			setUp: func(t *testing.T, dir string) { put(t, dir+"/owners", "a b\n") },
			watch: "owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) {
					put(t, dir+"/owners.new", "a c\n")
					do(t, os.Rename(dir+"/owners.new", dir+"/owners"))
				},
				func(t *testing.T, dir string) {
					put(t, dir+"/owners.new", "a d\n")
					do(t, os.Rename(dir+"/owners.new", dir+"/owners"))
				},
			},
		},
		{
			name:  "created, removed, created",
			setUp: func(*testing.T, string) {},
			watch: "owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) { put(t, dir+"/owners", "a b\n") },
				func(t *testing.T, dir string) { do(t, os.Remove(dir+"/owners")) },
				func(t *testing.T, dir string) { put(t, dir+"/owners", "a b\n") },
			},
		},
		{
			name:  "directories created later",
			setUp: func(*testing.T, string) {},
			watch: "etc/postern/owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) {
					do(t, os.MkdirAll(dir+"/etc/postern", 0o700))
					put(t, dir+"/etc/postern/owners", "a b\n")
				},
				func(t *testing.T, dir string) { put(t, dir+"/etc/postern/owners", "a c\n") },
			},
		},
		{
			name: "link swapped",
			setUp: func(t *testing.T, dir string) {
				put(t, dir+"/one", "1")
				put(t, dir+"/two", "2")
				do(t, os.Symlink("one", dir+"/owners"))
			},
			watch: "owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) {
					do(t, os.Symlink("two", dir+"/tmp"), os.Rename(dir+"/tmp", dir+"/owners"))
				},
				func(t *testing.T, dir string) { put(t, dir+"/two", "22") },
			},
		},
		{
			name: "kubernetes volume swapped twice",
			setUp: func(t *testing.T, dir string) {
				do(t, os.Mkdir(dir+"/..1", 0o700))
				put(t, dir+"/..1/owners", "1")
				do(t, os.Symlink("..1", dir+"/..data"), os.Symlink("..data/owners", dir+"/owners"))
			},
			watch: "owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) { swapVolume(t, dir, "..1", "..2") },
				func(t *testing.T, dir string) { swapVolume(t, dir, "..2", "..3") },
			},
		},
		{
			name: "directory replaced, then moved away and back",
			setUp: func(t *testing.T, dir string) {
				do(t, os.Mkdir(dir+"/etc", 0o700))
				put(t, dir+"/etc/owners", "1")
			},
			watch: "etc/owners",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) {
					do(t, os.Mkdir(dir+"/new", 0o700))
					put(t, dir+"/new/owners", "22")
					do(t, os.Rename(dir+"/etc", dir+"/old"), os.Rename(dir+"/new", dir+"/etc"))
				},
				func(t *testing.T, dir string) { put(t, dir+"/etc/owners", "333") },
				func(t *testing.T, dir string) { do(t, os.Rename(dir+"/etc", dir+"/away")) },
				func(t *testing.T, dir string) { do(t, os.Rename(dir+"/away", dir+"/etc")) },
				func(t *testing.T, dir string) { put(t, dir+"/etc/owners", "4444") },
			},
		},
		{
			name:  "key added to a directory of keys",
			setUp: func(t *testing.T, dir string) { do(t, os.MkdirAll(dir+"/keys/example.com", 0o700)) },
			watch: "keys",
			steps: []func(t *testing.T, dir string){
				func(t *testing.T, dir string) { put(t, dir+"/keys/example.com/s1.private", "k") },
				func(t *testing.T, dir string) { do(t, os.Mkdir(dir+"/keys/example.org", 0o700)) },
				func(t *testing.T, dir string) { put(t, dir+"/keys/example.org/s1.private", "k") },
				func(t *testing.T, dir string) { do(t, os.Chmod(dir+"/keys/example.com/s1.private", 0o640)) },
				func(t *testing.T, dir string) { do(t, os.RemoveAll(dir+"/keys/example.com")) },
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			tt.setUp(t, dir)
			w := newWatcher(t)
			// With a time in the future, so that the existing files do not count
			// as changed.
			do(t, w.Watch(time.Now().Add(time.Hour), []string{filepath.Join(dir, tt.watch)}))
			for _, step := range tt.steps {
				step(t, dir)
				wait(t, w)
			}
		})
	}
}

func swapVolume(t *testing.T, dir, before, after string) {
	t.Helper()
	do(t, os.Mkdir(filepath.Join(dir, after), 0o700))
	put(t, filepath.Join(dir, after, "owners"), after)
	do(t, os.Symlink(after, dir+"/..data_tmp"), os.Rename(dir+"/..data_tmp", dir+"/..data"), os.RemoveAll(filepath.Join(dir, before)))
}

// What changes while the daemon still reads must not be lost.
func TestWatchReportsWhatChangedBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners")
	start := time.Now()
	put(t, path, "x")
	w := newWatcher(t)
	do(t, w.Watch(start, []string{path}))
	wait(t, w)
}

func TestWatchReplacesTheSet(t *testing.T) {
	dir := t.TempDir()
	one, two := dir+"/1/a", dir+"/2/b"
	do(t, os.Mkdir(dir+"/1", 0o700), os.Mkdir(dir+"/2", 0o700))
	w := newWatcher(t)
	later := time.Now().Add(time.Hour)
	do(t, w.Watch(later, []string{one}), w.Watch(later, []string{two}))
	put(t, one, "x")
	put(t, two, "x")
	wait(t, w)
	do(t, w.Watch(later, []string{one}))
	put(t, one, "xx")
	wait(t, w)
}

func TestWatchAfterClose(t *testing.T) {
	w, err := NewWatcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := w.Watch(time.Now(), nil); err == nil {
		t.Error("no error")
	}
}

// fake is a notifier without a kernel, for a clock without real time.
type fake struct {
	events chan fsnotify.Event
	errs   chan error
	mu     sync.Mutex
	dirs   []string
	refuse string
}

func newFake() *fake {
	return &fake{events: make(chan fsnotify.Event), errs: make(chan error)}
}

func (f *fake) Add(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if dir == f.refuse {
		return errors.New("no space left on device")
	}
	if !slices.Contains(f.dirs, dir) {
		f.dirs = append(f.dirs, dir)
	}
	return nil
}

func (f *fake) Remove(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirs = slices.DeleteFunc(f.dirs, func(d string) bool { return d == dir })
	return nil
}

func (f *fake) Close() error {
	close(f.events)
	close(f.errs)
	return nil
}

func (f *fake) watched() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.dirs))
}

func count(w *Watcher) (n int) {
	for {
		select {
		case <-w.Events():
			n++
		default:
			return n
		}
	}
}

func TestChangesAreCoalesced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners")
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := startWatcher(f, f.events, f.errs, nil)
		defer w.Close()
		do(t, w.Watch(time.Now(), []string{path}))
		for i := range 10 {
			put(t, path, strings.Repeat("x", i+1))
			f.events <- fsnotify.Event{}
			time.Sleep(debounce / 2)
			synctest.Wait()
		}
		if n := count(w); n != 0 {
			t.Errorf("%d events while changes go on", n)
		}
		time.Sleep(debounce)
		synctest.Wait()
		if n := count(w); n != 1 {
			t.Errorf("%d events after ten changes", n)
		}
		// Other files of the directory are no event.
		f.events <- fsnotify.Event{}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := count(w); n != 0 {
			t.Errorf("%d events without a change", n)
		}
		// After lost events the watcher looks again.
		put(t, path, "lost")
		f.errs <- fsnotify.ErrEventOverflow
		time.Sleep(debounce)
		synctest.Wait()
		if n := count(w); n != 1 {
			t.Errorf("%d events after an overflow", n)
		}
		// Nothing receives the events: they do not accumulate.
		for i := range 5 {
			put(t, path, strings.Repeat("y", i+1))
			f.events <- fsnotify.Event{}
			time.Sleep(time.Minute)
		}
		if n := count(w); n != 1 {
			t.Errorf("%d events wait", n)
		}
	})
}

func TestChangesWithoutEndArePutOffOnlySoLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "owners")
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := startWatcher(f, f.events, f.errs, nil)
		defer w.Close()
		do(t, w.Watch(time.Now(), []string{path}))
		put(t, path, "x")
		for start := time.Now(); time.Since(start) <= maxDebounce; time.Sleep(debounce / 4) {
			f.events <- fsnotify.Event{}
		}
		synctest.Wait()
		if n := count(w); n != 1 {
			t.Errorf("%d events", n)
		}
	})
}

func TestWatchedDirectories(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	do(t, err, os.MkdirAll(dir+"/a/b", 0o700), os.Mkdir(dir+"/c", 0o700), os.Symlink("../c", dir+"/a/link"), os.Symlink("loop", dir+"/loop"))
	put(t, dir+"/c/file", "x")
	tests := []struct {
		paths []string
		want  string
	}{
		{nil, ""},
		{[]string{"c/file"}, "c"},
		{[]string{"a/link/file"}, "a c"},
		{[]string{"a/link/file", "c/file", "c/other"}, "a c"},
		{[]string{"a/b/none/of/these"}, "a/b"},
		{[]string{"loop/file"}, "."},
		{[]string{"a"}, ". a a/b c"},
	}
	for _, tt := range tests {
		var paths, want []string
		for _, p := range tt.paths {
			paths = append(paths, dir+"/"+p)
		}
		for _, p := range strings.Fields(tt.want) {
			want = append(want, filepath.Join(dir, p))
		}
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			w := startWatcher(f, f.events, f.errs, nil)
			do(t, w.Watch(time.Now(), []string{dir + "/a/b/x"}), w.Watch(time.Now(), paths))
			w.Close()
			if got := f.watched(); !slices.Equal(got, want) {
				t.Errorf("%q: got %q, want %q", tt.paths, got, want)
			}
		})
	}
}

func TestWatchFailure(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	do(t, err, os.Mkdir(dir+"/a", 0o700))
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.refuse = dir + "/a"
		var failed []error
		w := startWatcher(f, f.events, f.errs, func(err error) { failed = append(failed, err) })
		want := "watch files: " + dir + "/a: no space left on device: SIGHUP still reloads; raise fs.inotify.max_user_watches"
		err := w.Watch(time.Now(), []string{dir + "/a/x", dir + "/y"})
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
		if got := f.watched(); !slices.Equal(got, []string{dir}) {
			t.Errorf("watched: %q", got)
		}
		put(t, dir+"/y", "y")
		f.events <- fsnotify.Event{}
		time.Sleep(debounce)
		synctest.Wait()
		if n := count(w); n != 1 {
			t.Errorf("%d events of what is watched", n)
		}
		w.Close()
		if len(failed) != 1 || failed[0].Error() != want {
			t.Errorf("failed: %v", failed)
		}
	})
}

func TestTooManyFilesToWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		w := startWatcher(f, f.events, f.errs, nil)
		defer w.Close()
		err := w.Watch(time.Now(), slices.Repeat([]string{"/x"}, maxWatched+1))
		if err == nil || err.Error() != "watch files: 1025 files, only the first 1024 are watched" {
			t.Error(err)
		}
	})
}
