package postfixtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Ports are taken from below the range that Linux uses for outgoing connections (32768
// and up). So no connection can take a port between our test of it and the server's
// bind.
const (
	firstPort = 20000
	lastPort  = 31999
	portTries = 200
)

var errNoPort = errors.New("no free port on 127.0.0.1")

// FreeAddr returns "127.0.0.1:PORT" where nothing listens now. The port belongs to this
// process until it ends: no other call returns it, in any process of this user. So a
// server can be stopped and started again there.
func FreeAddr() (string, error) {
	if err := reserved.open(filepath.Join(os.TempDir(), fmt.Sprint("postern-test-ports-", os.Getuid()))); err != nil {
		return "", fmt.Errorf("free port: %w", err)
	}
	for range portTries {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !reserved.reserve(port) {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return "", fmt.Errorf("free port: %w", err)
		}
		return addr, nil
	}
	return "", errNoPort
}

// reserved are the ports of this process.
var reserved reservations

// reservations are locks of single octets in a file that all processes share. The kernel
// releases them when the process ends.
type reservations struct {
	mu   sync.Mutex
	file *os.File
	ours map[int]bool // the kernel does not refuse a lock to its owner
}

// open opens the file, unless it is open.
func (r *reservations) open(path string) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		r.ours = make(map[int]bool)
		r.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	}
	return err
}

// reserve reports whether it has reserved a port.
func (r *reservations) reserve(port int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: int64(port), Len: 1}
	if r.ours[port] || unix.FcntlFlock(r.file.Fd(), unix.F_OFD_SETLK, &lock) != nil {
		return false
	}
	r.ours[port] = true
	return true
}
