// Package freeport finds ports on 127.0.0.1 for the servers of tests. All packages of tests
// run at the same time, so a port that is free now is not enough: another test could find the
// same one before the server listens.
//
// Invariant: no port is found twice while the process lives that has found it.
package freeport

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
	firstPort = 12400 // iRedMail has 12340
	lastPort  = 31999
	portTries = 200

	busOffset     = 10000 // of the Cluster bus of Redis
	lastRedisPort = lastPort - busOffset
)

var errNoPort = errors.New("no free port on 127.0.0.1")

// Addr returns "127.0.0.1:PORT" where nothing listens now. The port belongs to this
// process until it ends: no other call returns it, in any process of this user. So a
// server can be stopped and started again there.
func Addr() (string, error) {
	port, err := find(firstPort, lastPort)
	return address(port), err
}

// RedisPort is Addr for a Redis server, which listens at a second port in a Cluster: busOffset
// above the first. Both are reserved.
func RedisPort() (string, error) {
	port, err := find(firstPort, lastRedisPort, busOffset)
	return strconv.Itoa(port), err
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// find reserves a port between two, and those that are so much above it.
func find(first, last int, above ...int) (int, error) {
	if err := reserved.open(filepath.Join(os.TempDir(), fmt.Sprint("postern-test-ports-", os.Getuid()))); err != nil {
		return 0, fmt.Errorf("free port: %w", err)
	}
	for range portTries {
		port, found := first+rand.IntN(last-first+1), true
		for _, offset := range append([]int{0}, above...) {
			found = found && reserved.reserve(port+offset) && isFree(port+offset)
		}
		if found {
			return port, nil
		}
	}
	return 0, errNoPort
}

func isFree(port int) bool {
	l, err := net.Listen("tcp", address(port))
	return err == nil && l.Close() == nil
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
