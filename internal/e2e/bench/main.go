// Bench measures the cost of Postern. Run it with `make bench`, or with the names of
// some benchmarks as arguments.
//
// Machines differ and are noisy, so nearly every figure is a ratio to a reference that
// runs in the same minute. Both are measured in turn, several times, and the medians
// are compared. CPU time is that of the measured process alone, as the kernel counts
// it.
//
// The verb "peers" compares Postern with other programs, and "scale" measures what large
// sites have. Both write their figures to deploy/.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// benchmark is one benchmark.
type benchmark struct {
	name string
	what string
	run  func(ctx context.Context, e *env) ([]result, error)
}

// benchmarks returns all benchmarks.
func benchmarks() []benchmark {
	return []benchmark{
		{"ownership", "an ownership decision against a Go echo of the same bytes", benchOwnership},
		{"owners", "owner tables in a server: remembered against hash:, asked against the bare driver", benchOwners},
		{"limits", "two limits of a login against an ownership decision", benchLimits},
		{"limitpeers", "two limits of a login against policyd-rate-limit and postfwd2", benchLimitPeers},
		{"greylist", "greylisting against postgrey, on each store", benchGreylist},
		{"triplets", "a greylist of a million triplets: start, memory, and latency while it is purged", benchTriplets},
		{"signing", "signing against bare RSA, and the milter protocol alone", benchSigning},
		{"engine", "RSA by OpenSSL, against a bare signature of Go and against OpenDKIM", benchEngine},
		{"from", "what From ownership adds to a signed mail", benchFrom},
		{"verify", "verifying: signatures on a large mail, and a slow DNS", benchVerify},
		{"dmarc", "verifying with DMARC against OpenDKIM with OpenDMARC, and a mail of 50 MB", benchDMARC},
		{"rate", "mails a second through Postfix, against servers that look at nothing", benchRate},
		{"resolver", "DNS lookups, cached and not", benchResolver},
		{"dnsbl", "DNS lists: slow, cached, and with a dead resolver", benchDNSBL},
	}
}

// result is a figure and its bounds.
type result struct {
	what   string
	value  float64
	unit   string
	most   float64 // upper bound of the value; 0 for none
	least  float64 // lower bound of the value; 0 for none
	detail string
}

func (r result) ok() bool {
	return (r.most == 0 || r.value <= r.most) && (r.least == 0 || r.value >= r.least)
}

func (r result) String() string {
	bound := ""
	switch {
	case r.most > 0:
		bound = fmt.Sprintf("at most %g", r.most)
	case r.least > 0:
		bound = fmt.Sprintf("at least %g", r.least)
	}
	verdict := "     "
	if bound != "" {
		verdict = map[bool]string{true: "ok   ", false: "MISS "}[r.ok()]
	}
	return fmt.Sprintf("%s %-62s %9.3f %-6s %-14s %s", verdict, r.what, r.value, r.unit, bound, r.detail)
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == echoArg {
		echo(os.Args[2])
		return
	}
	if asked, err := runServer(os.Args[1:]); asked {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(2)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	missed, err := dispatch(ctx, os.Args[1:])
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case missed > 0:
		fmt.Fprintf(os.Stderr, "bench: %d figures miss their bound\n", missed)
		os.Exit(1)
	}
}

// dispatch runs a verb that publishes figures, or benchmarks.
func dispatch(ctx context.Context, args []string) (missed int, err error) {
	if len(args) > 0 && args[0] == peersArg {
		return 0, benchPeers(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == scaleArg {
		return 0, benchScale(ctx, args[1:])
	}
	return run(ctx, args)
}

func run(ctx context.Context, names []string) (missed int, err error) {
	for _, name := range names {
		if !slices.ContainsFunc(benchmarks(), func(b benchmark) bool { return b.name == name }) {
			return 0, fmt.Errorf("no benchmark %q; there are %s", name, known())
		}
	}
	e, stop, err := newDiskEnv()
	if err != nil {
		return 0, err
	}
	defer stop()
	for _, b := range benchmarks() {
		if len(names) > 0 && !slices.Contains(names, b.name) {
			continue
		}
		fmt.Printf("%s: %s\n", b.name, b.what)
		results, err := b.run(ctx, e)
		if err != nil {
			return missed, fmt.Errorf("%s: %w", b.name, err)
		}
		for _, r := range results {
			fmt.Println(r)
			if !r.ok() {
				missed++
			}
		}
	}
	return missed, nil
}

func known() string {
	var names []string
	for _, b := range benchmarks() {
		names = append(names, b.name)
	}
	return strings.Join(names, ", ")
}
