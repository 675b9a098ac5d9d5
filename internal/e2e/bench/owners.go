package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	_ "modernc.org/sqlite"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// benchOwners measures the cost of tables in a database server. It compares a cached
// answer with a hash: table, and questions that are always sent to a MariaDB with the
// bare driver.
func benchOwners(ctx context.Context, e *env) ([]result, error) {
	cached, err := benchCachedOwners(ctx, e)
	if err != nil {
		return nil, err
	}
	asked, err := benchAskedOwners(ctx)
	return append(cached, asked), err
}

// benchCachedOwners uses an SQLite table. For a cached answer the kind of server does
// not matter. The cache has its defaults: it holds all senders of this load, and asks again
// about each of them once a minute.
func benchCachedOwners(ctx context.Context, e *env) ([]result, error) {
	text, err := writeOwners(e, "owners-hash")
	if err != nil {
		return nil, err
	}
	conf, err := writeOwnersSQLite(ctx, text)
	if err != nil {
		return nil, err
	}
	hash, hashSocket, err := startPolicyd(ctx, e, "owners-hash", "--checks=ownership", "--owners=hash:"+text)
	if err != nil {
		return nil, err
	}
	defer hash.Kill()
	server, serverSocket, err := startPolicyd(ctx, e, "owners-server", "--checks=ownership", "--owners=sqlite:"+conf)
	if err != nil {
		return nil, err
	}
	defer server.Kill()
	want := map[string]int{"DUNNO": ownershipLoad * 9 / 10, "553": ownershipLoad / 10}
	// The first round fills the cache and is not counted.
	if _, err := loadOwnership(ctx, server.PID(), serverSocket, want); err != nil {
		return nil, err
	}
	var ratios, ours, theirs []float64
	for range rounds {
		reference, err := loadOwnership(ctx, hash.PID(), hashSocket, want)
		if err != nil {
			return nil, err
		}
		measured, err := loadOwnership(ctx, server.PID(), serverSocket, want)
		if err != nil {
			return nil, err
		}
		ratios, ours, theirs = append(ratios, measured/reference), append(ours, measured), append(theirs, reference)
	}
	return []result{{
		what: "CPU of a decision by a remembered answer, against a hash: table", value: median(ratios), unit: "times", most: 1.3,
		detail: fmt.Sprintf("%.1f against %.1f µs, %s", median(ours), median(theirs), spread(ratios)),
	}}, errors.Join(hash.Stop(), server.Stop())
}

// writeOwnersSQLite writes the entries of a hash: table into a database and returns its
// table file.
func writeOwnersSQLite(ctx context.Context, text string) (conf string, err error) {
	dir := filepath.Dir(text)
	path := filepath.Join(dir, "owners.sqlite")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, "CREATE TABLE owners (sender TEXT PRIMARY KEY, login TEXT)"); err != nil {
		return "", err
	}
	if err := copyOwners(ctx, db, text); err != nil {
		return "", err
	}
	conf = filepath.Join(dir, "owners-sqlite.cf")
	return conf, os.WriteFile(conf, []byte("dbpath = "+path+"\nquery = SELECT login FROM owners WHERE sender = '%s'\n"), 0o644)
}

func copyOwners(ctx context.Context, db *sql.DB, text string) error {
	file, err := os.Open(text)
	if err != nil {
		return err
	}
	defer file.Close()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		sender, login, ok := strings.Cut(lines.Text(), "\t")
		if !ok {
			continue
		}
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO owners VALUES (?, ?)", sender, strings.TrimSpace(login)); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

// benchAskedOwners runs the Go benchmark that starts a MariaDB, and reads its metric.
func benchAskedOwners(ctx context.Context) (result, error) {
	r := result{what: "decisions by uncached MySQL on 16 connections, against the bare driver's prepared query", unit: "of its rate", least: 0.6}
	root, err := postfixtest.ModuleRoot(ctx)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^BenchmarkUncachedMySQL$", "-benchtime=20x", "./internal/ownership")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CI=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return r, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	fields := strings.Fields(string(out))
	for i, field := range fields {
		if field == "of-driver" {
			r.value, err = strconv.ParseFloat(fields[i-1], 64)
			return r, err
		}
	}
	return r, fmt.Errorf("no metric in %s", out)
}
