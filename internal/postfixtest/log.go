package postfixtest

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// Log returns the lines that Postfix has logged so far.
func (p *Postfix) Log() ([]string, error) {
	b, err := os.ReadFile(p.layout.log())
	if err != nil {
		return nil, err
	}
	// The last line may be incomplete.
	whole := string(b[:strings.LastIndexByte(string(b), '\n')+1])
	return strings.Split(strings.TrimSuffix(whole, "\n"), "\n"), nil
}

// LogTail returns the end of the log.
func (p *Postfix) LogTail() string { return fileTail(p.layout.log()) }

// WaitLog returns the first log line that satisfies match, from the beginning of the
// log. It waits for it until ctx ends, but at most a minute.
func (p *Postfix) WaitLog(ctx context.Context, match func(line string) bool) (string, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var found string
	err := poll(ctx, p.master.done, func() bool {
		lines, err := p.Log()
		if err != nil {
			return false
		}
		for _, line := range lines {
			if match(line) {
				found = line
				return true
			}
		}
		return false
	})
	if err != nil {
		return "", fmt.Errorf("no such line in Postfix's log: %w\n%s", err, p.LogTail())
	}
	return found, nil
}
