package postfixtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Queued is a message in the queue, as postqueue -j prints it.
type Queued struct {
	QueueName  string `json:"queue_name"` // incoming, active, deferred, hold, maildrop
	QueueID    string `json:"queue_id"`
	Sender     string `json:"sender"` // "" is the null sender
	Recipients []struct {
		Address     string `json:"address"`
		DelayReason string `json:"delay_reason"`
	} `json:"recipients"`
}

// Queue returns the messages that are in the queue now.
func (p *Postfix) Queue(ctx context.Context) ([]Queued, error) {
	out, err := p.tool(ctx, nil, "postqueue", "-c", p.layout.config(), "-j")
	if err != nil {
		return nil, err
	}
	var all []Queued
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var q Queued
		switch err := dec.Decode(&q); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("postqueue -j: %w", err)
		}
		all = append(all, q)
	}
}

// Sendmail submits message as a local user does, with sendmail(1) and args such
// as "-f", sender, "--", recipient.
func (p *Postfix) Sendmail(ctx context.Context, message string, args ...string) error {
	args = append([]string{"-C", p.layout.config(), "-i"}, args...)
	_, err := p.tool(ctx, []byte(message), "sendmail", args...)
	return err
}

// tool runs one of Postfix's programs, and returns what it prints.
func (p *Postfix) tool(ctx context.Context, stdin []byte, name string, args ...string) ([]byte, error) {
	path, err := systemTool(name)
	if err != nil {
		return nil, err
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.Bytes(), nil
}
