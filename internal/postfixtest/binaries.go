package postfixtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Binaries builds commands of this module, each one once. If the caller has the race
// detector, the commands have it too, so that a race in a daemon makes its Stop fail.
type Binaries struct {
	dir string
	how []string // flags of go build
	env []string

	mu    sync.Mutex
	built map[string]*build
}

type build struct {
	once sync.Once
	path string
	err  error
}

// NewBinaries makes a directory for the binaries; Close removes it.
func NewBinaries() (*Binaries, error) {
	dir, err := MakeDir()
	if err != nil {
		return nil, err
	}
	b := &Binaries{dir: dir, env: os.Environ(), built: map[string]*build{}}
	if RaceEnabled {
		b.how = []string{"-race", "-gcflags=modernc.org/sqlite/lib=-race=false", "-gcflags=modernc.org/libc/...=-race=false"} // as in the Makefile
	}
	return b, nil
}

// NewShipped is NewBinaries of commands as in a release: the race detector needs several
// times their memory.
func NewShipped() (*Binaries, error) {
	b, err := NewBinaries()
	if err == nil {
		b.how, b.env = []string{"-trimpath"}, append(b.env, "CGO_ENABLED=0")
	}
	return b, err
}

// Close removes what was built.
func (b *Binaries) Close() error { return os.RemoveAll(b.dir) }

// Path returns the path of cmd/name. The first call builds it. The working directory
// must be in the module.
func (b *Binaries) Path(ctx context.Context, name string) (string, error) {
	b.mu.Lock()
	one := b.built[name]
	if one == nil {
		one = new(build)
		b.built[name] = one
	}
	b.mu.Unlock()
	one.once.Do(func() { one.path, one.err = b.build(ctx, name) })
	return one.path, one.err
}

func (b *Binaries) build(ctx context.Context, name string) (string, error) {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	path := filepath.Join(b.dir, name)
	args := slices.Concat([]string{"build", "-o", path}, b.how, []string{"./cmd/" + name})
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = root, b.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// ModuleRoot returns the directory of go.mod.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
