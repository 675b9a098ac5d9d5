package postfixtest

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Server is a server of another kind, such as a database, that a test runs
// beside Postfix. It ends with the process that started it.
type Server struct {
	process *process
	out     tailBuffer
}

// serverStart bounds the start of a server.
const serverStart = 2 * time.Minute

// StartServer runs cmd in the foreground and returns once ready does not fail any
// more. An error carries what the server printed last.
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

// Stop sends SIGTERM and waits for the end.
func (s *Server) Stop() error { return s.process.stop() }

// Kill ends the server as a crash would.
func (s *Server) Kill() { s.process.kill() }

// Pause stops the server's process group without ending it: connections stay and
// nothing answers.
func (s *Server) Pause() error { return s.group(syscall.SIGSTOP) }

// Resume lets a paused server run on.
func (s *Server) Resume() error { return s.group(syscall.SIGCONT) }

func (s *Server) group(sig syscall.Signal) error {
	if err := syscall.Kill(-s.process.pid(), sig); err != nil {
		return fmt.Errorf("signal %s: %w", s.process.cmd.Path, err)
	}
	return nil
}
