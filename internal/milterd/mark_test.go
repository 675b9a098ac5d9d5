package milterd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

func TestMarkKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark.key")
	for range 2 {
		s, err := load(zap.NewNop(), "--dkim-keys=", "--mark-key-file="+path)
		if err != nil {
			t.Fatal(err)
		}
		if len(s.life.Files()) == 0 || s.life.Files()[0] != path {
			t.Errorf("watches %q", s.life.Files())
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatal(info, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load(zap.NewNop(), "--dkim-keys=", "--mark-key-file="+path); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("the file was made anew")
	}
}

// Where the file has no place, whatever the reason, there are marks all the same.
func TestMarkKeyWithoutAPlace(t *testing.T) {
	for err, want := range map[error]bool{
		&noPlace{syscall.EROFS}:                                   true,
		&noPlace{syscall.ENOSPC}:                                  true,
		&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}: true,
		errors.New("x:1: not a key"):                              false,
	} {
		if unavailable(err) != want {
			t.Errorf("%v: %t", err, !want)
		}
	}
	if !errors.Is(&noPlace{syscall.ENOSPC}, syscall.ENOSPC) {
		t.Error("the cause is lost")
	}
}

// --check-config makes no file; a file that was named and cannot be had is an error.
func TestMarkKeyProblems(t *testing.T) {
	dir := t.TempDir()
	build := func(args ...string) error {
		s, err := configure(append([]string{"--config=", "--dkim-keys="}, args...), nil)
		if err != nil {
			return err
		}
		life := service.NewLife()
		defer life.Discard()
		_, err = s.Build(life, service.Runtime{Log: zap.NewNop(), Metrics: metrics.New(metrics.Options{})})
		return err
	}
	path := filepath.Join(dir, "mark.key")
	if err := build("--mark-key-file="+path, "--check-config"); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("--check-config made %v", entries)
	}
	open := filepath.Join(dir, "open.key")
	if err := os.WriteFile(open, []byte("MDEyMzQ1Njc4OWFiY2RlZg=="), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"--mark-key-file=mark.key":                                  "write it from the root",
		"--mark-key-file=" + filepath.Join(dir, "away", "mark.key"): "no such file",
		"--mark-key-file=" + open:                                   "chmod 0600",
		"--trusted-relays=127.0.0.0/8":                              "leave it out",
		"--trusted-relays=::1":                                      "leave it out",
		"--trusted-relays=192.0.2.1/24":                             "write 192.0.2.0/24",
	} {
		for _, check := range [][]string{{args}, {args, "--check-config"}} {
			if err := build(check...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v", check, err)
			}
		}
	}
}
