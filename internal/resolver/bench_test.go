package resolver_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// serveEnv makes the test binary a DNS server until its input ends, so that
// the benchmarks measure the resolver's process alone.
const serveEnv = "RESOLVER_BENCH_SERVE"

func TestMain(m *testing.M) {
	if os.Getenv(serveEnv) == "" {
		os.Exit(m.Run())
	}
	debug.SetGCPercent(daemonGC)
	srv, err := resolvertest.Start("*.wild.org. IN TXT \"v=spf1 -all\"\n*.wild.org. IN A 127.0.0.2\n")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(srv.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	srv.Close()
}

// daemonGC is the GC percent that both daemons set.
const daemonGC = 400

// fakeServer starts the server in a process of its own.
func fakeServer(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

// cpu returns the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure reports CPU and rate beside the usual time.
func measure(b *testing.B, run func()) {
	b.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(daemonGC))
	before := cpu(b)
	run()
	used := cpu(b) - before
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}

// Bound: below 1,000 cpu-ns/op.
func BenchmarkCached(b *testing.B) {
	srv := resolvertest.New(b, zone)
	r := srv.Resolver(b)
	ctx := b.Context()
	b.Run("Query", func(b *testing.B) {
		b.ReportAllocs()
		measure(b, func() {
			for b.Loop() {
				if _, err := r.Query(ctx, "example.org", resolver.TypeTXT); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("LookupTXT", func(b *testing.B) {
		b.ReportAllocs()
		measure(b, func() {
			for b.Loop() {
				if _, err := r.LookupTXT(ctx, "example.org"); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("absent", func(b *testing.B) {
		b.ReportAllocs()
		measure(b, func() {
			for b.Loop() {
				if _, err := r.LookupTXT(ctx, "absent.org"); err == nil {
					b.Fatal("found")
				}
			}
		})
	})
	b.Run("parallel", func(b *testing.B) {
		measure(b, func() {
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := r.Query(ctx, "example.org", resolver.TypeTXT); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	})
}

// Bound: at least 15,000 lookups/s on two cores, the server's process included.
func BenchmarkUncached(b *testing.B) {
	addr := fakeServer(b)
	var name atomic.Int64
	for _, goroutines := range []int{16, 64} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			r := open(b, resolver.Config{Servers: []string{addr}})
			ctx := b.Context()
			b.ReportAllocs()
			b.SetParallelism(max(goroutines/runtime.GOMAXPROCS(0), 1))
			measure(b, func() {
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						if _, err := r.LookupTXT(ctx, fmt.Sprintf("n%d.wild.org", name.Add(1))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		})
	}
}
