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

// PgBouncer is a pooler in transaction mode before a PostgreSQL. Each transaction may
// use another session of the server, so prepared statements do not outlive a
// transaction. It asks for no password.
type PgBouncer struct{ *Server }

// NewPgBouncer starts a pooler before p.
func NewPgBouncer(tb testing.TB, p *PostgreSQL) *PgBouncer {
	tb.Helper()
	daemon := tool(tb, "/usr/sbin/pgbouncer")
	b := &PgBouncer{Server: newServer(tb, "postgres")}
	users, ini := filepath.Join(b.Dir, "users.txt"), filepath.Join(b.Dir, "pgbouncer.ini")
	settings := fmt.Sprintf("[databases]\npostgres = host=%s port=%s user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\n"+
		"auth_type = trust\nauth_file = %s\npool_mode = transaction\nmax_db_connections = 3\n", p.Dir, p.Port(), b.Port(), users)
	for name, text := range map[string]string{users: "\"postfix\" \"\"\n", ini: settings} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	b.command = func() *exec.Cmd { return as(tb, "postgres", exec.Command(daemon, "--quiet", ini)) }
	b.ready = func(ctx context.Context) error {
		conn, err := pgconn.Connect(ctx, fmt.Sprintf("host=127.0.0.1 port=%s user=postfix dbname=postgres sslmode=disable", b.Port()))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
	b.Start()
	return b
}
