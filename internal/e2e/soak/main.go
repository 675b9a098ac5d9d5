// The program soak runs both daemons under mixed load for some time (-for). Meanwhile
// it causes the faults of a bad month: Redis is killed, is paused, is slow, and refuses to
// write; DNS fails, is silent, lies, and is slow; a table server hangs; the disk is full; a
// daemon is killed; settings are reloaded and tables rewritten; descriptors are few;
// clients stall. It fails if an answer is wrong, if a daemon ends, if something does not
// recover after the faults, or if memory, goroutines or open files grow. It needs root, for
// a small disk.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	span := flag.Duration("for", 30*time.Minute, "how `long` the load and the faults last")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the order of the faults")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := soak(ctx, *span, *seed, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}
