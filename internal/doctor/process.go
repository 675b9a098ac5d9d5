package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
)

// peerPID returns the process that opened a unix socket, or 0 if it is not known.
func peerPID(path string) int {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return 0
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(peer.Pid)
		}
	})
	return pid
}

func procPath(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// procList reads a file in /proc of texts that end in NUL.
func procList(pid int, name string) []string {
	text, err := os.ReadFile(procPath(pid, name))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// startOf returns when a process was started, the zero time if that is not known. /proc has it
// in ticks of the machine's uptime, of which all machines show 100 in a second.
func startOf(pid int) time.Time {
	text, err := os.ReadFile(procPath(pid, "stat"))
	end := strings.LastIndex(string(text), ") ") // of the name, which may have spaces
	var up unix.Timespec
	if err != nil || end < 0 || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return time.Time{}
	}
	const startTime = 19 // proc(5): field 22, of which the name is the second
	fields := strings.Fields(string(text)[end+2:])
	if len(fields) <= startTime {
		return time.Time{}
	}
	ticks, err := strconv.ParseInt(fields[startTime], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(ticks)*(time.Second/100) - time.Duration(up.Nano()))
}

// processIdentity returns the user and groups of a process.
func processIdentity(pid int) (daemon.Identity, error) {
	status, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return daemon.Identity{}, err
	}
	id := daemon.Identity{UID: -1, GID: -1}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		var numbers []int
		for _, word := range strings.Fields(value) {
			if n, err := strconv.Atoi(word); err == nil {
				numbers = append(numbers, n)
			}
		}
		switch {
		case key == "Uid" && len(numbers) > 1:
			id.UID = numbers[1]
		case key == "Gid" && len(numbers) > 1:
			id.GID = numbers[1]
		case key == "Groups":
			id.Groups = numbers
		}
	}
	if id.UID < 0 || id.GID < 0 {
		return id, fmt.Errorf("no user in %s", procPath(pid, "status"))
	}
	id.Name = strconv.Itoa(id.UID)
	if account, err := user.LookupId(id.Name); err == nil {
		id.Name = account.Username
	}
	return id, nil
}

// unitIdentity returns the user and groups that a unit's process gets.
func unitIdentity(u Unit) (daemon.Identity, error) {
	name := u.Properties["User"]
	if name == "" {
		return daemon.Identity{}, errors.New("the unit has no User=")
	}
	return daemon.UnitIdentity(name, u.Properties["Group"], u.words("SupplementaryGroups"))
}

// errNotRoot is returned when only root can find something out.
var errNotRoot = errors.New("only root can try this as another user")

// as calls f with the rights of an identity. f must not use other goroutines.
func as(id daemon.Identity, f func() error) error {
	switch {
	case os.Geteuid() == id.UID:
		return f()
	case os.Geteuid() != 0:
		return errNotRoot
	}
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, so no other
		// goroutine gets its reduced rights.
		runtime.LockOSThread()
		result <- actAs(id, f)
	}()
	return <-result
}

// actAs changes the rights of this thread only. The functions of package syscall would
// change those of all threads.
func actAs(id daemon.Identity, f func() error) error {
	if err := unix.Setgroups(id.Groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	gid, uid := uintptr(id.GID), uintptr(id.UID)
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); err != 0 {
		return os.NewSyscallError("setresgid", err)
	}
	if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); err != 0 {
		return os.NewSyscallError("setresuid", err)
	}
	return f()
}

// runAs runs a program with the rights of an identity, if that is possible.
func runAs(ctx context.Context, id *daemon.Identity, environ []string, path string, args ...string) (errOut string, err error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = environ, "/"
	if id != nil && os.Geteuid() == 0 && id.UID != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: id.Credential()}
	}
	var stderr postconf.Output
	cmd.Stderr = &stderr
	err = cmd.Run()
	return stderr.String(), err
}

// outputOf returns what a program prints. Root runs it with the rights of the owner of its
// file: the program is what a process runs that answers at the daemon's socket, and the
// daemon's user could have put any there.
func outputOf(ctx context.Context, path string, args ...string) (string, error) {
	file, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if mode := info.Mode().Perm(); owner.Uid == 0 && (mode&0o002 != 0 || mode&0o020 != 0 && owner.Gid != 0) {
			return "", fmt.Errorf("%s: mode %04o lets others replace it; chmod go-w %s", path, mode, path)
		}
		cmd.SysProcAttr = daemon.AsOwner(info)
		// What is at the path may change; the open file does not.
		cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{file}
	}
	var out postconf.Output
	cmd.Dir, cmd.Stdout = "/", &out
	err = cmd.Run()
	return out.String(), err
}

// connects connects to a socket with the rights of an identity.
func connects(ctx context.Context, id daemon.Identity, p place) error {
	return as(id, func() error {
		// The socket is created and connected in this goroutine.
		conn, err := new(net.Dialer).DialContext(ctx, p.network, p.address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
