package soak

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// table is a socketmap server with an empty table. While it hangs, it takes questions and
// answers none.
type table struct {
	listener net.Listener
	hangs    sync.RWMutex // held for writing while it does
}

func startTable(path string) (*table, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	t := &table{listener: l}
	go t.serve() // ends with close
	return t, nil
}

func (t *table) close() { _ = t.listener.Close() }

func (t *table) serve() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return
		}
		go t.answer(conn) // ends with the connection, whose client is a daemon of the site
	}
}

// answer answers netstrings, "N:map key,".
func (t *table) answer(conn net.Conn) {
	defer conn.Close()
	for in := bufio.NewReader(conn); ; {
		length, err := in.ReadString(':')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
		if err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, in, int64(n)+1); err != nil {
			return
		}
		t.hangs.RLock()
		_, err = io.WriteString(conn, "9:NOTFOUND ,")
		t.hangs.RUnlock()
		if err != nil {
			return
		}
	}
}
