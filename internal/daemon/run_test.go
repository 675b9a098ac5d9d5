package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// running is a Run in a bubble of synctest, with everything it does in order.
type running struct {
	signals chan os.Signal
	changes chan string
	code    chan int

	mu  sync.Mutex
	did []string
}

func (r *running) do(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.did = append(r.did, s)
}

// start fills in what o lacks and starts Run.
func start(ctx context.Context, o RunOptions) *running {
	r := &running{signals: make(chan os.Signal, signalQueue), changes: make(chan string, 8), code: make(chan int, 1)}
	o.Signals, o.Changes = r.signals, r.changes
	o.Report = func(e Event) {
		s := e.Kind.String()
		if e.Cause != "" {
			s += " (" + e.Cause + ")"
		}
		if e.Err != nil {
			s += ": " + e.Err.Error()
		}
		r.do(s)
	}
	if o.Notifier.Send == nil {
		o.Notifier.Send = func(state string) error {
			first, _, _ := strings.Cut(state, "\n")
			r.do(first)
			return nil
		}
	}
	if o.Serve == nil {
		o.Serve = func(ctx context.Context) error { <-ctx.Done(); return nil }
	}
	go func() { r.code <- Run(ctx, o) }()
	return r
}

func (r *running) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !reflect.DeepEqual(r.did, want) {
		t.Errorf("did\n\t%s\nwant\n\t%s", strings.Join(r.did, "\n\t"), strings.Join(want, "\n\t"))
	}
	r.did = nil
}

func TestRunStops(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t.Context(), RunOptions{})
			r.want(t, "READY=1")
			r.signals <- sig
			if code := <-r.code; code != ExitOK {
				t.Errorf("exit code %d", code)
			}
			r.want(t, "signal received ("+sig.String()+")", "STOPPING=1", "drained")
		})
	}
}

func TestRunStopsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := start(ctx, RunOptions{})
		r.want(t, "READY=1")
		cancel()
		if code := <-r.code; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
		r.want(t, "STOPPING=1", "drained")
	})
}

func TestRunSecondSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := start(t.Context(), RunOptions{
			Serve:      func(context.Context) error { <-release; return nil },
			ReopenLogs: func() error { return errors.New("disk full") },
		})
		r.want(t, "READY=1")
		r.signals <- syscall.SIGTERM
		r.want(t, "signal received (terminated)", "STOPPING=1")
		r.signals <- syscall.SIGHUP // logs still rotate
		r.want(t, "reopening the log failed: disk full")
		r.signals <- syscall.SIGINT
		if code := <-r.code; code != ExitFailed {
			t.Errorf("exit code %d", code)
		}
		r.want(t, "second signal, stopping at once (interrupt)")
		close(release)
	})
}

func TestRunServeFails(t *testing.T) {
	tests := []struct {
		name  string
		serve func(context.Context) error
		want  string
	}{
		{"by itself", func(context.Context) error { return errors.New("listener broke") }, "serving failed: listener broke"},
		{"without a reason", func(context.Context) error { return nil }, "serving failed: serving ended without being asked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t.Context(), RunOptions{Serve: tt.serve})
				if code := <-r.code; code != ExitFailed {
					t.Errorf("exit code %d", code)
				}
				r.want(t, "READY=1", "STOPPING=1", tt.want)
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := start(t.Context(), RunOptions{Serve: func(ctx context.Context) error { <-ctx.Done(); return ErrHandlersStuck }})
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitFailed {
			t.Errorf("exit code %d", code)
		}
		r.want(t, "READY=1", "signal received (terminated)", "STOPPING=1", "serving failed: handlers did not end")
	})
}

func TestRunReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reopened, reloads int
		fail := errors.New("policyd.toml:3: unknown key")
		r := start(t.Context(), RunOptions{
			ReopenLogs: func() error { reopened++; return nil },
			Reload: func(_ context.Context, cause string) error {
				reloads++
				if cause == "/etc/bad" {
					return fail
				}
				return nil
			},
		})
		r.want(t, "READY=1")
		r.signals <- syscall.SIGHUP
		r.want(t, "signal received (hangup)", "RELOADING=1", "reloaded (SIGHUP)", "READY=1")
		r.changes <- "/etc/good"
		r.want(t, "RELOADING=1", "reloaded (/etc/good)", "READY=1")
		r.changes <- "/etc/bad"
		r.want(t, "RELOADING=1", "reload failed, the old configuration stays (/etc/bad): policyd.toml:3: unknown key", "READY=1")
		close(r.changes) // a watcher that ended
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitOK || reopened != 1 || reloads != 3 {
			t.Errorf("exit code %d, %d times reopened, %d reloads", code, reopened, reloads)
		}
	})
}

func TestRunReloadIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t.Context(), RunOptions{
			Reload: func(ctx context.Context, cause string) error {
				select {
				case <-time.After(time.Minute):
					return nil
				case <-ctx.Done():
					time.Sleep(time.Second) // to clean up
					return ctx.Err()
				}
			},
		})
		for range 5 { // a burst during one reload asks for one more
			r.signals <- syscall.SIGHUP
		}
		const hangup = "signal received (hangup)"
		r.want(t, "READY=1", hangup, "RELOADING=1", hangup, hangup, hangup, hangup)
		time.Sleep(time.Minute)
		r.want(t, "reloaded (SIGHUP)", "READY=1", "RELOADING=1")
		begin := time.Now()
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
		r.want(t, "signal received (terminated)", "STOPPING=1", "drained")
		if took := time.Since(begin); took != time.Second {
			t.Errorf("stopping waited %v for the reload", took)
		}
	})
}

func TestRunKeepsWatchdogQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := map[string]int{}
		r := start(t.Context(), RunOptions{
			Notifier: Notifier{Watchdog: 10 * time.Second, Send: func(state string) error {
				sent[state]++
				return nil
			}},
			Serve: func(ctx context.Context) error { <-ctx.Done(); time.Sleep(30*time.Second + 1); return nil },
		})
		time.Sleep(30*time.Second + 1)
		r.signals <- syscall.SIGTERM // draining is watched, too
		<-r.code
		if sent["WATCHDOG=1"] != 12 {
			t.Errorf("sent %v", sent)
		}
	})
}

func TestRunWithoutManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t.Context(), RunOptions{
			Notifier: Notifier{Send: func(string) error { return errors.New("no such socket") }},
		})
		r.signals <- syscall.SIGHUP // without Reload nothing happens
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
		const failed = "notifying the service manager failed: no such socket"
		r.want(t, failed, "signal received (hangup)", "signal received (terminated)", failed, "drained")
	})
}

// signalsChild is a daemon that prints its signals.
func signalsChild(w io.Writer) error {
	signals := Signals()
	code := Run(context.Background(), RunOptions{
		Signals: signals,
		Notifier: Notifier{Send: func(state string) error {
			_, err := fmt.Fprintln(w, strings.ReplaceAll(state, "\n", " "))
			return err
		}},
		Serve:  func(ctx context.Context) error { <-ctx.Done(); return nil },
		Reload: func(_ context.Context, cause string) error { _, err := fmt.Fprintln(w, "reload", cause); return err },
	})
	// Nothing reads this pipe any more: SIGPIPE must not end the process.
	_, err := fmt.Fprintln(os.Stderr, "to nobody")
	if !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("writing to a closed pipe: %w", err)
	}
	_, err = fmt.Fprintln(w, "exit", code)
	return err
}

func TestRunInProcess(t *testing.T) {
	cmd := child(t, "signals")
	reader, closed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer closed.Close()
	cmd.Stderr = closed
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("got %q, %v; want %q", lines.Text(), lines.Err(), want)
		}
	}
	send := func(sig os.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	expect("READY=1 STATUS=serving")
	send(syscall.SIGHUP)
	expect("RELOADING=1 MONOTONIC_USEC=")
	expect("reload SIGHUP")
	expect("READY=1")
	send(syscall.SIGTERM)
	expect("STOPPING=1 EXTEND_TIMEOUT_USEC=")
	expect("exit 0")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
