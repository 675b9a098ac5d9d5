package daemon

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	gcPercent      = 400       // collects a quarter as often; the heap of a daemon is small
	memoryLimit    = 1 << 30   // bytes
	cgroupShare    = 0.8       // the rest is for what the Go heap does not count
	outsideHeap    = 80 << 20  // bytes, which have to be left at least: the records that are remembered, and SQLite's caches
	wholeStores    = 512 << 20 // bytes of a memory limit from which on stores have all their entries
	leastMemory    = 192 << 20 // bytes of a cgroup
	besideStore    = 128 << 20 // bytes of the heap for everything but a store
	cgroupMount    = "sys/fs/cgroup"
	unlimitedBytes = 1 << 62 // cgroup v1 spells "no limit" as a number near 2^63
)

// Memory describes how the garbage collector was tuned.
type Memory struct {
	GCPercent int   // 0: left to GOGC
	Limit     int64 // bytes, 0: left to GOMEMLIMIT
}

// Small reports whether the cgroup has less than 192 MiB, which is not enough for a daemon
// with its stores in files and under load.
func (m Memory) Small() bool { return m.Limit > 0 && m.Limit < leastMemory-outsideHeap }

// TuneMemory sets the GC percent to 400, or less for a large heap. It sets a soft
// memory limit of 1 GiB, or what the process's cgroup leaves beside what is outside the
// heap if that is less: 80 % of its limit, below 400 MiB all but 80 MiB, at least half.
// So there are few collections in normal times, and under a flood there are many
// instead of the OOM killer. What the operator set with GOGC or GOMEMLIMIT stays.
func TuneMemory() Memory {
	m := planMemory(os.DirFS("/"), os.Getenv)
	if m.GCPercent > 0 {
		debug.SetGCPercent(m.GCPercent)
		keepHeadroom()
	}
	if m.Limit > 0 {
		debug.SetMemoryLimit(m.Limit)
	}
	return m
}

func planMemory(root fs.FS, getenv func(string) string) Memory {
	var m Memory
	if getenv("GOGC") == "" {
		m.GCPercent = gcPercent
	}
	m.Limit = limitFor(root, getenv, 0)
	return m
}

// AllowMemory raises the memory limit that TuneMemory has set, for a store that may take
// this many octets. It returns how many the store can have under the limit in force.
func AllowMemory(store int64) (room int64) {
	if limit := limitFor(os.DirFS("/"), os.Getenv, store); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
	return roomFor(store, debug.SetMemoryLimit(-1))
}

// roomFor returns what a store that wants this many octets can have of a limit: all but
// besideStore, at least half.
func roomFor(store, limit int64) int64 {
	return min(store, max(limit/2, limit-besideStore))
}

// Share returns how many of the most entries of a store there may be under the memory limit
// in force: all of them from 512 MiB on, and fewer in proportion below.
func Share(most int) int { return shareOf(most, debug.SetMemoryLimit(-1)) }

func shareOf(most int, limit int64) int {
	return int(int64(most) * min(limit, wholeStores) / wholeStores)
}

// limitFor returns the memory limit of a daemon with a store of a size, 0 if it is left
// to GOMEMLIMIT. Half of memoryLimit is for a store of the usual size.
func limitFor(root fs.FS, getenv func(string) string, store int64) int64 {
	if getenv("GOMEMLIMIT") != "" {
		return 0
	}
	limit := memoryLimit + max(store-memoryLimit/2, 0)
	if group := cgroupLimit(root); group < math.MaxInt64 {
		limit = min(limit, int64(float64(group)*cgroupShare), max(group-outsideHeap, group/2))
	}
	return limit
}

// cgroupLimit returns the lowest memory limit of the process's cgroup and its
// parents, cgroups(7), for versions 2 and 1. It is MaxInt64 when there is none.
func cgroupLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	lines, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(lines)) {
		// hierarchy-ID:controllers:path, where version 2 is "0::path"
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			limit = min(limit, lowestLimit(root, cgroupMount, fields[2], "memory.max"))
		case fields[1] == "memory":
			limit = min(limit, lowestLimit(root, cgroupMount+"/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	return limit
}

// lowestLimit returns the lowest limit of group and its parents. In a container
// the path may be that of the host, and then only the top of the mount exists.
func lowestLimit(root fs.FS, mount, group, file string) int64 {
	limit := int64(math.MaxInt64)
	for group = path.Clean("/" + group); ; group = path.Dir(group) {
		limit = min(limit, readLimit(root, path.Join(mount, group, file)))
		if group == "/" {
			return limit
		}
	}
}

func readLimit(root fs.FS, name string) int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return math.MaxInt64
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || limit <= 0 || limit >= unlimitedBytes {
		return math.MaxInt64 // "max" among others
	}
	return limit
}
