package main

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestPacedLoad tests that a load at a fixed rate takes the time that it must take, and that
// each request has its reply.
func TestPacedLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buffer := make([]byte, 4096)
				for {
					if _, err := c.Read(buffer); err != nil {
						return
					}
					if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
						return
					}
				}
			}()
		}
	}()
	const requests, every = 1000, 100 * time.Microsecond
	took, actions, wall, err := load{conns: 4, requests: requests, every: every, request: func(int, int) []byte { return bytes.Repeat([]byte("a"), 10) }}.sendLean(t.Context(), path)
	if err != nil || len(took) != requests || actions["DUNNO"] != requests || wall < (requests-1)*every {
		t.Errorf("%d replies in %s, %v, %v", len(took), wall, actions, err)
	}
}
