package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/maillog"
)

// bothClients binds the flags that find both daemons.
func bothClients(fs *pflag.FlagSet) (policyd, milterd *admin.Client) {
	policyd = &admin.Client{Daemon: api.Policyd, Path: api.PolicydSocket, Flag: "--policyd"}
	milterd = &admin.Client{Daemon: api.Milterd, Path: api.MilterdSocket, Flag: "--milterd"}
	fs.Var(adminFlag{policyd}, "policyd", "`endpoint` of postern-policyd's admin socket; with one of --policyd and --milterd only that daemon is asked")
	fs.Var(adminFlag{milterd}, "milterd", "`endpoint` of postern-milterd's admin socket")
	return policyd, milterd
}

// askedClients returns the daemons that the flags name, or both.
func askedClients(fs *pflag.FlagSet, policyd, milterd *admin.Client) []*admin.Client {
	switch p, m := fs.Changed("policyd"), fs.Changed("milterd"); {
	case p && !m:
		return []*admin.Client{policyd}
	case m && !p:
		return []*admin.Client{milterd}
	}
	return []*admin.Client{policyd, milterd}
}

// open opens the sources of records.
func (o *logOptions) open(ctx context.Context, io streams, files []string) ([]*maillog.Source, error) {
	if o.journal {
		s, err := o.openJournal(ctx, io)
		return []*maillog.Source{s}, err
	}
	if len(files) > 0 {
		return openFiles(files, openRecords(ctx))
	}
	return o.openMemories(ctx, io)
}

// openFiles opens all files or none.
func openFiles(files []string, open func(name string) (*maillog.Source, error)) ([]*maillog.Source, error) {
	var sources []*maillog.Source
	for _, name := range files {
		s, err := open(name)
		if err != nil {
			for _, opened := range sources {
				_ = opened.Close()
			}
			return nil, err
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// openJournal runs journalctl, because only journalctl knows all formats of the
// journal.
func (o *logOptions) openJournal(ctx context.Context, streams streams) (*maillog.Source, error) {
	args := []string{"-o", "cat", "--all", "--quiet", "-u", api.Policyd, "-u", api.Milterd}
	if !o.filter.Since.IsZero() {
		args = append(args, fmt.Sprintf("--since=@%d", o.filter.Since.Unix()))
	}
	if !o.filter.Until.IsZero() {
		args = append(args, fmt.Sprintf("--until=@%d", o.filter.Until.Unix()+1))
	}
	if o.follow {
		args = append(args, "-n", "all", "-f")
	}
	journal := exec.CommandContext(ctx, "journalctl", args...)
	journal.Cancel = func() error { return journal.Process.Signal(os.Interrupt) }
	journal.WaitDelay = 5 * time.Second
	journal.Stderr = streams.err
	out, err := journal.StdoutPipe()
	if err == nil {
		err = journal.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w; without systemd name the files of the log", err)
	}
	finish := func() error {
		_, _ = io.Copy(io.Discard, out)
		if err := journal.Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("journalctl: %w; run as root, or as a member of the group systemd-journal", err)
		}
		return nil
	}
	return maillog.NewSource("the journal", out, finish), nil
}

// openMemories asks the daemons for the records that they remember. A daemon that does
// not answer is skipped.
func (o *logOptions) openMemories(ctx context.Context, io streams) ([]*maillog.Source, error) {
	var sources []*maillog.Source
	err := eachDaemon(io, "log", o.asked, func(c *admin.Client) error {
		var lines bytes.Buffer
		if _, err := askLog(ctx, c, api.LogArgs{}, func(line []byte) { lines.Write(line); lines.WriteByte('\n') }); err != nil {
			return err
		}
		o.remembered = append(o.remembered, rememberedSince(c.Daemon, lines.Bytes()))
		sources = append(sources, maillog.NewSource("the memory of "+c.Daemon, &lines, nil))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w\nname the files of the log, or read the journal with --journal", err)
	}
	return sources, nil
}

// memory describes how far back a daemon remembers records.
type memory struct {
	daemon string
	since  time.Time // zero if there is no record
}

func rememberedSince(daemon string, lines []byte) memory {
	first, _, _ := bytes.Cut(lines, []byte("\n"))
	if e := maillog.Parse(first); e != nil {
		return memory{daemon, e.Time}
	}
	return memory{daemon: daemon}
}

// noteMemories prints how far back the daemons remember, when nothing was found or
// older records were asked for.
func (o *logOptions) noteMemories(w io.Writer, found bool) {
	for _, m := range o.remembered {
		switch {
		case m.since.IsZero() && !found:
			fmt.Fprintf(w, "%s has decided nothing since it was started\n", m.daemon)
		case !m.since.IsZero() && (!found || o.since != "" && o.filter.Since.Before(m.since)):
			fmt.Fprintf(w, "%s remembers what it has decided since %s; for older records name the files of the log, or use --journal\n", m.daemon, local(m.since))
		}
	}
}

// askLog passes each line that a daemon sends to take.
func askLog(ctx context.Context, c *admin.Client, args api.LogArgs, take func(line []byte)) (api.LogResult, error) {
	var result api.LogResult
	var malformed error
	err := c.Call(ctx, api.Log, args, &result, func(message json.RawMessage) {
		var lines api.LogLines
		if err := json.Unmarshal(message, &lines); err != nil {
			malformed = err
		}
		for _, line := range lines {
			take(line)
		}
	})
	return result, errors.Join(olderDaemon(c, err, "remembers no records"), malformed)
}
