package rotate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	// commandTimeout bounds one run of the command.
	commandTimeout = time.Minute
	// maxCommandOutput is how much of its output is in an error.
	maxCommandOutput = 500
)

// Command is a publisher that runs a program of the administrator. The program gets the
// change as one line of JSON on its standard input, and exits with 0 if the change was
// made.
type Command struct{ Path string }

// commandInput is a change in the form for the program.
type commandInput struct {
	Version int      `json:"version"`
	Action  Action   `json:"action"`
	Domain  string   `json:"domain"`
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	TTL     int      `json:"ttl"`
	Value   string   `json:"value,omitempty"`
	Strings []string `json:"strings,omitempty"` // the value in parts of at most 255 octets
}

// Check returns an error if the program cannot be run.
func (p *Command) Check() error {
	info, err := os.Stat(p.Path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("%s is not a program that can be run; chmod +x it", p.Path)
	}
	return nil
}

// Change implements [Publisher]. If the program takes too long, it is ended together
// with all processes that it has started.
func (p *Command) Change(ctx context.Context, c Change) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	input := commandInput{Version: 1, Action: c.Action, Domain: c.Domain, Name: c.Name, Type: "TXT", TTL: int(c.TTL / time.Second), Value: c.Value}
	if c.Value != "" {
		input.Strings = split(c.Value)
	}
	line, err := json.Marshal(input)
	if err != nil {
		return err
	}
	var output beginning
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %q", p.Path, errors.Join(err, ctx.Err()), bytes.TrimSpace(output))
	}
	return nil
}

// beginning keeps the first octets that are written.
type beginning []byte

func (b *beginning) Write(text []byte) (int, error) {
	*b = append(*b, text[:min(len(text), maxCommandOutput-len(*b))]...)
	return len(text), nil
}
