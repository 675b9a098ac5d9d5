package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rounds is how often each of two sides is measured in turn.
const rounds = 5

// cpuTime returns the user and system time that a process has used so far.
func cpuTime(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): the clock of a process is computed from its id.
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// used runs f and returns the CPU time that the process used meanwhile.
func used(pid int, f func() error) (time.Duration, error) {
	before, err := cpuTime(pid)
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := cpuTime(pid)
	return after - before, err
}

// idle waits until processes and their children use at most a hundredth of a core for
// some time, because they may have work left, such as writing records.
func idle(ctx context.Context, pids []int, rest time.Duration) error {
	for {
		before, err := treeTime(pids)
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rest):
		}
		if after, err := treeTime(pids); err != nil || after-before < rest/100 {
			return err
		}
	}
}

// resident returns the memory of a process that is in RAM, in MiB.
func resident(pid int) (float64, error) { return memory(pid, "VmRSS:") }

// peak returns the maximum of resident since the start, or since resetPeak.
func peak(pid int) (float64, error) { return memory(pid, "VmHWM:") }

// resetPeak sets peak to the current value of resident.
func resetPeak(pid int) error {
	const peakRSS = "5" // proc(5), clear_refs
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte(peakRSS), 0)
}

// memory returns one memory figure of a process, in MiB.
func memory(pid int, name string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kB / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, name)
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// spread returns the range of the measurements as text.
func spread(values []float64) string {
	return fmt.Sprintf("%.2f–%.2f", slices.Min(values), slices.Max(values))
}

const echoArg = "-echo"

// policyEchoSuffix is the suffix of the policy echo's path.
const policyEchoSuffix = ".policy"

// echo is a Go server that does the minimum with the requests. On path it writes back
// all input. On path+policyEchoSuffix it reads lines up to the empty one and answers
// like a policy server. It ends with the process that started it.
func echo(path string) {
	ended := make(chan error)
	for at, serve := range map[string]func(net.Conn) error{path: echoBytes, path + policyEchoSuffix: echoPolicy} {
		go func() { ended <- echoOn(at, serve) }()
	}
	fmt.Fprintln(os.Stderr, <-ended)
	os.Exit(1)
}

// echoOn serves each connection until it ends.
func echoOn(path string, serve func(net.Conn) error) error {
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	return serveAll(listener, serve)
}

// serveAll serves each connection to a listener, until the listener is closed.
func serveAll(listener net.Listener, serve func(net.Conn) error) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = serve(conn) // the client has gone
		}()
	}
}

// serveUntil serves each connection to a listener until done ends. The process ends then.
func serveUntil(done io.Reader, listener net.Listener, serve func(net.Conn) error) error {
	go serveAll(listener, serve)
	_, err := io.Copy(io.Discard, done)
	return err
}

func echoBytes(conn net.Conn) error {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func echoPolicy(conn net.Conn) error {
	lines := bufio.NewReaderSize(conn, 4096)
	reply := []byte("action=DUNNO\n\n")
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) > 1 {
			continue
		}
		if _, err := conn.Write(reply); err != nil {
			return err
		}
	}
}

// startEcho runs echo as a separate process. stop ends it.
func startEcho(ctx context.Context, path string) (pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.Command(self, echoArg, path)
	cmd.Env = append(os.Environ(), "GOGC=400")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if err := errors.Join(waitSocket(ctx, path), waitSocket(ctx, path+policyEchoSuffix)); err != nil {
		stop()
		return 0, nil, err
	}
	return cmd.Process.Pid, stop, nil
}

// waitSocket returns when a server accepts connections on path.
func waitSocket(ctx context.Context, path string) error {
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens on %s: %w", path, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
