package backendtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// PostgreSQL is a private PostgreSQL whose superuser is postgres. Local connections
// need no password, TCP connections do.
type PostgreSQL struct {
	*Server
	admin string // connection string
}

// NewPostgreSQL starts a server and runs the scripts in the database postgres.
func NewPostgreSQL(tb testing.TB, scripts ...string) *PostgreSQL {
	tb.Helper()
	initdb := tool(tb, "/usr/lib/postgresql/*/bin/initdb")
	daemon := tool(tb, "/usr/lib/postgresql/*/bin/postgres")
	p := &PostgreSQL{Server: newServer(tb, "postgres")}
	data := filepath.Join(p.Dir, "data")
	p.Socket = p.Dir
	p.admin = fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres", p.Dir, p.Port())
	run(tb, as(tb, "postgres", exec.Command(initdb, "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256")))
	p.command = func() *exec.Cmd {
		// A killed server leaves its lock behind; that of another is not here.
		_ = os.Remove(filepath.Join(data, "postmaster.pid"))
		return as(tb, "postgres", exec.Command(daemon, "-D", data, "-h", "127.0.0.1", "-p", p.Port(), "-k", p.Dir, "-F", "-c", "shared_buffers=16MB"))
	}
	p.ready = func(ctx context.Context) error { return p.exec(ctx, "SELECT 1") }
	p.Start()
	p.Exec(scripts...)
	return p
}

// Exec runs scripts as the superuser.
func (p *PostgreSQL) Exec(scripts ...string) {
	p.tb.Helper()
	for _, script := range scripts {
		if err := p.exec(p.tb.Context(), script); err != nil {
			p.tb.Fatalf("%s: %v", script, err)
		}
	}
}

func (p *PostgreSQL) exec(ctx context.Context, script string) error {
	conn, err := pgconn.Connect(ctx, p.admin)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, script).ReadAll()
	if closed := conn.Close(ctx); err == nil {
		err = closed
	}
	return err
}
