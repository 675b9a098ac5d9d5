package postfixtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
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

// FreeAddr returns "127.0.0.1:PORT" where nothing listens now. Another test process may
// take the port before the caller does. This is rare, because the port is random.
func FreeAddr() (string, error) {
	for range portTries {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort+1)))
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
