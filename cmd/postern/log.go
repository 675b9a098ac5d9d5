package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/maillog"
)

func logCommand() command {
	return command{
		path: "log", args: "[FILE...]", bind: bindLog, files: true,
		help:  "the records of both daemons, joined for each mail: from their memory, the journal, files or - for standard input",
		words: map[string][]string{"verdict": maillog.Verdicts, "mode": maillog.Modes, "color": {colorAuto, colorAlways, colorNever}},
	}
}

// The values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// logOptions are the flags of the command.
type logOptions struct {
	filter       maillog.Filter
	since, until string
	journal      bool
	follow       bool
	flat         bool
	asJSON       bool
	summary      bool
	top          int
	color        string
	policyd      *admin.Client
	milterd      *admin.Client
	asked        []*admin.Client // the daemons to ask
	remembered   []memory        // what the asked daemons remember
}

func bindLog(fs *pflag.FlagSet) runner {
	o := new(logOptions)
	f := &o.filter
	fs.StringArrayVar(&f.Recipients, "recipient", nil, "only mails to this `address` or domain; * means any text; repeat for several, of which one must match")
	fs.StringArrayVar(&f.Senders, "sender", nil, "only mails from this `address` or domain, <> for the null sender")
	fs.StringArrayVar(&f.Clients, "client", nil, "only mails of this `client`: an address, a network or a host name")
	fs.StringArrayVar(&f.Logins, "login", nil, "only mails of this `login`")
	fs.StringArrayVar(&f.Reasons, "reason", nil, "only mails with a record of this `reason`, such as greylist_new or 'dnsbl_*'")
	fs.StringArrayVar(&f.Verdicts, "verdict", nil, "only mails with a record of this `verdict`: pass, hold, defer, reject, error or none")
	fs.StringArrayVar(&f.Modes, "mode", nil, "only mails with a record of this `mode`: enforce, or shadow for what was only watched")
	fs.StringArrayVar(&f.Queues, "queue", nil, "only mails with this queue `id` of Postfix")
	fs.StringVar(&o.since, "since", "", "only records after this `time`: how long ago (2h, 1d), 14:30 or 2026-11-21T02:00:00Z")
	fs.StringVar(&o.until, "until", "", "only records before this `time`")
	fs.BoolVar(&o.journal, "journal", false, "read systemd's journal of both units")
	fs.BoolVarP(&o.follow, "follow", "f", false, "print records as they arrive, from now on or from --since on")
	fs.BoolVar(&o.flat, "flat", false, "one line for each record that matches, not joined into mails")
	fs.BoolVar(&o.asJSON, "json", false, "print JSON, a mail (with --flat a record) on each line")
	fs.BoolVar(&o.summary, "summary", false, "count: reasons, senders, clients, delays")
	fs.IntVar(&o.top, "top", 10, "how many senders, recipients, clients and logins the summary names")
	fs.StringVar(&o.color, "color", colorAuto, "`when` to color verdicts: auto (on a terminal), always or never")
	o.policyd, o.milterd = bothClients(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if err := o.prepare(fs, args); err != nil {
			return exitFailed, err
		}
		p := o.printer(io)
		var err error
		if o.follow {
			err = o.followAll(ctx, io, args, p)
		} else {
			err = o.readAll(ctx, io, args, p)
		}
		if err != nil {
			return exitFailed, err
		}
		o.noteMemories(io.err, p.printed > 0)
		if p.printed == 0 && !o.follow {
			return exitNo, nil
		}
		return exitYes, nil
	}
}

// prepare checks the flags.
func (o *logOptions) prepare(fs *pflag.FlagSet, files []string) (err error) {
	now := time.Now()
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"since", o.since, &o.filter.Since}, {"until", o.until, &o.filter.Until}} {
		if t.text == "" {
			continue
		}
		if *t.at, err = maillog.ParseTime(t.text, now); err != nil {
			return fmt.Errorf("--%s: %w", t.flag, err)
		}
	}
	switch {
	case o.journal && len(files) > 0:
		return errors.New("--journal reads the journal and no file; leave out one of them")
	case o.follow && o.summary:
		return errors.New("--summary counts what is there; leave out --follow")
	case o.follow && !o.filter.Until.IsZero():
		return errors.New("--until ends before what --follow waits for; leave out one of them")
	case o.top < 0:
		return errors.New("--top is how many names to print; write 0 or more")
	case o.color != colorAuto && o.color != colorAlways && o.color != colorNever:
		return fmt.Errorf("--color %.40q: write auto, always or never", o.color)
	}
	if o.follow && o.since == "" {
		o.filter.Since = now
	}
	o.asked = askedClients(fs, o.policyd, o.milterd)
	return o.filter.Prepare()
}

// printer returns a printer for the form that the flags select.
func (o *logOptions) printer(io streams) *logPrinter {
	p := &logPrinter{out: io.out, filter: &o.filter, flat: o.flat, asJSON: o.asJSON}
	p.color = o.color == colorAlways || o.color == colorAuto && os.Getenv("NO_COLOR") == "" && isTerminal(io.out)
	return p
}

func isTerminal(w io.Writer) bool {
	if checked, ok := w.(*checkedOut); ok {
		w = checked.Writer
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// readAll prints the records of all sources.
func (o *logOptions) readAll(ctx context.Context, io streams, files []string, p *logPrinter) (err error) {
	sources, err := o.open(ctx, io, files)
	if err != nil {
		return err
	}
	defer func() {
		for _, s := range sources {
			err = errors.Join(err, s.Close())
		}
	}()
	counter := maillog.NewCounter()
	take := p.mail
	if o.summary {
		take = func(m *maillog.Mail) error {
			if m = o.filter.Cut(m); m != nil {
				counter.Add(m)
			}
			return nil
		}
	}
	failed := o.join(ctx, sources, p, take)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	complain(io.err, sources)
	if o.summary {
		err = p.summary(counter.Summary(o.top))
	}
	return errors.Join(failed, err)
}

// join passes the mails of all sources to take. Of a source that fails, what was read
// before counts.
func (o *logOptions) join(ctx context.Context, sources []*maillog.Source, p *logPrinter, take func(*maillog.Mail) error) error {
	joiner := maillog.NewJoiner()
	var failed error
	for e, err := range maillog.Merge(sources) {
		if err != nil {
			failed = err // the last
			break
		}
		m := joiner.Add(e)
		if o.flat && !o.summary {
			err = p.record(e, m)
		}
		for m := range joiner.Ended(e.Time) {
			err = errors.Join(err, take(m))
		}
		if err = errors.Join(err, context.Cause(ctx)); err != nil {
			return err
		}
	}
	for m := range joiner.Rest() {
		if err := take(m); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// complain warns about sources that contain lines but no record.
func complain(w io.Writer, sources []*maillog.Source) {
	for _, s := range sources {
		if s.Records == 0 && s.Others > 0 {
			fmt.Fprintf(w, "%s: none of %d lines is a record; the daemons must log with log-format = \"json\"\n", s.Name, s.Others)
		}
	}
}
