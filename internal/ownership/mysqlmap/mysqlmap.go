// Package mysqlmap answers: which values does this key have in MySQL or MariaDB?
//
// The table file is mysql_table(5)'s: hosts, user, password, dbname, charset,
// query or the older select_field, table, where_field and additional_conditions,
// result_format, domain, expansion_limit, idle_interval, retry_interval,
// require_result_set, option_file and option_group, and tls_*. Every column of
// every row is a value. "localhost", which is also the host of a file that names
// none, means the Unix socket, as it does for MySQL's own client.
//
// Parameters of the table file win over the option file. tls_ciphers is refused,
// because Go chooses the ciphers itself.
package mysqlmap

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/postern-mail/postern/internal/ownership/mapconf"
	"github.com/postern-mail/postern/internal/ownership/pool"
	"github.com/postern-mail/postern/internal/ownership/remote"
	"github.com/postern-mail/postern/internal/ownership/sqlconn"
	"github.com/postern-mail/postern/internal/ownership/sqlquery"
	"github.com/postern-mail/postern/internal/ownership/tlsconf"
)

const (
	defaultPort   = 3306
	defaultSocket = "/run/mysqld/mysqld.sock"
	maxInterval   = 24 * 60 * 60 // seconds
	// lifetime lets connections move back to a server that has returned, and
	// ends before the server's own wait_timeout.
	lifetime = 10 * time.Minute
)

// Options of [Open].
type Options struct {
	MaxConns int
	Warn     func(string)
	Table    mapconf.OpenTable // opens the tables of a domain list
	Now      func() time.Time
}

// Open reads the table file at path and the files it names. No server is asked
// before the source is.
func Open(path string, o Options) (*sqlquery.Source, []string, error) {
	c, err := mapconf.Open(path, o.Warn)
	if err != nil {
		return nil, nil, err
	}
	t, err := sqlquery.ReadTemplate(c, sqlquery.MySQL, o.Table)
	if err != nil {
		return nil, nil, err
	}
	s, err := readServers(c)
	if err = errors.Join(err, c.Finish()); err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	hosts, err := s.hosts(t.Query.Text)
	if err != nil {
		return nil, nil, errors.Join(err, t.Close())
	}
	connections := pool.New(pool.Config[*sqlconn.Conn]{
		Hosts: hosts, Max: o.MaxConns, Idle: s.idle, Lifetime: lifetime, Retry: s.retry,
		Close: (*sqlconn.Conn).Close, Now: o.Now,
	})
	source := &sqlquery.Source{Template: t, OnClose: func() error { connections.Close(); return nil }}
	source.Rows = func(ctx context.Context, args []string) (values []string, err error) {
		err = connections.Do(ctx, func(ctx context.Context, c *sqlconn.Conn) (err error) {
			values, err = c.Query(ctx, args, sqlconn.Options{NeedResult: s.needResult})
			return err
		}, remote.IsKeyError)
		return values, err
	}
	return source, append([]string{path}, append(s.files, t.Files()...)...), nil
}

// servers are the servers of one table file.
type servers struct {
	conf        *mapconf.Conf
	config      *mysql.Config // without address
	tls         tlsconf.Files
	useTLS      bool
	names       []string
	socket      string // that localhost means
	port        string // of hosts that name none
	idle, retry time.Duration
	needResult  bool
	files       []string
}

func readServers(c *mapconf.Conf) (*servers, error) {
	file, _ := c.Lookup("option_file")
	group := c.String("option_group", "client")
	opts, err := readOptions(file, group)
	if err != nil {
		return nil, c.Error("option_file", err.Error(), "")
	}
	s := &servers{conf: c, files: opts.files, config: mysql.NewConfig()}
	s.config.User = opts.or(c.String("user", ""), "user")
	s.config.Passwd = opts.or(c.String("password", ""), "password")
	s.config.DBName = opts.or(c.String("dbname", ""), "database")
	s.config.Logger = &mysql.NopLogger{}
	if err := s.config.Apply(mysql.Charset(c.String("charset", "utf8mb4"), "")); err != nil {
		return nil, c.Error("charset", err.Error(), "")
	}
	s.socket, s.port = opts.or("", "socket"), opts.or("", "port")
	if s.socket == "" {
		s.socket = defaultSocket
	}
	s.names = c.List("hosts", opts.or("", "host"))
	if len(s.names) == 0 {
		s.names = []string{"localhost"}
	}
	s.idle = time.Duration(c.Int("idle_interval", 60, 1, maxInterval)) * time.Second
	s.retry = time.Duration(c.Int("retry_interval", 60, 1, maxInterval)) * time.Second
	s.needResult = c.Bool("require_result_set", true)
	return s, s.readTLS(opts)
}

// readTLS follows MySQL's client: any of the files turns TLS on, an authority is
// checked if one is given, and the name if tls_verify_cert says so.
func (s *servers) readTLS(opts *options) error {
	c := s.conf
	c.Refuse("take it out: the ciphers are chosen by Go's crypto/tls", []string{""}, "tls_ciphers")
	s.tls = tlsconf.Files{
		CAFile: opts.or(c.String("tls_CAfile", ""), "ssl-ca"), CAPath: opts.or(c.String("tls_CApath", ""), "ssl-capath"),
		Cert: opts.or(c.String("tls_cert_file", ""), "ssl-cert"), Key: opts.or(c.String("tls_key_file", ""), "ssl-key"),
	}
	if s.tls.CAFile != "" || s.tls.CAPath != "" {
		s.tls.Verify = tlsconf.Chain
	}
	if c.Bool("tls_verify_cert", isOn(opts.values, "ssl-verify-server-cert")) {
		s.tls.Verify = tlsconf.Name
	}
	s.useTLS = s.tls != tlsconf.Files{} || isOn(opts.values, "ssl")
	s.files = append(s.files, s.tls.List()...)
	if !s.useTLS {
		return nil
	}
	var err error
	if s.config.TLS, err = s.tls.Config(); err != nil {
		return fmt.Errorf("%s: TLS: %w", c.Path, err)
	}
	return nil
}

func isOn(values map[string]string, name string) bool {
	value, ok := values[name]
	switch strings.ToLower(value) {
	case "", "1", "on", "true", "yes":
		return ok
	}
	return false
}

// hosts makes the servers ready to be dialled.
func (s *servers) hosts(statement string) ([]pool.Host[*sqlconn.Conn], error) {
	hosts := make([]pool.Host[*sqlconn.Conn], 0, len(s.names))
	for _, name := range s.names {
		config := s.config.Clone()
		if err := s.address(config, name); err != nil {
			return nil, s.conf.Error("hosts", err.Error(), "write host, host:port or unix:/path/to/the.sock")
		}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return nil, s.conf.Error("hosts", err.Error(), "")
		}
		hosts = append(hosts, pool.Host[*sqlconn.Conn]{
			Name: "mysql server " + name, First: config.Net == "unix", Dial: dialler(connector, statement),
		})
	}
	return hosts, nil
}

func dialler(connector driver.Connector, statement string) func(context.Context) (*sqlconn.Conn, error) {
	return func(ctx context.Context) (*sqlconn.Conn, error) {
		conn, err := connector.Connect(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		return sqlconn.Prepare(ctx, conn, statement)
	}
}

// address reads one of the hosts.
func (s *servers) address(config *mysql.Config, name string) error {
	if path, ok := strings.CutPrefix(name, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%s is a relative path", name)
		}
		config.Net, config.Addr = "unix", path
		return nil
	}
	host, port := strings.TrimPrefix(name, "inet:"), s.port
	if at := strings.LastIndexByte(host, ':'); at >= 0 {
		host, port = host[:at], host[at+1:]
	}
	if strings.EqualFold(host, "localhost") {
		config.Net, config.Addr = "unix", s.socket
		if _, err := os.Stat(s.socket); err != nil {
			s.conf.Warn("hosts", "localhost means the socket "+s.socket+", which is not there; write 127.0.0.1 for TCP")
		}
		return nil
	}
	number, err := portNumber(port)
	if err != nil || host == "" {
		return errors.Join(fmt.Errorf("%q is no server", name), err)
	}
	host = strings.Trim(host, "[]")
	config.Net, config.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(number))
	if config.TLS != nil {
		config.TLS = config.TLS.Clone()
		config.TLS.ServerName = host
	}
	return nil
}

func portNumber(port string) (int, error) {
	if port == "" {
		return defaultPort, nil
	}
	return net.LookupPort("tcp", port)
}
