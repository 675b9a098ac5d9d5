package backendtest

import (
	"context"
	"database/sql"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// MariaDB is a private MariaDB whose root needs no password. It offers TLS with a
// certificate for "localhost" and 127.0.0.1 that Authority has issued.
type MariaDB struct {
	*Server
	Authority string // file of the authority's certificate
	db        *sql.DB
}

// NewMariaDB starts a server and runs the statements of each script. A statement ends
// with ";" at the end of a line.
func NewMariaDB(tb testing.TB, scripts ...string) *MariaDB {
	tb.Helper()
	daemon := tool(tb, "/usr/sbin/mariadbd", "/usr/sbin/mysqld")
	install := tool(tb, "/usr/bin/mariadb-install-db", "/usr/bin/mysql_install_db")
	m := &MariaDB{Server: newServer(tb, "mysql")}
	m.Authority = writeCertificates(tb, m.Dir)
	data := filepath.Join(m.Dir, "data")
	m.Socket = filepath.Join(m.Dir, "s")
	run(tb, exec.Command(install, "--no-defaults", "--user=mysql", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db"))
	m.command = func() *exec.Cmd {
		return exec.Command(daemon, "--no-defaults", "--user=mysql", "--datadir="+data, "--socket="+m.Socket,
			"--bind-address=127.0.0.1", "--port="+m.Port(), "--pid-file="+filepath.Join(m.Dir, "pid"),
			"--ssl-ca="+m.Authority, "--ssl-cert="+filepath.Join(m.Dir, serverCert), "--ssl-key="+filepath.Join(m.Dir, serverKey),
			"--skip-log-bin", "--skip-name-resolve", "--innodb-buffer-pool-size=16M", "--max-connections=200")
	}
	config := mysql.NewConfig()
	config.User, config.Net, config.Addr, config.Logger = "root", "unix", m.Socket, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		tb.Fatal(err)
	}
	m.db = sql.OpenDB(connector)
	m.db.SetMaxIdleConns(0)
	tb.Cleanup(func() { _ = m.db.Close() })
	m.ready = func(ctx context.Context) error { return m.db.PingContext(ctx) }
	m.Start()
	m.Exec(scripts...)
	return m
}

// Exec runs scripts as root, on one connection.
func (m *MariaDB) Exec(scripts ...string) {
	m.tb.Helper()
	conn, err := m.db.Conn(m.tb.Context())
	if err != nil {
		m.tb.Fatal(err)
	}
	defer conn.Close()
	for _, script := range scripts {
		for statement := range strings.SplitSeq(script, ";\n") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			if _, err := conn.ExecContext(m.tb.Context(), statement); err != nil {
				m.tb.Fatalf("%s: %v", statement, err)
			}
		}
	}
}
