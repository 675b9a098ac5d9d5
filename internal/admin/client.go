package admin

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/postern-mail/postern/internal/daemon"
)

// Client sends commands to one daemon. Each call has a connection of its own, so
// a Client need not be closed and may be used by several goroutines.
type Client struct {
	Path    string // of the daemon's admin socket; host:port on other networks
	Network string // "" is unix
	Daemon  string // the daemon's name, for messages, such as "postern-policyd"
	Flag    string // the flag that sets Path, for messages; "" is --admin
}

// Call runs a command. args and result are encoded and decoded as JSON. With nil
// args none are sent, and with a nil result the result is dropped. progress is
// called for every progress line; nil drops them. A failure that the daemon
// reports is an *[Error]. Errors of connecting have the path and the fix, and
// wrap fs.ErrNotExist, fs.ErrPermission or syscall.ECONNREFUSED. When ctx ends,
// the daemon stops the command too.
func (c Client) Call(ctx context.Context, command string, args, result any, progress func(json.RawMessage)) error {
	line, err := encodeRequest(command, args)
	if err != nil {
		return fmt.Errorf("admin command %s: %w", command, err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, cmp.Or(c.Network, daemon.NetworkUnix), c.Path)
	if err != nil {
		return c.explain(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	final, err := converse(conn, line, progress)
	if ctx.Err() != nil && err != nil {
		return fmt.Errorf("admin command %s: %w", command, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("admin command %s: %s: %w", command, c.Path, err)
	}
	if final.Error != nil {
		return final.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(final.Result, result); err != nil {
		return fmt.Errorf("admin command %s: result: %w", command, err)
	}
	return nil
}

func encodeRequest(command string, args any) ([]byte, error) {
	r := request{V: Version, Command: command}
	if args != nil {
		data, err := json.Marshal(args)
		if err != nil {
			return nil, fmt.Errorf("arguments: %w", err)
		}
		r.Args = data
	}
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(line) >= maxRequest {
		return nil, fmt.Errorf("the request is %d bytes long, below %d are accepted", len(line), maxRequest)
	}
	return append(line, '\n'), nil
}

// converse writes the request and reads up to the final line.
func converse(conn net.Conn, request []byte, progress func(json.RawMessage)) (reply, error) {
	// The answer is used also when the daemon closed the connection before it had
	// read everything.
	_, writeErr := conn.Write(request)
	r := bufio.NewReader(conn)
	for {
		line, err := readLine(r, maxReply)
		switch {
		case errors.Is(err, io.EOF) && writeErr != nil:
			return reply{}, writeErr
		case errors.Is(err, io.EOF):
			return reply{}, errors.New("the daemon closed the connection without an answer: is it stopping?")
		case err != nil:
			return reply{}, fmt.Errorf("read the answer: %w", err)
		}
		answer, err := parseReply(line)
		if err != nil {
			return reply{}, err
		}
		if answer.Progress == nil {
			return answer, nil
		}
		if progress != nil {
			progress(answer.Progress)
		}
	}
}

// parseReply accepts unknown keys, because a newer daemon may send keys that an
// older command does not know.
func parseReply(line []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return reply{}, fmt.Errorf("the answer is malformed: %w", err)
	}
	if r.V != Version {
		return reply{}, fmt.Errorf("the daemon answers in version %d, this command speaks %d: use both of one release", r.V, Version)
	}
	parts := 0
	for _, present := range []bool{r.Progress != nil, r.Result != nil, r.Error != nil} {
		if present {
			parts++
		}
	}
	if parts != 1 {
		return reply{}, errors.New("the answer is malformed: it is not one of progress, result and error")
	}
	return r, nil
}

// explain adds the fix to an error of connecting.
func (c Client) explain(err error) error {
	name := c.Daemon
	if name == "" {
		name = "the daemon"
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: is %s running? %s names its socket when it is not %s", err, name, cmp.Or(c.Flag, "--admin"), c.Path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s is not running, it left the socket behind: start it", err, name)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s", err, denied(c.Path))
	}
	return fmt.Errorf("connect to %s: %w", name, err)
}

// denied returns who may connect. When even the socket cannot be seen, a
// directory above it denies access.
func denied(path string) string {
	for p := path; ; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		if err != nil && p != filepath.Dir(p) {
			continue
		}
		if err != nil {
			return "run as root"
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return "run as root"
		}
		return fmt.Sprintf("%s belongs to group %s, mode %04o: run as root or become a member of that group",
			p, groupName(stat.Gid), info.Mode().Perm())
	}
}

func groupName(gid uint32) string {
	number := strconv.FormatUint(uint64(gid), 10)
	if group, err := user.LookupGroupId(number); err == nil {
		return group.Name
	}
	return number
}
