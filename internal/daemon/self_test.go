package daemon

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A daemon that has no room for other connections still answers itself.
func TestSelfFindsRoom(t *testing.T) {
	for _, full := range []WhenFull{Wait, CloseIdle, Refuse} {
		synctest.Test(t, func(t *testing.T) {
			l, self := newFakeListener(), NewSelf()
			busy := make(chan struct{})
			stop, served := serving(t.Context(), append(l.listeners(), self.Listener()), ServeOptions{
				MaxConns: 1, WhenFull: full, DrainTimeout: time.Hour,
				Handler: func(ctx context.Context, c *Conn) {
					if !c.isSelf() {
						<-busy
						return
					}
					echo(ctx, c)
				},
			})
			l.dial(t)
			synctest.Wait()
			l.dial(t) // finds none
			synctest.Wait()
			conn, err := self.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			write(t, conn, "x\n")
			read(t, conn, "self x\n")
			close(busy)
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
			wantClosed(t, conn)
			if _, err := self.Dial(t.Context()); !errors.Is(err, ErrNotServing) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

// Dialling a server that accepts nothing ends.
func TestSelfDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := NewSelf().Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A server that lingers does not close its connections until it is hurried, or
// until the last of them has ended.
func TestServeLingers(t *testing.T) {
	for _, hurried := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newFakeListener()
			hurry := make(chan struct{})
			stop, served := serving(t.Context(), l.listeners(), ServeOptions{
				Handler: echo, DrainTimeout: time.Second, Linger: func() <-chan struct{} { return hurry },
			})
			conn := l.dial(t)
			write(t, conn, "x\n")
			read(t, conn, "unix x\n")
			stop()
			time.Sleep(time.Hour)
			write(t, conn, "x\n") // idle, and not closed
			read(t, conn, "unix x\n")
			begin := time.Now()
			if hurried {
				close(hurry)
				wantClosed(t, conn)
			} else {
				conn.Close()
			}
			if err := <-served; err != nil || time.Since(begin) != 0 {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
		})
	}
}

// A daemon that lingers without connections ends at once.
func TestServeDoesNotLingerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, served := serving(t.Context(), newFakeListener().listeners(), ServeOptions{
			Handler: echo, Linger: func() <-chan struct{} { return make(chan struct{}) },
		})
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// The service manager gets a watchdog message only when the daemon has answered
// itself.
func TestRunAsksItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan error)
		r := start(t.Context(), RunOptions{
			Notifier: Notifier{Watchdog: 40 * time.Second},
			Alive: func(ctx context.Context) error {
				select {
				case err := <-answers:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		})
		r.want(t, "READY=1")
		const alive, silent = "WATCHDOG=1", "the daemon does not answer itself; if this goes on, the service manager starts it again"
		time.Sleep(20 * time.Second)
		r.want(t)
		answers <- nil
		r.want(t, alive)

		time.Sleep(20*time.Second + 10*time.Second)
		r.want(t, silent+": no answer yet")
		time.Sleep(time.Hour) // one question waits, and no other is asked
		r.want(t)
		answers <- nil
		r.want(t, alive, "the daemon answers itself again")

		time.Sleep(10 * time.Second) // the next time to ask
		answers <- net.ErrClosed
		r.want(t, silent+": "+net.ErrClosed.Error())
		time.Sleep(20 * time.Second)
		answers <- net.ErrClosed
		r.want(t) // reported before
		time.Sleep(20 * time.Second)
		answers <- nil
		r.want(t, alive, "the daemon answers itself again")

		time.Sleep(20 * time.Second) // a question is under way when draining begins
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
		r.want(t, "signal received (terminated)", "STOPPING=1", "drained")
	})
}

// A daemon that was replaced does not interrupt its sessions until it is asked to
// stop.
func TestRunHurriesOnceReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hurry := make(chan struct{})
		r := start(t.Context(), RunOptions{
			Restart: func(context.Context) error { return nil },
			Serve:   func(ctx context.Context) error { <-ctx.Done(); <-hurry; return nil },
			Hurry:   func() { close(hurry) },
		})
		r.signals <- syscall.SIGUSR2
		synctest.Wait()
		r.signals <- syscall.SIGTERM
		if code := <-r.code; code != ExitOK {
			t.Errorf("exit code %d", code)
		}
	})
}
