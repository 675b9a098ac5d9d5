package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/store/disktest"
)

const (
	storm   = 20  // reloads, or tables written, of one fault
	stalled = 100 // connections that send half a request and wait
)

// fault breaks something, and heal repairs it.
type fault func(context.Context) (heal func() error, err error)

// faults returns the faults that every daemon survives.
func (s *site) faults() map[string]fault {
	all := map[string]fault{
		"Redis is killed":         s.redisKilled,
		"Redis is paused":         s.redisPaused,
		"Redis refuses to write":  s.redisUnwritable,
		"Redis is slow":           s.redisSlow,
		"a table server hangs":    s.tableHangs,
		"the disk is full":        s.diskFull,
		"DNS fails":               s.dnsFault(resolvertest.ServFail),
		"DNS is silent":           s.dnsFault(resolvertest.Silence),
		"DNS sends garbage":       s.dnsFault(resolvertest.Garbage),
		"DNS is forged":           s.dnsFault(resolvertest.WrongID),
		"DNS goes in circles":     s.dnsFault(resolvertest.CNAMELoop),
		"DNS is slow":             s.dnsSlow,
		"reloads":                 s.reloads,
		"a table is rewritten":    s.tables,
		"a table is broken":       s.brokenTable,
		"clients stall":           s.stalled,
		"descriptors are few":     s.fewDescriptors,
		"clients send other data": s.noise,
	}
	for _, one := range s.servers {
		all[one.name+" is killed"] = one.isKilled
		all[one.name+" hangs"] = one.hangs
	}
	return all
}

// kills returns the faults that end a daemon.
func (s *site) kills() map[string]fault {
	return map[string]fault{
		"policyd is killed":     s.killed(s.policyd),
		"milterd is killed":     s.killed(s.milterd),
		"the limits are killed": s.killed(s.limits),
	}
}

func (t *tableServer) isKilled(context.Context) (func() error, error) {
	t.server.Kill()
	return func() error { t.server.Start(); return nil }, nil
}

func (t *tableServer) hangs(context.Context) (func() error, error) {
	t.server.Pause()
	return func() error { t.server.Resume(); return nil }, nil
}

func nothing() error { return nil }

func (s *site) redisKilled(ctx context.Context) (func() error, error) {
	s.killRedis()
	return func() error { return s.startRedis(ctx) }, nil
}

func (s *site) redisPaused(context.Context) (func() error, error) {
	resume := func() error { return s.redis.Process.Signal(syscall.SIGCONT) }
	return resume, s.redis.Process.Signal(syscall.SIGSTOP)
}

// redisUnwritable has Redis answer reads and refuse writes, as when it is full.
func (s *site) redisUnwritable(ctx context.Context) (func() error, error) {
	replicas := func(ctx context.Context, n string) error {
		out, err := exec.CommandContext(ctx, "redis-cli", "-p", s.redisPort, "config", "set", "min-replicas-to-write", n).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "OK" {
			return fmt.Errorf("redis-cli: %w: %s", err, out)
		}
		return nil
	}
	return func() error { return replicas(ctx, "0") }, replicas(ctx, "1")
}

func (s *site) redisSlow(context.Context) (func() error, error) {
	s.network.SetDelay(50*time.Millisecond, 300*time.Millisecond)
	return func() error { s.network.SetDelay(0, 0); return nil }, nil
}

func (s *site) tableHangs(context.Context) (func() error, error) {
	s.table.hangs.Lock()
	return func() error { s.table.hangs.Unlock(); return nil }, nil
}

func (s *site) diskFull(context.Context) (func() error, error) {
	if err := disktest.Fill(s.diskDir()); err != nil {
		return nothing, err
	}
	return func() error { return disktest.Free(s.diskDir()) }, nil
}

// killed kills a daemon in the middle of its work and starts it again.
func (s *site) killed(d *daemon) fault {
	return func(ctx context.Context) (_ func() error, err error) {
		s.killings.Add(1)
		d.Kill()
		d.Daemon, err = d.start(ctx)
		s.killings.Add(1)
		return nothing, err
	}
}

// fewDescriptors leaves the daemons hardly more descriptors than they have open.
func (s *site) fewDescriptors(ctx context.Context) (func() error, error) {
	now, err := s.figures(ctx)
	if err != nil {
		return nothing, err
	}
	var heals []func() error
	heal := func() (err error) {
		for _, one := range heals {
			err = errors.Join(err, one())
		}
		return err
	}
	const spare = 8
	for i, d := range s.daemons() {
		var before unix.Rlimit
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, nil, &before); err != nil {
			return heal, errors.Join(err, heal())
		}
		heals = append(heals, func() error { return unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &before, nil) })
		less := unix.Rlimit{Cur: uint64(now[i].files) + spare, Max: before.Max}
		if err := unix.Prlimit(d.PID(), unix.RLIMIT_NOFILE, &less, nil); err != nil {
			return heal, errors.Join(err, heal())
		}
	}
	return heal, nil
}

func (s *site) dnsFault(how resolvertest.Fault) fault {
	return func(context.Context) (func() error, error) {
		s.dns.Fail("*", how)
		return func() error { s.dns.Fail("*", resolvertest.Healthy); return nil }, nil
	}
}

func (s *site) dnsSlow(context.Context) (func() error, error) {
	s.dns.SetDelay("*", 300*time.Millisecond)
	return func() error { s.dns.SetDelay("*", 0); return nil }, nil
}

func (s *site) reloads(context.Context) (func() error, error) {
	var err error
	for range storm {
		for _, d := range s.daemons() {
			err = errors.Join(err, d.Signal(syscall.SIGHUP))
		}
	}
	return nothing, err
}

func (s *site) tables(context.Context) (func() error, error) {
	for i := range storm {
		if err := s.write("owners", owners+fmt.Sprintf("other%d@home.example user%d\n", i, i)); err != nil {
			return nothing, err
		}
	}
	return nothing, nil
}

// brokenTable writes a table that has a line without a value. The daemon must keep the
// old table.
func (s *site) brokenTable(context.Context) (func() error, error) {
	return func() error { return s.write("owners", owners) }, s.write("owners", owners+"no-value-here\n")
}

func (s *site) stalled(context.Context) (func() error, error) {
	var all []net.Conn
	closeAll := func() error {
		for _, conn := range all {
			_ = conn.Close()
		}
		return nil
	}
	for range stalled {
		for name, half := range map[string]string{"policy": "request=smtpd_access_", "verify": "\x00\x00\x00\x0dO\x00", "sign": ""} {
			conn, err := net.Dial("unix", s.path(name))
			if err == nil {
				all = append(all, conn)
				_, err = io.WriteString(conn, half)
			}
			if err != nil {
				return closeAll, errors.Join(err, closeAll())
			}
		}
	}
	return closeAll, nil
}

func (s *site) noise(context.Context) (func() error, error) {
	for _, data := range []string{"GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 1<<16), "\xff\xff\xff\xff", "\n\n\n", "request=\x00\n\n"} {
		for _, name := range []string{"policy", "verify", "sign"} {
			conn, err := net.Dial("unix", s.path(name))
			if err != nil {
				return nothing, err
			}
			_, _ = io.WriteString(conn, data) // it may be closed meanwhile
			_ = conn.Close()
		}
	}
	return nothing, nil
}
