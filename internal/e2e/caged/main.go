// Command caged tries what a daemon of Postern must not be able to do. It prints a line
// for each try: its name, and "done" or the error. It runs in place of a daemon, in the
// sandbox of the daemon's unit.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Paths that the test has prepared. All users may read the first and write to the
// second. The third is a program that prints its user; it belongs to root and has the
// set-user-ID bit.
const (
	secretFile = "/home/bob/readable"
	openFolder = "/srv/open"
	setUIDTool = "/usr/local/bin/set-uid-id"
	ownFolder  = "/var/lib/postern"
	keyFolder  = "/etc/postern/dkim/example.org"
)

func main() {
	for _, try := range []struct {
		name string
		do   func() error
	}{
		{"write-own-folder", func() error { return write(ownFolder + "/caged") }},
		{"run-alarm-command", runAlarm},
		{"read-home", func() error { _, err := os.ReadFile(secretFile); return err }},
		{"list-home", listHome},
		{"write-elsewhere", func() error { return write(openFolder + "/caged") }},
		{"write-settings", func() error { return write("/etc/postern/caged") }},
		{"write-keys", func() error { return write(keyFolder + "/caged") }},
		{"write-program", func() error { return write("/usr/sbin/caged") }},
		{"raw-socket", func() error { return socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP) }},
		{"packet-socket", func() error { return socket(unix.AF_PACKET, unix.SOCK_RAW, 0) }},
		{"netlink-socket", func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW, 0) }},
		{"become-root", func() error { return unix.Setuid(0) }},
		{"run-set-uid-program", runSetUID},
		{"make-set-uid-program", makeSetUID},
		{"write-and-execute-memory", writeExecute},
		{"make-memory-executable", makeExecutable},
		{"new-user-namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"see-other-processes", func() error { _, err := os.ReadFile("/proc/1/status"); return err }},
		{"real-time", realTime},
		{"kernel-setting", func() error { return open("/proc/sys/kernel/domainname") }},
		{"kernel-memory", func() error { return open("/dev/mem") }},
		{"mount", func() error { return unix.Mount("none", ownFolder, "tmpfs", 0, "") }},
	} {
		result := "done"
		if err := try.do(); err != nil {
			result = err.Error()
		}
		fmt.Printf("%s: %s\n", try.name, result)
	}
}

func write(path string) error {
	err := os.WriteFile(path, []byte("caged\n"), 0o600)
	if err == nil {
		err = os.Remove(path)
	}
	return err
}

// open opens an existing file for writing, but writes nothing.
func open(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}

func listHome() error {
	entries, err := os.ReadDir("/home")
	if err == nil && len(entries) == 0 {
		err = errors.New("nothing is there")
	}
	return err
}

func socket(family, kind, protocol int) error {
	fd, err := unix.Socket(family, kind, protocol)
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func runSetUID() error {
	out, err := exec.Command(setUIDTool, "-u").Output()
	if who := strings.TrimSpace(string(out)); err == nil && who != "0" {
		err = fmt.Errorf("it runs as %s", who)
	}
	return err
}

func makeSetUID() error {
	path := ownFolder + "/caged"
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		return err
	}
	return errors.Join(unix.Chmod(path, unix.S_ISUID|0o755), os.Remove(path))
}

func writeExecute() error {
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = unix.Munmap(memory)
	}
	return err
}

func makeExecutable() error {
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	return errors.Join(unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(memory))
}

// realTime requests real-time scheduling, which other processes must give way to.
func realTime() error {
	priority := int32(1)
	const fifo = 1
	if _, _, e := unix.Syscall(unix.SYS_SCHED_SETSCHEDULER, 0, fifo, uintptr(unsafe.Pointer(&priority))); e != 0 {
		return e
	}
	return nil
}

// runAlarm runs a script in the same way as alarm-command. The script reads standard
// input, runs programs, writes to the daemon's folder and logs.
func runAlarm() error {
	const alarm = `{"msg":"alarm"}`
	script := exec.Command("/bin/sh", "-c", `read -r line && printf '%s' "$line" >`+ownFolder+`/alarm && logger -t caged "$line" && test -S /dev/log`)
	script.Stdin = strings.NewReader(alarm + "\n")
	script.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out, err := script.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	got, err := os.ReadFile(ownFolder + "/alarm")
	if err == nil && string(got) != alarm {
		err = fmt.Errorf("it wrote %q", got)
	}
	return errors.Join(err, os.Remove(ownFolder+"/alarm"))
}
