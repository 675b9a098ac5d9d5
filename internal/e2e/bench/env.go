package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// env is the environment that benchmarks share.
type env struct {
	binaries *postfixtest.Binaries
	signers  int    // number of daemons that were started to sign
	dir      string // for sockets, databases and logs; removed at the end
}

// newDiskEnv returns an environment with a directory that is not in memory and that the
// users of other programs can enter.
func newDiskEnv() (e *env, stop func(), err error) {
	e = &env{}
	if e.binaries, err = postfixtest.NewBinaries(); err != nil {
		return nil, nil, err
	}
	if e.dir, err = os.MkdirTemp("/var/tmp", "postern-bench-"); err == nil {
		err = e.prepare()
	}
	if err != nil {
		e.binaries.Close()
		return nil, nil, err
	}
	return e, func() {
		_ = os.RemoveAll(e.dir) // a temporary directory
		e.binaries.Close()
	}, nil
}

// below returns an environment with a directory of its own in that of e.
func (e *env) below(name string) (*env, error) {
	dir, err := os.MkdirTemp(e.dir, name)
	if err != nil {
		return nil, err
	}
	sub := &env{binaries: e.binaries, dir: dir}
	return sub, sub.prepare()
}

func (e *env) prepare() error {
	return errors.Join(os.Chmod(e.dir, 0o755), os.Mkdir(e.table(""), 0o755))
}

// table returns the path of a table. As in an installation, no database and no log is in
// the same directory, because the daemons watch it.
func (e *env) table(name string) string { return filepath.Join(e.dir, "tables", name) }

// daemonArgs returns what every daemon is started with. It writes its records to a file.
// Its metrics and its admin socket are on, as they are by default.
func (e *env) daemonArgs(name string) []string {
	at := filepath.Join(e.dir, name)
	return []string{"--config=", "--admin=unix:" + at + ".admin", "--metrics-listen=unix:" + e.metrics(name), "--log-file=" + at + ".log"}
}

// metrics returns the socket of a daemon's metrics.
func (e *env) metrics(name string) string { return filepath.Join(e.dir, name+".metrics") }
