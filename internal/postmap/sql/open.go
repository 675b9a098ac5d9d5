// Package sql looks up keys in SQLite, MySQL and PostgreSQL databases.
//
// The table files of sqlite_table(5), mysql_table(5) and pgsql_table(5) differ only in
// how the server is reached. The query, the format of its results, the domains and the
// limit are the same. Open reads the common part, and the dialect reads the rest.
//
// Invariants:
//   - the server never sees the address as SQL;
//   - values of one result are bounded, in number and in size.
package sql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	maxInterval = 24 * 60 * 60 // seconds
	// serverLifetime lets connections move back to a server that has returned,
	// and ends before the server's own wait_timeout.
	serverLifetime = 10 * time.Minute
)

// Options of [Open].
type Options struct {
	MaxConns int
	Warn     func(string)
	Table    conf.OpenTable // opens the tables of a domain list
	Now      func() time.Time
}

// session is a connection that answers the one query of a table.
type session interface {
	// ask returns every value of the result that is not NULL. After an error that
	// is no [remote.KeyError] the session is closed.
	lookUp(ctx context.Context, args []string) ([]string, error)
	Close()
}

// backend is what a dialect finds in the table file: how the servers are reached.
type backend struct {
	hosts                 []remote.Host[session]
	idle, lifetime, retry time.Duration
	files                 []string
}

// reader reads a dialect's own parameters.
type reader struct {
	dialect Dialect
	read    func(c *conf.Conf, q Query) (*backend, error)
}

// readers is the list of the dialects, by Postfix's name of the table type.
func readers() map[string]reader {
	return map[string]reader{
		"mysql":  {MySQL, readMySQL},
		"pgsql":  {PostgreSQL, readPgSQL},
		"sqlite": {SQLite, readSQLite},
	}
}

// Open reads the table file at path and the files it names, and returns the names of
// these files. It connects to no server; the first Lookup does.
func Open(mapType, path string, o Options) (*Source, []string, error) {
	r, ok := readers()[mapType]
	if !ok {
		return nil, nil, fmt.Errorf("no SQL table has the type %q", mapType)
	}
	c, err := conf.Open(path, o.Warn)
	if err != nil {
		return nil, nil, err
	}
	t, err := readTemplate(c, r.dialect, o.Table)
	if err != nil {
		return nil, nil, err
	}
	b, err := r.read(c, t.Query)
	if err = errors.Join(err, c.Finish()); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	source := &Source{Template: t, connections: remote.NewPool(remote.PoolConfig[session]{
		Hosts: b.hosts, Max: o.MaxConns, Idle: b.idle, Lifetime: b.lifetime, Retry: b.retry,
		Close: session.Close, Now: o.Now,
	})}
	return source, append([]string{path}, append(b.files, t.Files()...)...), nil
}

// intervals reads how long a connection may be idle, and how long a server that
// failed comes last.
func intervals(c *conf.Conf) (idle, retry time.Duration) {
	idle = time.Duration(c.Int("idle_interval", 60, 1, maxInterval)) * time.Second
	retry = time.Duration(c.Int("retry_interval", 60, 1, maxInterval)) * time.Second
	return idle, retry
}
