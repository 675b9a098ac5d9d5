package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// servers returns the servers that this program can also run as. They run as separate
// processes, so that their CPU time can be measured separately. Each prints a line with
// its address and serves until its input ends.
func servers() map[string]func(ready func(addr string), done io.Reader) error {
	return map[string]func(func(string), io.Reader) error{
		nullMilterArg: serveNullMilter,
		dnsArg:        serveDNS,
		idleMilterArg: serveIdleMilter,
		dunnoArg:      serveDunno,
		spawnArg:      serveSpawned,
	}
}

// runServer runs one of servers if the arguments ask for it.
func runServer(args []string) (asked bool, err error) {
	if len(args) != 1 {
		return false, nil
	}
	serve, ok := servers()[args[0]]
	if !ok {
		return false, nil
	}
	return true, serve(func(addr string) { fmt.Println(addr) }, os.Stdin)
}

// startServer starts one of servers with the daemons' garbage collector setting.
func startServer(ctx context.Context, arg string) (pid int, addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, "", nil, err
	}
	cmd := exec.CommandContext(ctx, self, arg)
	cmd.Env = append(os.Environ(), "GOGC="+strconv.Itoa(daemonGC))
	return startServerCommand(cmd)
}

// startServerCommand starts one of servers with a prepared command.
func startServerCommand(cmd *exec.Cmd) (pid int, addr string, stop func(), err error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, "", nil, err
	}
	stop = func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		stop()
		return 0, "", nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(string(line[:n])), stop, nil
}

// daemonGC is the GC percent that both daemons set.
const daemonGC = 400
