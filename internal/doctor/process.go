package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
)

// peerPID is the process behind a unix socket, 0 when it cannot be told.
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

// procList reads a file of texts with a NUL behind each.
func procList(pid int, name string) []string {
	text, err := os.ReadFile(procPath(pid, name))
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// processIdentity is who a process is.
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
	return id, nil
}

// unitIdentity is who a unit's process will be.
func unitIdentity(u Unit) (daemon.Identity, error) {
	spec := u.Properties["User"]
	if spec == "" {
		return daemon.Identity{}, errors.New("the unit has no User=")
	}
	if group := u.Properties["Group"]; group != "" {
		spec += ":" + group
	}
	id, err := daemon.LookupIdentity(spec)
	if err != nil {
		return id, err
	}
	for _, name := range u.words("SupplementaryGroups") {
		group, err := daemon.LookupIdentity("root:" + name)
		if err != nil {
			return id, err
		}
		if !slices.Contains(id.Groups, group.GID) {
			id.Groups = append(id.Groups, group.GID)
		}
	}
	return id, nil
}

// errNotRoot is what only root can find out.
var errNotRoot = errors.New("only root can try this as another user")

// as calls f with the rights of an identity. f must do its work in the goroutine
// that it is called in.
func as(id daemon.Identity, f func() error) error {
	switch {
	case os.Geteuid() == id.UID:
		return f()
	case os.Geteuid() != 0:
		return errNotRoot
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it the rights
		// that it has given up.
		runtime.LockOSThread()
		result <- actAs(id, f)
	}()
	return <-result
}

// actAs changes the rights of this thread alone: the calls of package syscall change
// those of all threads.
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

// runAs runs a program with the rights of an identity, if that can be.
func runAs(ctx context.Context, id *daemon.Identity, environ []string, path string, args ...string) (errOut string, err error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = environ, "/"
	if id != nil && os.Geteuid() == 0 && id.UID != 0 {
		credential := &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID)}
		for _, group := range id.Groups {
			credential.Groups = append(credential.Groups, uint32(group))
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
	}
	var stderr postconf.Output
	cmd.Stderr = &stderr
	err = cmd.Run()
	return stderr.String(), err
}

// connects tries a socket with the rights of an identity.
func connects(ctx context.Context, id daemon.Identity, p place) error {
	return as(id, func() error {
		// The socket is made and connected in this goroutine.
		conn, err := new(net.Dialer).DialContext(ctx, p.network, p.address)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
