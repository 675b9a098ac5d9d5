// Package tied starts servers of tests that end with the process, whatever ends it.
package tied

import (
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start starts a command that the kernel kills when this process ends. For the
// kernel (PR_SET_PDEATHSIG) that is the end of the thread that started it, and a
// thread ends with a goroutine that has locked it: so this one waits for the command.
func Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
