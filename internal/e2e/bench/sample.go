package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// sample is what one load of a server has cost.
type sample struct {
	sent int // requests or mails
	took latencies
	wall time.Duration // until the last reply
	cpu  time.Duration // until the server had nothing left to do
	held
}

// held is what a server and its children held under the load: the highest values.
type held struct{ rss, pss, descriptors float64 } // MiB, MiB, open files

// rate returns the requests a second, or 0 if their time was not measured.
func (s sample) rate() float64 {
	if s.wall == 0 {
		return 0
	}
	return float64(s.sent) / s.wall.Seconds()
}

// micros returns the microseconds of CPU time of one request.
func (s sample) micros() float64 { return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.sent) }

// settleLimit bounds the wait for a server that always has something to do.
const settleLimit = 5 * time.Second

// take runs a load, and counts the CPU time of processes and their children until they
// are idle.
func take(ctx context.Context, pids []int, send func() (sent int, took latencies, wall time.Duration, err error)) (s sample, err error) {
	before, err := treeTime(pids)
	if err != nil {
		return s, err
	}
	watched := watch(pids)
	s.sent, s.took, s.wall, err = send()
	s.held = watched()
	if err != nil {
		return s, err
	}
	settle, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for _, pid := range pids {
		if err := idle(settle, pid); err != nil && settle.Err() == nil {
			return s, err
		}
	}
	after, err := treeTime(pids)
	s.cpu = after - before
	return s, err
}

// watchEvery is seldom, because to look costs time.
const watchEvery = 500 * time.Millisecond

// watch looks at processes until the returned function is called, and once more then.
func watch(pids []int) func() held {
	stop, done := make(chan struct{}), make(chan held)
	go func() {
		var most held
		ticker := time.NewTicker(watchEvery)
		defer ticker.Stop()
		for running := true; running; {
			select {
			case <-ticker.C:
			case <-stop:
				running = false
			}
			now := holds(pids)
			most = held{max(most.rss, now.rss), max(most.pss, now.pss), max(most.descriptors, now.descriptors)}
		}
		done <- most
	}()
	return func() held { close(stop); return <-done }
}

// tree returns processes and their descendants.
func tree(pids []int) (all []int) {
	for _, pid := range pids {
		all = append(append(all, pid), postfixtest.Descendants(pid)...)
	}
	return all
}

// treeTime returns the CPU time of processes and their descendants, including children
// that have ended.
func treeTime(pids []int) (sum time.Duration, err error) {
	for _, pid := range tree(pids) {
		own, err := cpuTime(pid)
		if err != nil {
			continue // a child has ended: its parent has its time
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// See groupTime for the fields.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, field := range fields[16-3 : 18-3] { // cutime, cstime
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("process %d: %w", pid, err)
			}
			own += time.Duration(ticks) * tick
		}
		sum += own
	}
	for _, pid := range pids {
		if _, err := cpuTime(pid); err != nil {
			return 0, err // the server has ended
		}
	}
	return sum, nil
}

// holds returns what processes and their descendants hold. RSS counts shared pages in
// each process, PSS counts them once. A child that has ended holds nothing.
func holds(pids []int) (h held) {
	for _, pid := range tree(pids) {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		h.descriptors += float64(len(open))
		rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		for line := range strings.Lines(string(rollup)) {
			fields := strings.Fields(line)
			if len(fields) < 2 || fields[0] != "Rss:" && fields[0] != "Pss:" {
				continue
			}
			kB, _ := strconv.ParseFloat(fields[1], 64) // the kernel writes a number
			if fields[0] == "Rss:" {
				h.rss += kB / 1024
			} else {
				h.pss += kB / 1024
			}
		}
	}
	return h
}
