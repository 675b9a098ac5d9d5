package postfixtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// dovecotConf configures an auth service for Postfix and nothing else.
const dovecotConf = `base_dir = %[1]s/run
state_dir = %[1]s
log_path = %[1]s/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%%u %[1]s/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service auth {
  unix_listener %[2]s {
    mode = 0600
    user = postfix
  }
}
`

// startDovecot starts Dovecot in the foreground and waits for its socket.
func startDovecot(ctx context.Context, l layout, users map[string]string) (*process, error) {
	conf := filepath.Join(l.dovecot(), "dovecot.conf")
	if err := writeDovecot(conf, l, users); err != nil {
		return nil, err
	}
	path, err := systemTool("dovecot")
	if err != nil {
		return nil, err
	}
	out := new(tailBuffer)
	cmd := exec.Command(path, "-F", "-c", conf)
	cmd.Stdout, cmd.Stderr = out, out
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, p.done, func() bool {
		c, err := net.Dial("unix", l.authSocket())
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("dovecot did not come up: %w\n%s\n%s", err, out, fileTail(filepath.Join(l.dovecot(), "log")))
	}
	return p, nil
}

func writeDovecot(conf string, l layout, users map[string]string) error {
	if err := os.MkdirAll(l.dovecot(), 0o755); err != nil {
		return err
	}
	var list strings.Builder
	for login, password := range users {
		fmt.Fprintf(&list, "%s:%s\n", login, password)
	}
	text := fmt.Sprintf(dovecotConf, l.dovecot(), l.authSocket())
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return err
	}
	// The auth process has changed to the dovecot user before it reads this. The
	// passwords are made up and in a temporary directory.
	return os.WriteFile(filepath.Join(l.dovecot(), "users"), []byte(list.String()), 0o644)
}
