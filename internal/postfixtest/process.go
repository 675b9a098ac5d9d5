package postfixtest

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM.
const stopGrace = 20 * time.Second

// process is a child with its own session that ends with us.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has ended and err is set
	err  error         // what Wait returned
}

// startProcess starts cmd and its guard.
func startProcess(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	release, err := startGuard(p.pid())
	go func() {
		p.err = cmd.Wait()
		if release != nil {
			release()
		}
		close(p.done)
	}()
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// guardScript waits for a line. If its input ends without one, the process that started
// it has died, and it ends the process group $0.
const guardScript = `read -r line || kill -TERM "-$0"`

// startGuard ends the process group of pid when this process ends in any way. PDEATHSIG
// would be simpler, but the kernel resets it when a process changes its credentials,
// which master(8) does. release ends the guard.
func startGuard(pid int) (release func(), err error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, strconv.Itoa(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() {
		// The guard may have ended already.
		_, _ = in.Write([]byte("home\n"))
		_ = cmd.Wait()
	}, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop sends SIGTERM and, after stopGrace, SIGKILL. It ends the rest of the process
// group. It returns how the process ended.
func (p *process) stop() error {
	err := p.signal(syscall.SIGTERM)
	if err == nil && !p.endsWithin(stopGrace) {
		err = fmt.Errorf("%s (pid %d) still ran %s after SIGTERM", p.cmd.Path, p.pid(), stopGrace)
	}
	p.kill()
	return errors.Join(err, p.err)
}

// kill ends the process and its group at once.
func (p *process) kill() {
	// ESRCH is expected: no process is left.
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.done
}

// signal sends sig to the process, not to its group. It is not an error if the process
// has ended.
func (p *process) signal(sig syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s (pid %d): %w", p.cmd.Path, p.pid(), err)
	}
	return nil
}

func (p *process) endsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// tailBuffer keeps the last bytes written to it.
type tailBuffer struct {
	mu  sync.Mutex
	buf []byte
}

// maxTail bounds a tailBuffer.
const maxTail = 16 << 10

func (t *tailBuffer) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - maxTail; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.buf))
}
