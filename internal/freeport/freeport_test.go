package freeport

import (
	"path/filepath"
	"strconv"
	"testing"
)

// A port belongs to one caller. Each reservations stands for a process.
func TestPortsAreReserved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ports")
	var one, two reservations
	for _, r := range []*reservations{&one, &two} {
		if err := r.open(path); err != nil {
			t.Fatal(err)
		}
	}
	if !one.reserve(firstPort) || one.reserve(firstPort) || two.reserve(firstPort) {
		t.Error("a port is reserved twice")
	}
	if !two.reserve(firstPort+1) || one.reserve(firstPort+1) {
		t.Error("the next port is not reserved alone")
	}
	if err := one.file.Close(); err != nil { // its process ends
		t.Fatal(err)
	}
	if !two.reserve(firstPort) {
		t.Error("the port of a process that has ended stays reserved")
	}
}

func TestAddr(t *testing.T) {
	seen := make(map[string]bool)
	for range 500 { // without a memory of ports, some would come twice
		addr, err := Addr()
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Fatalf("%s came twice", addr)
		}
		seen[addr] = true
	}
}

// The ports of the Cluster bus are reserved with those of the servers.
func TestRedisPort(t *testing.T) {
	taken := make(map[int]bool)
	for range 200 {
		text, err := RedisPort()
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range []int{port, port + busOffset} {
			if taken[one] {
				t.Fatalf("%d came twice", one)
			}
			if taken[one] = true; one > lastPort || reserved.reserve(one) {
				t.Errorf("%d is not reserved", one)
			}
		}
	}
}
