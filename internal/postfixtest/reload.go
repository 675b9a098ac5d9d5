package postfixtest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Reload calls reload, which has Postfix read its files again, and returns when no
// smtpd(8) of before is left. Until master(8) has told them, they take mail by the
// settings of before. No SMTP session may be open. It waits a minute at most.
func (p *Postfix) Reload(ctx context.Context, reload func() error) error {
	before := p.smtpds()
	if err := reload(); err != nil {
		return err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	err := poll(ctx, p.master.done, func() bool {
		now := p.smtpds()
		return !slices.ContainsFunc(before, func(pid int) bool { return slices.Contains(now, pid) })
	})
	if err != nil {
		return fmt.Errorf("processes of before the reload are left: %w\n%s", err, p.LogTail())
	}
	return nil
}

// smtpds returns the processes of smtpd(8).
func (p *Postfix) smtpds() []int {
	return slices.DeleteFunc(Descendants(p.master.pid()), func(pid int) bool {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // none: it has ended
		return strings.TrimSpace(string(name)) != "smtpd"
	})
}
