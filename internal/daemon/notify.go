package daemon

import (
	"fmt"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Notifier reports the state of the daemon to the service manager, by sd_notify(3).
// The zero value reports nothing.
type Notifier struct {
	// Send delivers one datagram of KEY=value lines; nil drops it.
	Send func(state string) error
	// Watchdog is the time within which the service manager expects the next
	// message; 0 means that it expects none.
	Watchdog time.Duration
}

// SystemdNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Without
// NOTIFY_SOCKET it returns the zero Notifier. It returns an error when one of the
// other two is malformed.
func SystemdNotifier() (Notifier, error) {
	watchdog, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return Notifier{}, fmt.Errorf("service manager: %w", err)
	}
	return Notifier{Watchdog: watchdog, Send: func(state string) error {
		_, err := sd.SdNotify(false, state)
		return err
	}}, nil
}

// Starting reports that the start goes on. It extends the service manager's own limit
// (TimeoutStartSec=): the next message is due within that time.
func (n Notifier) Starting(status string, within time.Duration) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()), status)
}

// Ready reports that connections are answered, also after Reloading.
func (n Notifier) Ready(status string) error { return n.send(sd.SdNotifyReady, status) }

// Reloading reports that the configuration is read again; Ready ends it.
// Type=notify-reload needs the time of CLOCK_MONOTONIC in the message.
func (n Notifier) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("clock_gettime: %w", err)
	}
	usec := now.Nano() / int64(time.Microsecond)
	return n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, usec), "reloading")
}

// Stopping reports that the daemon drains for at most limit. It extends the
// service manager's own limit (TimeoutStopSec=), so that the daemon is not killed
// before.
func (n Notifier) Stopping(limit time.Duration) error {
	return n.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", sd.SdNotifyStopping, limit.Microseconds()), "draining")
}

// MainPID reports which process is the main process from now on. It also restarts
// the time of the watchdog. What is left of it may be less than the new process
// needs until its first message, or nothing when restarts follow each other.
func (n Notifier) MainPID(pid int) error {
	if pid == 0 {
		return nil // one that we did not start
	}
	return n.send(fmt.Sprintf("MAINPID=%d\n%s", pid, sd.SdNotifyWatchdog), "")
}

func (n Notifier) keepAlive() error { return n.send(sd.SdNotifyWatchdog, "") }

func (n Notifier) send(state, status string) error {
	if n.Send == nil {
		return nil
	}
	if status != "" {
		// A line break in an error's text would start a variable of its own.
		status = "STATUS=" + strings.NewReplacer("\n", " ", "\x00", " ").Replace(status)
		state += "\n" + status
	}
	return n.Send(state)
}
