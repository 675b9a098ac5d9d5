// PostgreSQL: tables in PostgreSQL.
//
// The table file is pgsql_table(5)'s: hosts (also as connection URIs), user,
// password, dbname, encoding, query, select_function or the older select_field,
// table, where_field and additional_conditions, result_format, domain,
// expansion_limit, idle_interval and retry_interval. Every column of every row is
// a value, in the text form that libpq returns. What the file does not set comes from
// the same places as in libpq: PGSSLMODE and similar variables, and the password file.

package sql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

// closeTimeout bounds the goodbye of a connection.
const closeTimeout = time.Second

// readPgSQL reads how the servers are reached.
func readPgSQL(c *conf.Conf, q Query) (*backend, error) {
	hosts, err := pgsqlHosts(c, &pgsqlQuery{text: q.Text, types: make([]uint32, len(q.Args))})
	idle, retry := intervals(c)
	return &backend{hosts: hosts, idle: idle, lifetime: serverLifetime, retry: retry}, err
}

// pgsqlConn is a connection with the statement that it is asked.
type pgsqlConn struct {
	*pgconn.PgConn
	query *pgsqlQuery
}

// Close ends the connection.
func (c pgsqlConn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = c.PgConn.Close(ctx) // nothing was written that could be lost
}

// pgsqlHosts makes the servers ready to be dialled.
func pgsqlHosts(c *conf.Conf, query *pgsqlQuery) ([]remote.Host[session], error) {
	login := login{user: c.String("user", ""), password: c.Secret("password"), dbname: c.String("dbname", ""), encoding: c.String("encoding", "UTF8")}
	var hosts []remote.Host[session]
	for _, name := range c.List("hosts", "localhost") {
		config, shown, err := login.config(name)
		if err != nil {
			return nil, c.Error("hosts", err.Error(), "write host, host:port, unix:/folder/of/the/socket or a postgresql:// URI")
		}
		hosts = append(hosts, remote.Host[session]{
			Name: "pgsql server " + shown, First: strings.HasPrefix(config.Host, "/"), Dial: pgsqlDialler(config, query),
		})
	}
	if len(hosts) == 0 {
		return nil, c.Error("hosts", "is empty", "name a server")
	}
	return hosts, nil
}

// login is what every host that is no URI is asked with.
type login struct{ user, password, dbname, encoding string }

// config parses one of the hosts, and returns the name to show, without a password.
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

func pgsqlDialler(config *pgconn.Config, query *pgsqlQuery) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		conn, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		return pgsqlConn{conn, query}, nil
	}
}

// pgsqlQuery is the statement of a table with the types of its parameters. The
// server finds a type for most of them, as it does for a string in quotes: that of
// the column it is compared with. Where it would take a string for text, as an
// argument of concat or format, it refuses a parameter without a type (42P18);
// these are declared as text, and remembered for all connections.
type pgsqlQuery struct {
	text string

	mu    sync.Mutex
	types []uint32 // OIDs; 0 leaves the choice to the server
}

// parameterTypes returns the types that are known so far.
func (q *pgsqlQuery) parameterTypes() []uint32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.types)
}

// learn declares one more parameter as text, after the server could not find a type
// with the given ones. It returns false for any other error, and if all are declared.
func (q *pgsqlQuery) learn(err error, given []uint32) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "42P18" {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(q.types, given) {
		return true // another connection has learnt meanwhile
	}
	if i := parameterNumber(refused.Message) - 1; i >= 0 && i < len(q.types) && q.types[i] == 0 {
		q.types[i] = pgtypeText
		return true
	}
	open := slices.Index(q.types, 0)
	for i := range q.types { // a message that names no parameter: all of them
		q.types[i] = pgtypeText
	}
	return open >= 0
}

// pgtypeText is the OID of the type text.
const pgtypeText = 25

// parameterNumber returns n of the first "$n" in a message, in any language.
func parameterNumber(message string) int {
	_, rest, _ := strings.Cut(message, "$")
	end := 0
	for end < len(rest) && '0' <= rest[end] && rest[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(rest[:end])
	if err != nil {
		return 0
	}
	return n
}

// lookUp runs the statement with text in and text out. It has no name, so that a
// pooler may give each question to another connection of its own.
func (c pgsqlConn) lookUp(ctx context.Context, args []string) ([]string, error) {
	params := make([][]byte, len(args))
	for i, arg := range args {
		if strings.IndexByte(arg, 0) >= 0 {
			return nil, &remote.KeyError{What: "a key with a NUL cannot be asked for"}
		}
		params[i] = []byte(arg)
	}
	for {
		types := c.query.parameterTypes()
		found, err := readPgSQLRows(c.ExecParams(ctx, c.query.text, params, types, nil, nil))
		if err == nil || !c.query.learn(err, types) {
			return found, keyError(err)
		}
	}
}

// keyError converts an error about the values of one key to a [remote.KeyError], which
// does not count as a failure of the server. Such errors have class 22: for example, a
// user is not a number where the query casts it to one.
func keyError(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && strings.HasPrefix(refused.Code, "22") {
		return &remote.KeyError{What: "query: " + refused.Error()}
	}
	return err
}

func readPgSQLRows(rows *pgconn.ResultReader) (found []string, err error) {
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
