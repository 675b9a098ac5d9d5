// PostgreSQL: which values does this key have in PostgreSQL?
//
// The table file is pgsql_table(5)'s: hosts (also as connection URIs), user,
// password, dbname, encoding, query, select_function or the older select_field,
// table, where_field and additional_conditions, result_format, domain,
// expansion_limit, idle_interval and retry_interval. Every column of every row is
// a value, as text, as libpq hands it out. What the file does not say comes from
// where libpq takes it: PGSSLMODE and its like, and the password file.

package sql

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	// closeTimeout bounds the goodbye of a connection.
	closeTimeout = time.Second
	statement    = "owners" // the name of the prepared statement
)

// readPgSQL reads how the servers are reached.
func readPgSQL(c *conf.Conf, q Query) (*backend, error) {
	hosts, err := pgsqlHosts(c, q.Text)
	idle, retry := intervals(c)
	return &backend{hosts: hosts, idle: idle, lifetime: serverLifetime, retry: retry}, err
}

// pgsqlConn is a connection with its prepared statement.
type pgsqlConn struct{ *pgconn.PgConn }

// Close ends the connection.
func (c pgsqlConn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.PgConn.Close(ctx) // nothing was written that could be lost
}

// pgsqlHosts makes the servers ready to be dialled.
func pgsqlHosts(c *conf.Conf, text string) ([]remote.Host[session], error) {
	login := login{user: c.String("user", ""), password: c.Secret("password"), dbname: c.String("dbname", ""), encoding: c.String("encoding", "UTF8")}
	var hosts []remote.Host[session]
	for _, name := range c.List("hosts", "localhost") {
		config, shown, err := login.config(name)
		if err != nil {
			return nil, c.Error("hosts", err.Error(), "write host, host:port, unix:/folder/of/the/socket or a postgresql:// URI")
		}
		hosts = append(hosts, remote.Host[session]{
			Name: "pgsql server " + shown, First: strings.HasPrefix(config.Host, "/"), Dial: pgsqlDialler(config, text),
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

func pgsqlDialler(config *pgconn.Config, text string) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		if _, err := conn.Prepare(ctx, statement, text, nil); err != nil {
			pgsqlConn{conn}.Close()
			return nil, fmt.Errorf("prepare the query: %w", err)
		}
		return pgsqlConn{conn}, nil
	}
}

// ask runs the prepared statement with text in and text out. The server
// decides about the types of the parameters, as it does for quoted strings.
func (c pgsqlConn) ask(ctx context.Context, args []string) (found []string, err error) {
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
		if len(found) > maxValues || size > maxResult {
			return nil, &remote.KeyError{What: fmt.Sprintf("the result has more than %d values or %d octets", maxValues, maxResult)}
		}
	}
	if _, err := rows.Close(); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return found, nil
}
