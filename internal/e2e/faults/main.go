// The program faults runs the tests that deploy/FAULTS.md names. It prints for each
// promise there whether its tests passed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/manual"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer) error {
	promises, err := manual.Promises(".")
	if err != nil {
		return err
	}
	tests := make(map[string][]string) // of a package
	for _, p := range promises {
		for _, t := range p.Tests {
			tests[t.Package] = append(tests[t.Package], t.Name)
		}
	}
	results := make(map[manual.Test]string)
	for _, folder := range slices.Sorted(maps.Keys(tests)) {
		fmt.Fprintf(os.Stderr, "faults: %s: %s\n", folder, strings.Join(tests[folder], " ")) // it takes minutes
		if err := runTests(ctx, folder, tests[folder], results); err != nil {
			return err
		}
	}
	failed := 0
	for _, p := range promises {
		result := "holds"
		for _, t := range p.Tests {
			if got := results[t]; got != "pass" {
				result = "FAILS (" + t.Package + " " + t.Name + ": " + got + ")"
				failed++
			}
		}
		fmt.Fprintf(w, "%s: %s\n    %s\n", p.Fault, result, p.Text)
	}
	if failed > 0 {
		return fmt.Errorf("%d of the tests do not pass", failed)
	}
	return nil
}

// runTests runs tests of a package. A test that was skipped or not found counts as not
// passed.
func runTests(ctx context.Context, folder string, names []string, results map[manual.Test]string) error {
	for _, name := range names {
		results[manual.Test{Package: folder, Name: name}] = "was not run"
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-run", "^("+strings.Join(names, "|")+")$", "./"+folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue
		}
		t := manual.Test{Package: folder, Name: event.Test}
		if _, named := results[t]; named && (event.Action == "pass" || event.Action == "fail" || event.Action == "skip") {
			results[t] = event.Action
		}
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return ctx.Err() // the results say which one has failed
	}
	return err
}
