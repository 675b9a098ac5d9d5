package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	unixBacklog  = 4096 // the kernel lowers it to net.core.somaxconn
	probeTimeout = 2 * time.Second
)

// listenUnix binds the path, gives it its mode and group, and only then
// listens: until listen(2) every connect is refused, so nobody slips in under
// the umask's mode. net.Listen does all of it at once, hence the system calls.
func listenUnix(s Socket) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), s.Address)
	defer file.Close() // net.FileListener keeps a duplicate

	if err := bindUnix(fd, s.Address); err != nil {
		return nil, err
	}
	// The kernel keeps a bound socket's inode as long as the socket lives, so
	// its number tells our path from any that replaces it.
	made, err := os.Lstat(s.Address)
	if err != nil {
		return nil, fmt.Errorf("the socket was removed while it was made: %w", err)
	}
	l := &unixListener{path: s.Address, made: made}
	if l.Listener, err = openUnix(file, s); err == nil && !l.ours() {
		// A second daemon, started in the same instant, took the path for
		// stale because nobody answered on it yet.
		err = errors.Join(syscall.EADDRINUSE, l.Listener.Close())
	}
	if err != nil {
		_ = l.remove()
		return nil, err
	}
	return l, nil
}

// bindUnix takes the path. A socket that is already there is replaced only
// when nobody listens on it any more, as after a crash.
func bindUnix(fd int, path string) error {
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	if errors.Is(err, unix.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return err
		}
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("directory %s does not exist: create it for the daemon's user (systemd: RuntimeDirectory=)", dir)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EROFS), errors.Is(err, unix.EPERM):
		return fmt.Errorf("bind: %w: the daemon's user may not write in %s", err, dir)
	case err != nil:
		return os.NewSyscallError("bind", err)
	}
	return nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // gone meanwhile: bind tells the rest
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: move it away or choose another path", path)
	}
	conn, err := net.DialTimeout(NetworkUnix, path, probeTimeout)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%w: is another instance running? `ss -lxp src %s` shows it", syscall.EADDRINUSE, path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
	default:
		return fmt.Errorf("%w, and whether it is still served is not known: %w", syscall.EADDRINUSE, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that a crash left: %w", err)
	}
	return nil
}

func openUnix(file *os.File, s Socket) (net.Listener, error) {
	if err := setAccess(s); err != nil {
		return nil, err
	}
	if err := unix.Listen(int(file.Fd()), unixBacklog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(file)
}

func setAccess(s Socket) error {
	if s.Group != "" {
		gid, err := lookupGroup(s.Group)
		if err != nil {
			return fmt.Errorf("socket group: %w", err)
		}
		if err := os.Lchown(s.Address, -1, gid); err != nil {
			return fmt.Errorf("socket group %s: %w: only root or a member may give the socket to it", s.Group, err)
		}
	}
	mode := s.Mode.Perm()
	if s.Mode == 0 {
		mode = DefaultSocketMode
	}
	return os.Chmod(s.Address, mode)
}

func lookupGroup(name string) (int, error) {
	group, err := user.LookupGroup(name)
	if err == nil {
		return strconv.Atoi(group.Gid)
	}
	gid, numErr := parseID(name)
	if numErr != nil {
		return 0, fmt.Errorf("%w (see `getent group`)", err)
	}
	return gid, nil
}

// unixListener removes its path when closed, unless somebody else's socket
// stands there by now.
type unixListener struct {
	net.Listener
	path  string
	made  fs.FileInfo
	close sync.Once
	err   error // of the first Close
}

func (l *unixListener) Close() error {
	l.close.Do(func() {
		// Before Close: a socket that no longer listens would look stale to a
		// starting daemon, and the path we then remove would be its.
		removeErr := l.remove()
		l.err = errors.Join(l.Listener.Close(), removeErr)
	})
	return l.err
}

// remove leaves the path when the daemon gave up the right to remove it
// together with root: the next start, as root, replaces it as stale.
func (l *unixListener) remove() error {
	if !l.ours() {
		return nil
	}
	err := os.Remove(l.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

func (l *unixListener) ours() bool {
	now, err := os.Lstat(l.path)
	return err == nil && os.SameFile(now, l.made)
}
