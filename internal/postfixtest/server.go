package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Server is another server, such as a database, that a test runs beside Postfix. It
// ends with the process that started it.
type Server struct {
	process *process
	out     tailBuffer
}

// serverStart bounds the start of a server.
const serverStart = 2 * time.Minute

// StartServer runs cmd in the foreground and returns when ready returns no error. An
// error includes the end of the server's output.
func StartServer(ctx context.Context, cmd *exec.Cmd, ready func(context.Context) error) (*Server, error) {
	s := new(Server)
	cmd.Stdout, cmd.Stderr = &s.out, &s.out
	var err error
	if s.process, err = startProcess(cmd); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, serverStart)
	defer cancel()
	var last error
	err = poll(ctx, s.process.done, func() bool { last = ready(ctx); return last == nil })
	if err != nil {
		s.Kill()
		return nil, fmt.Errorf("start %s: %w: %w\n%s", cmd.Path, err, last, s.out.String())
	}
	return s, nil
}

// PID returns the process id.
func (s *Server) PID() int { return s.process.pid() }

// Stop sends SIGTERM and waits for the end of the process.
func (s *Server) Stop() error { return s.process.stop() }

// Kill ends the server like a crash.
func (s *Server) Kill() { s.process.kill() }

// Pause stops the server and its children without ending them: connections stay open,
// but nothing answers. It returns when all their threads have stopped. On a busy
// machine this may take a moment.
func (s *Server) Pause() error {
	if err := s.all(syscall.SIGSTOP); err != nil {
		return err
	}
	for _, pid := range append([]int{s.process.pid()}, Descendants(s.process.pid())...) {
		for runs(pid) {
			runtime.Gosched()
		}
	}
	return nil
}

// runs reports whether a thread of a process is not stopped yet.
func runs(pid int) bool {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // none: the process has ended
	for _, file := range files {
		text, _ := os.ReadFile(file)
		// proc(5): the state follows the name, which is in parentheses.
		at := strings.LastIndex(string(text), ") ")
		if at >= 0 && !strings.ContainsAny(string(text)[at+2:at+3], "TtZX") {
			return true
		}
	}
	return false
}

// Resume continues a paused server.
func (s *Server) Resume() error { return s.all(syscall.SIGCONT) }

// all signals the server and its descendants. Some servers use a process with its own
// group for each connection.
func (s *Server) all(sig syscall.Signal) error {
	for _, pid := range append([]int{s.process.pid()}, Descendants(s.process.pid())...) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s: %w", s.process.cmd.Path, err)
		}
	}
	return nil
}

// Descendants returns the processes below pid in /proc.
func Descendants(pid int) []int {
	// A process without such files has ended meanwhile.
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var all []int
	for _, file := range files {
		text, _ := os.ReadFile(file)
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), Descendants(child)...)
			}
		}
	}
	return all
}
