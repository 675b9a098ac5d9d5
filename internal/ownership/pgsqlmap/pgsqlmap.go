// Package pgsqlmap answers: which values does this key have in PostgreSQL?
//
// The table file is pgsql_table(5)'s: hosts (also as connection URIs), user,
// password, dbname, encoding, query, select_function or the older select_field,
// table, where_field and additional_conditions, result_format, domain,
// expansion_limit, idle_interval and retry_interval. Every column of every row is
// a value, as text, as libpq hands it out. What the file does not say comes from
// where libpq takes it: PGSSLMODE and its like, and the password file.
package pgsqlmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern-mail/postern/internal/ownership/mapconf"
	"github.com/postern-mail/postern/internal/ownership/pool"
	"github.com/postern-mail/postern/internal/ownership/remote"
	"github.com/postern-mail/postern/internal/ownership/sqlconn"
	"github.com/postern-mail/postern/internal/ownership/sqlquery"
)

const (
	maxInterval = 24 * 60 * 60 // seconds
	// lifetime lets connections move back to a server that has returned.
	lifetime = 10 * time.Minute
	// closeTimeout bounds the goodbye of a connection.
	closeTimeout = time.Second
	statement    = "owners" // the name of the prepared statement
)

// Options of [Open].
type Options struct {
	MaxConns int
	Warn     func(string)
	Table    mapconf.OpenTable // opens the tables of a domain list
	Now      func() time.Time
}

// Open reads the table file at path. No server is asked before the source is.
func Open(path string, o Options) (*sqlquery.Source, []string, error) {
	c, err := mapconf.Open(path, o.Warn)
	if err != nil {
		return nil, nil, err
	}
	t, err := sqlquery.ReadTemplate(c, sqlquery.PostgreSQL, o.Table)
	if err != nil {
		return nil, nil, err
	}
	idle := time.Duration(c.Int("idle_interval", 60, 1, maxInterval)) * time.Second
	retry := time.Duration(c.Int("retry_interval", 60, 1, maxInterval)) * time.Second
	hosts, err := hosts(c, t.Query.Text)
	if err = errors.Join(err, c.Finish()); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	connections := pool.New(pool.Config[*pgconn.PgConn]{
		Hosts: hosts, Max: o.MaxConns, Idle: idle, Lifetime: lifetime, Retry: retry,
		Close: closeConn, Now: o.Now,
	})
	source := &sqlquery.Source{Template: t, OnClose: func() error { connections.Close(); return nil }}
	source.Rows = func(ctx context.Context, args []string) (values []string, err error) {
		err = connections.Do(ctx, func(ctx context.Context, c *pgconn.PgConn) (err error) {
			values, err = query(ctx, c, args)
			return err
		}, remote.IsKeyError)
		return values, err
	}
	return source, append([]string{path}, t.Files()...), nil
}

func closeConn(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.Close(ctx) // nothing was written that could be lost
}

// hosts makes the servers ready to be dialled.
func hosts(c *mapconf.Conf, text string) ([]pool.Host[*pgconn.PgConn], error) {
	login := login{user: c.String("user", ""), password: c.String("password", ""), dbname: c.String("dbname", ""), encoding: c.String("encoding", "UTF8")}
	var hosts []pool.Host[*pgconn.PgConn]
	for _, name := range c.List("hosts", "localhost") {
		config, shown, err := login.config(name)
		if err != nil {
			return nil, c.Error("hosts", err.Error(), "write host, host:port, unix:/folder/of/the/socket or a postgresql:// URI")
		}
		hosts = append(hosts, pool.Host[*pgconn.PgConn]{
			Name: "pgsql server " + shown, First: strings.HasPrefix(config.Host, "/"), Dial: dialler(config, text),
		})
	}
	if len(hosts) == 0 {
		return nil, c.Error("hosts", "is empty", "name a server")
	}
	return hosts, nil
}

// login is what every host that is no URI is asked with.
type login struct{ user, password, dbname, encoding string }

// config reads one of the hosts and gives the name to show, without a password.
func (l login) config(name string) (config *pgconn.Config, shown string, err error) {
	text, shown := name, name
	if strings.HasPrefix(name, "postgresql://") || strings.HasPrefix(name, "postgres://") {
		shown = "given as URI"
	} else if text, err = l.conninfo(name); err != nil {
		return nil, "", err
	}
	if config, err = pgconn.ParseConfig(text); err != nil {
		// Its text may hold the password.
		return nil, "", fmt.Errorf("server %s cannot be understood", shown)
	}
	if shown != name {
		shown = net.JoinHostPort(config.Host, fmt.Sprint(config.Port))
	}
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	config.RuntimeParams["client_encoding"] = l.encoding
	return config, shown, nil
}

// conninfo spells a host as libpq's connection string.
func (l login) conninfo(name string) (string, error) {
	if l.dbname == "" {
		return "", fmt.Errorf("%q needs dbname, which is missing", name)
	}
	host, port := strings.TrimPrefix(strings.TrimPrefix(name, "unix:"), "inet:"), ""
	if !strings.HasPrefix(host, "/") {
		if at := strings.LastIndexByte(host, ':'); at >= 0 {
			host, port = host[:at], host[at+1:]
		}
		host = strings.Trim(host, "[]")
	}
	if host == "" {
		return "", fmt.Errorf("%q is no server", name)
	}
	var b strings.Builder
	for _, setting := range [][2]string{{"host", host}, {"port", port}, {"user", l.user}, {"password", l.password}, {"dbname", l.dbname}} {
		if setting[1] != "" {
			fmt.Fprintf(&b, "%s='%s' ", setting[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(setting[1]))
		}
	}
	return b.String(), nil
}

func dialler(config *pgconn.Config, text string) func(context.Context) (*pgconn.PgConn, error) {
	return func(ctx context.Context) (*pgconn.PgConn, error) {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		if _, err := conn.Prepare(ctx, statement, text, nil); err != nil {
			closeConn(conn)
			return nil, fmt.Errorf("prepare the query: %w", err)
		}
		return conn, nil
	}
}

// query runs the prepared statement with text in and text out. The server
// decides about the types of the parameters, as it does for quoted strings.
func query(ctx context.Context, c *pgconn.PgConn, args []string) (found []string, err error) {
	params := make([][]byte, len(args))
	for i, arg := range args {
		if strings.IndexByte(arg, 0) >= 0 {
			return nil, &remote.KeyError{What: "a key with a NUL cannot be asked for"}
		}
		params[i] = []byte(arg)
	}
	rows := c.ExecPrepared(ctx, statement, params, nil, nil)
	size := 0
	for rows.NextRow() {
		for _, value := range rows.Values() {
			if value != nil {
				found = append(found, string(value))
				size += len(value)
			}
		}
		if len(found) > sqlconn.MaxValues || size > sqlconn.MaxResult {
			return nil, &remote.KeyError{What: fmt.Sprintf("the result has more than %d values or %d octets", sqlconn.MaxValues, sqlconn.MaxResult)}
		}
	}
	if _, err := rows.Close(); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return found, nil
}
