package main

import (
	"cmp"
	"context"
	"errors"
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
type held struct{ rss, pss, descriptors, goroutines float64 } // MiB, MiB, open files

// rate returns the requests a second, or 0 if their time was not measured.
func (s sample) rate() float64 {
	if s.wall == 0 {
		return 0
	}
	return float64(s.sent) / s.wall.Seconds()
}

// micros returns the microseconds of CPU time of one request.
func (s sample) micros() float64 { return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.sent) }

const (
	// usualRest is longer than all pauses between the writes of Postern's stores.
	usualRest = 1200 * time.Millisecond
	// settleLimit bounds the wait for a server that always has something to do.
	settleLimit = 5 * time.Second
)

// subject is a server that is measured.
type subject struct {
	pids []int // whose children count too; none for a floor
	// rest is the longest pause before it continues with work that is left, such as
	// writing to a database; 0 for usualRest.
	rest time.Duration
	// metrics is the socket that tells the number of goroutines; "" if they are not asked
	// for.
	metrics string
}

// take runs a load, and counts the CPU time of the server until it has nothing left to
// do.
func (of subject) take(ctx context.Context, send func() (sent int, took latencies, wall time.Duration, err error)) (s sample, err error) {
	before, err := treeTime(of.pids)
	if err != nil {
		return s, err
	}
	watched := of.watch(ctx)
	s.sent, s.took, s.wall, err = send()
	most, watchErr := watched()
	s.held = most
	if err := errors.Join(err, watchErr); err != nil {
		return s, err
	}
	rest := cmp.Or(of.rest, usualRest)
	settle, cancel := context.WithTimeout(ctx, rest+settleLimit)
	defer cancel()
	if err := idle(settle, of.pids, rest); err != nil && settle.Err() == nil {
		return s, err
	}
	after, err := treeTime(of.pids)
	s.cpu = after - before
	return s, err
}

// watchEvery is seldom, because to look costs time.
const watchEvery = 500 * time.Millisecond

// watch looks at a server until the returned function is called, and once more then.
func (of subject) watch(ctx context.Context) func() (held, error) {
	stop, done := make(chan struct{}), make(chan held)
	var failed error
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
			now := holds(of.pids)
			if running && of.metrics != "" { // the connections are closed at the end
				values, err := postfixtest.Scrape(ctx, of.metrics)
				now.goroutines, failed = values["go_goroutines"], errors.Join(failed, err)
			}
			most = held{max(most.rss, now.rss), max(most.pss, now.pss), max(most.descriptors, now.descriptors), max(most.goroutines, now.goroutines)}
		}
		done <- most
	}()
	return func() (held, error) { close(stop); most := <-done; return most, failed }
}

// tree returns processes and their descendants.
func tree(pids []int) (all []int) {
	for _, pid := range pids {
		all = append(append(all, pid), postfixtest.Descendants(pid)...)
	}
	return all
}

// tick is the unit of CPU times in /proc (USER_HZ).
const tick = time.Second / 100

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
		// proc(5): the first field after the name in parentheses is the third one.
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
