// MySQL: tables in MySQL or MariaDB.
//
// The table file is mysql_table(5)'s: hosts, user, password, dbname, charset,
// query or the older select_field, table, where_field and additional_conditions,
// result_format, domain, expansion_limit, idle_interval, retry_interval,
// require_result_set, option_file and option_group, and tls_*. Every column of
// every row is a value. "localhost" means the Unix socket, as for MySQL's own client.
// It is also the default host.
//
// Parameters of the table file win over the option file. tls_ciphers is refused,
// because Go chooses the ciphers itself.

package sql

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

	"github.com/postern-mail/postern/internal/postmap/conf"
	"github.com/postern-mail/postern/internal/postmap/remote"
)

const (
	defaultPort   = 3306
	defaultSocket = "/run/mysqld/mysqld.sock"
)

// readMySQL reads how the servers are reached, and the files that say so.
func readMySQL(c *conf.Conf, q Query) (*backend, error) {
	s, err := readServers(c)
	if err != nil {
		return nil, err
	}
	hosts, err := s.hosts(q.Text)
	if err != nil {
		return nil, err
	}
	return &backend{hosts: hosts, idle: s.idle, lifetime: serverLifetime, retry: s.retry, files: s.files}, nil
}

// servers are the servers of one table file.
type servers struct {
	conf        *conf.Conf
	config      *mysql.Config // without address
	tls         remote.TLSFiles
	useTLS      bool
	names       []string
	socket      string // that localhost means
	port        string // of hosts that name none
	idle, retry time.Duration
	needResult  bool
	files       []string
}

func readServers(c *conf.Conf) (*servers, error) {
	file, _ := c.Lookup("option_file")
	group := c.String("option_group", "client")
	opts, err := readOptions(file, group)
	if err != nil {
		return nil, c.Wrap("option_file", err, "")
	}
	s := &servers{conf: c, files: opts.files, config: mysql.NewConfig()}
	s.config.User = opts.or(c.String("user", ""), "user")
	s.config.Passwd = opts.or(c.Secret("password"), "password")
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
	s.idle, s.retry = intervals(c)
	s.needResult = c.Bool("require_result_set", true)
	return s, s.readTLS(opts)
}

// readTLS follows MySQL's client. Any of the files turns TLS on. The certificate is
// checked if an authority is set, and its name if tls_verify_cert is set.
func (s *servers) readTLS(opts *options) error {
	c := s.conf
	c.Refuse("take it out: the ciphers are chosen by Go's crypto/tls", []string{""}, "tls_ciphers")
	s.tls = remote.TLSFiles{
		CAFile: opts.or(c.String("tls_CAfile", ""), "ssl-ca"), CAPath: opts.or(c.String("tls_CApath", ""), "ssl-capath"),
		Cert: opts.or(c.String("tls_cert_file", ""), "ssl-cert"), Key: opts.or(c.String("tls_key_file", ""), "ssl-key"),
	}
	if s.tls.CAFile != "" || s.tls.CAPath != "" {
		s.tls.Verify = remote.VerifyChain
	}
	if c.Bool("tls_verify_cert", isOn(opts.values, "ssl-verify-server-cert")) {
		s.tls.Verify = remote.VerifyName
	}
	s.useTLS = s.tls != remote.TLSFiles{} || isOn(opts.values, "ssl")
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
func (s *servers) hosts(statement string) ([]remote.Host[session], error) {
	hosts := make([]remote.Host[session], 0, len(s.names))
	for _, name := range s.names {
		config := s.config.Clone()
		if err := s.address(config, name); err != nil {
			return nil, s.conf.Error("hosts", err.Error(), "write host, host:port or unix:/path/to/the.sock")
		}
		connector, err := mysql.NewConnector(config)
		if err != nil {
			return nil, s.conf.Error("hosts", err.Error(), "")
		}
		hosts = append(hosts, remote.Host[session]{
			Name: "mysql server " + name, First: config.Net == "unix", Dial: mysqlDialler(connector, statement, expected{NeedResult: s.needResult}),
		})
	}
	return hosts, nil
}

func mysqlDialler(connector driver.Connector, statement string, r expected) func(context.Context) (session, error) {
	return func(ctx context.Context) (session, error) {
		conn, err := connector.Connect(ctx)
		if errors.Is(err, mysql.ErrUnknownPlugin) {
			return nil, fmt.Errorf("connect: %w; have the account use ed25519, mysql_native_password or caching_sha2_password", err)
		}
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		prepared, err := prepareOn(ctx, conn, statement)
		if err != nil {
			return nil, err
		}
		return mysqlConn{prepared, r}, nil
	}
}

// mysqlConn is a connection with what is expected of its results.
type mysqlConn struct {
	*driverConn
	result expected
}

func (c mysqlConn) lookUp(ctx context.Context, args []string) ([]string, error) {
	found, err := c.Query(ctx, args, c.result)
	return found, mysqlKeyError(err)
}

// mysqlKeyError converts an error about the values of one key to a [remote.KeyError], as
// keyError does for PostgreSQL. MySQL has one state, HY000, for most errors, so that they
// are known by their numbers.
func mysqlKeyError(err error) error {
	var refused *mysql.MySQLError
	if !errors.As(err, &refused) {
		return err
	}
	n := refused.Number
	switch {
	case strings.HasPrefix(string(refused.SQLState[:]), "22"),
		n == 1267, n == 1270, n == 1271, n == 3988, // characters that the charset of a column does not have
		n == 1139, n >= 3685 && n <= 3699: // no regular expression
		return &remote.KeyError{What: "query: " + refused.Error()}
	}
	return err
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
