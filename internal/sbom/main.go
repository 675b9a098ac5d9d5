// Sbom writes what programs are made of as a software bill of materials, in the JSON
// form of CycloneDX 1.6:
//
//	sbom VERSION SECONDS-SINCE-1970 PROGRAM...
//
// It reads what the linker has noted in the programs themselves, so that nothing is
// listed that is not in them, and nothing is left out. That is why it is not one of the
// tools that read the source, which list what some other build might have.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: sbom VERSION SECONDS-SINCE-1970 PROGRAM [PROGRAM ...]")
	}
	seconds, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return fmt.Errorf("time of the release: %w", err)
	}
	var programs []program
	for _, file := range args[2:] {
		p, err := readProgram(file)
		if err != nil {
			return err
		}
		programs = append(programs, p)
	}
	b, err := newBOM(args[0], time.Unix(seconds, 0), programs)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(b)
}
