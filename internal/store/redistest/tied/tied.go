// Package tied starts servers for tests. They end when the test's process ends, for
// whatever reason.
package tied

import (
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts a command that the kernel kills when this process ends. The kernel
// (PR_SET_PDEATHSIG) kills it when the thread that started it ends. A thread ends with
// the goroutine that has locked it, so that goroutine waits for the command.
//
// The command has a session of its own: a signal to the group of the tests, such as a
// SIGCONT, must not reach a server that a test has stopped.
func Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		pid := cmd.Process.Pid
		started <- nil
		// WNOWAIT leaves the exit status to the caller's Wait.
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}()
	return <-started
}
