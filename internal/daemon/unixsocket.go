package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/transient"
)

const (
	unixBacklog  = 4096 // the kernel lowers it to net.core.somaxconn
	probeTimeout = 2 * time.Second
)

// listenUnix binds the path and listens. It does so by system calls, because
// net.Listen takes the mode from the umask and the group from the process.
//
// The path may be in a folder of a less privileged user (smtpd's, below the queue
// directory), who can replace it by another file at any time. So the mode and
// owner of an existing path are never changed: the kernel creates the socket with
// both, see [bindAs].
func listenUnix(s Socket) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), s.Address)
	defer file.Close() // net.FileListener keeps a duplicate

	gid := -1
	if s.Group != "" {
		if gid, err = lookupGroup(s.Group); err != nil {
			return nil, fmt.Errorf("socket group: %w", err)
		}
	}
	place, err := openPlace(s.Address)
	if err != nil {
		return nil, err
	}
	if err := bindUnix(fd, place, s, gid); err != nil {
		return nil, errors.Join(err, place.close())
	}
	l, err := place.listen(file, s, gid)
	if err != nil {
		return nil, errors.Join(err, place.remove(), place.close())
	}
	return l, nil
}

// place is the folder of a socket, held open so that it stays the same one, and
// the socket's name in it.
type place struct {
	path string
	dir  *os.File
	name string
	made fs.FileInfo // our socket, once it is bound
}

func openPlace(path string) (*place, error) {
	folder, name := filepath.Split(path)
	dir, err := os.OpenFile(folder, unix.O_PATH|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, transient.Mark(fmt.Errorf("directory %s does not exist; create it for the daemon's user: install -d -o %s %s (systemd: RuntimeDirectory=)", filepath.Clean(folder), ownUser(), filepath.Clean(folder)))
	case err != nil:
		return nil, err
	}
	return &place{path: path, dir: dir, name: name}, nil
}

// ownUser returns the name of the user that the daemon runs as. When the daemon
// is still root, it is the name in our systemd units.
func ownUser() string {
	if current, err := user.Current(); err == nil && current.Uid != "0" {
		return current.Username
	}
	return "postern"
}

// MakeFolder makes the folder of a unix socket when root starts a daemon by hand
// and systemd has not made it. The folder belongs to the user that the daemon
// becomes; nil means the current one. A failure is not reported here: binding the
// socket then reports it.
func MakeFolder(e Endpoint, becomes *Identity) {
	folder := filepath.Dir(e.Address)
	if e.Network != NetworkUnix || os.Geteuid() != 0 || os.Mkdir(folder, 0o755) != nil {
		return
	}
	if becomes != nil {
		giveFolder(folder, *becomes)
	}
}

// giveFolder gives a folder that root has just made to another user. The folder above it
// may belong to a less privileged user, who can put a link in its place: no link is
// followed.
func giveFolder(folder string, to Identity) {
	f, err := os.OpenFile(folder, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	_ = f.Chown(to.UID, to.GID)
	_ = f.Close()
}

func (p *place) close() error { return p.dir.Close() }

// open opens what is at the path now, without following a link.
func (p *place) open() (*os.File, error) {
	fd, err := unix.Openat(int(p.dir.Fd()), p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
	return os.NewFile(uintptr(fd), p.path), nil
}

// look describes what is at the path now.
func (p *place) look() (fs.FileInfo, error) {
	f, err := p.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func (p *place) unlink() error {
	err := unix.Unlinkat(int(p.dir.Fd()), p.name, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: p.path, Err: err}
	}
	return nil
}

// listen is called when the socket is bound: until listen(2) every connect is
// refused.
func (p *place) listen(file *os.File, s Socket, gid int) (net.Listener, error) {
	// The kernel keeps a bound socket's inode as long as the socket lives, so its
	// number distinguishes our path from one that replaces it.
	at, err := p.open()
	if err != nil {
		return nil, fmt.Errorf("the socket was removed while it was made: %w", err)
	}
	defer at.Close()
	if p.made, err = at.Stat(); err != nil {
		return nil, err
	}
	if err := setGroup(at, p.made, gid, s); err != nil {
		return nil, err
	}
	if err := unix.Listen(int(file.Fd()), unixBacklog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	inner, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	if !p.ours() {
		// A second daemon, started at the same time, replaced the path as stale,
		// because no process answered on it yet.
		return nil, errors.Join(syscall.EADDRINUSE, inner.Close())
	}
	return &unixListener{Listener: inner, place: p}, nil
}

// setGroup sets the group when the kernel did not do so as it created the socket:
// the folder has its setgid bit, or the process is not root but a member of the
// group. It works on a descriptor, so that it can only change a socket of the
// process's own user, whatever was put at the path.
func setGroup(at *os.File, info fs.FileInfo, gid int, s Socket) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if gid < 0 || ok && int(stat.Gid) == gid {
		return nil
	}
	if !ok || info.Mode().Type() != fs.ModeSocket || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s was replaced while the socket was made: take a folder that only the daemon's user can write", s.Address)
	}
	if err := unix.Fchownat(int(at.Fd()), "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("socket group %s: %w: only root or a member may give the socket to it", s.Group, err)
	}
	return nil
}

// bindUnix binds the path. A socket that is already there is replaced only when
// no process listens on it any more, as after a crash.
func bindUnix(fd int, p *place, s Socket, gid int) error {
	mode := s.Mode.Perm()
	if s.Mode == 0 {
		mode = DefaultSocketMode
	}
	err := bindAs(fd, s.Address, mode, gid)
	if errors.Is(err, unix.EADDRINUSE) {
		if err := p.removeStale(); err != nil {
			return err
		}
		err = bindAs(fd, s.Address, mode, gid)
	}
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("bind: %w: the daemon's user may not write in %s", err, filepath.Dir(s.Address))
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("bind: %w; name another folder, or mount that of %s so that it can be written", err, s.Address)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("bind: %w; make room in the file system of %s (df, df -i)", err, filepath.Dir(s.Address))
	case err != nil:
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// bindAs binds the path so that the kernel creates it with the mode and, when gid
// is not negative and the process is root, with the group. The kernel takes the
// mode from the socket, without the bits of the umask. The umask and the group of
// new files are changed only for one thread, which ends here.
func bindAs(fd int, path string, mode fs.FileMode, gid int) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Fchmod(fd, uint32(mode)); err != nil {
				return os.NewSyscallError("fchmod", err)
			}
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return os.NewSyscallError("unshare", err)
			}
			unix.Umask(0)
			if gid >= 0 {
				_ = unix.Setfsgid(gid) // does not report a failure, so setGroup checks it
			}
			return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
		}()
	}()
	return <-done
}

func (p *place) removeStale() error {
	info, err := p.look()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // removed meanwhile: bind reports what is wrong
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket: move it away or choose another path", p.path)
	}
	conn, err := net.DialTimeout(NetworkUnix, p.path, probeTimeout)
	switch {
	case err == nil:
		_ = conn.Close()
		return fmt.Errorf("%w: is another instance running? `ss -lxp src %s` shows it", syscall.EADDRINUSE, p.path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
	default:
		return fmt.Errorf("%w, and whether it is still served is not known: %w", syscall.EADDRINUSE, err)
	}
	if err := p.unlink(); err != nil {
		return fmt.Errorf("remove the socket that a crash left: %w", err)
	}
	return nil
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

// unixListener removes its path when it is closed, unless another socket is there
// by then.
type unixListener struct {
	net.Listener
	place *place
	once  sync.Once
	err   error // of the first Close
}

func (l *unixListener) Close() error {
	l.once.Do(func() {
		// This comes before Close. A socket that no longer listens looks stale to
		// a daemon that starts. It would replace the path, and we would then
		// remove its socket.
		removeErr := l.place.remove()
		l.err = errors.Join(l.Listener.Close(), removeErr, l.place.close())
	})
	return l.err
}

// remove removes the path. It leaves the path when the daemon lost the right to
// remove it together with root: the next start, as root, replaces it as stale.
func (p *place) remove() error {
	if !p.ours() {
		return nil
	}
	if err := p.unlink(); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (p *place) ours() bool {
	now, err := p.look()
	return err == nil && p.made != nil && os.SameFile(now, p.made)
}
