package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/reportread"
	"github.com/postern-mail/postern/internal/resolver"
)

func dmarcReadCommand() command {
	return command{
		path: "dmarc read", args: "[FILE|FOLDER|- ...]", bind: bindDMARCRead, files: true,
		help:  "who sends mail in our domains' names, from DMARC and TLS reports that were received",
		words: map[string][]string{"by": {byAddress, bySender}},
	}
}

// The values of --by: what one line of the table of sources is about.
const (
	byAddress = "address"
	bySender  = "sender"
)

// reportsAsked holds the flags of the command.
type reportsAsked struct {
	json, csv bool
	store     string
	keepDays  int
	since     string
	domain    string
	top       int
	by        string
	dns       bool
	resolvers []string
	dnsAsked  func() bool // --dns was given
}

func bindDMARCRead(fs *pflag.FlagSet) runner {
	var ask reportsAsked
	fs.BoolVar(&ask.json, "json", false, "print the summary as JSON, all of it")
	fs.BoolVar(&ask.csv, "csv", false, "print the sources as CSV, all of them")
	fs.StringVar(&ask.store, "store", "", "keep the reports in this SQLite `file`, and without FILE print what is in it")
	fs.IntVar(&ask.keepDays, "keep-days", 400, "how many `days` the store keeps a report; 0 for ever")
	fs.StringVar(&ask.since, "since", "", "only reports about this `day` and later: how long ago (30d) or 2026-11-21")
	fs.StringVar(&ask.domain, "domain", "", "only reports about this `domain`")
	fs.IntVar(&ask.top, "top", 25, "how many sources of each domain to list; 0 for all")
	fs.StringVar(&ask.by, "by", byAddress, "what is one line: the `address` of a source, or all of a sender's, as far as names and SPF show")
	fs.BoolVar(&ask.dns, "dns", true, "ask the DNS for the names of 200 sources of each domain, those with the most mails and those in the most reports, and for the SPF records that cover them")
	fs.StringSliceVar(&ask.resolvers, "resolver", nil, "`address` of a name server; those of /etc/resolv.conf")
	ask.dnsAsked = func() bool { return fs.Changed("dns") }
	return func(ctx context.Context, io streams, args []string) (int, error) {
		return ask.run(ctx, io, args)
	}
}

func (ask *reportsAsked) check(args []string) error {
	switch {
	case len(args) == 0 && ask.store == "":
		return errUsage
	case ask.json && ask.csv:
		return errors.New("--json and --csv are two forms of the same; choose one")
	case ask.by != byAddress && ask.by != bySender:
		return fmt.Errorf("--by is %.40q; write %s or %s", ask.by, byAddress, bySender)
	case ask.top < 0 || ask.keepDays < 0:
		return errors.New("--top and --keep-days are numbers from 0")
	}
	return nil
}

// run answers exitNo when something could not be read that is, or may be, a report.
func (ask *reportsAsked) run(ctx context.Context, io streams, args []string) (int, error) {
	if err := ask.check(args); err != nil {
		return exitFailed, err
	}
	tally := &reportread.Tally{}
	if ask.domain != "" {
		if err := tally.Only(ask.domain); err != nil {
			return exitFailed, fmt.Errorf("--domain %s: %w", shown(ask.domain), err)
		}
	}
	if ask.since != "" {
		since, err := maillog.ParseTime(ask.since, time.Now())
		if err != nil {
			return exitFailed, fmt.Errorf("--since: %w", err)
		}
		tally.Since = since.UTC().Truncate(24 * time.Hour)
	}
	path := strings.TrimPrefix(ask.store, "sqlite:")
	if len(args) == 0 {
		return exitYes, ask.stored(ctx, io, path, tally)
	}
	var store *reportread.Store // nil without --store
	if ask.store != "" {
		store = &reportread.Store{Path: path, Keep: time.Duration(ask.keepDays) * 24 * time.Hour, Now: time.Now}
	}
	code, err := ask.read(ctx, io, args, store, tally)
	if err != nil {
		return exitFailed, err
	}
	return code, ask.print(ctx, io, store, tally.Summary())
}

// stored prints what the store contains, with the DNS answers from when the reports
// were added.
func (ask *reportsAsked) stored(ctx context.Context, io streams, path string, tally *reportread.Tally) error {
	sum, err := reportread.Stored(ctx, path, tally)
	if err != nil {
		return err
	}
	ask.dns = ask.dns && ask.dnsAsked()
	return ask.print(ctx, io, nil, sum)
}

// read reads files into tally, and into the store unless it is nil.
func (ask *reportsAsked) read(ctx context.Context, io streams, args []string, store *reportread.Store, tally *reportread.Tally) (code int, err error) {
	r := &reportread.Reader{
		Stdin:   stdin(ctx),
		Problem: func(where string, err error) { fmt.Fprintln(io.err, shown(problemAt(where, err))) },
		DMARC: func(report *reportread.Report) error {
			if report.Unusable > 0 {
				fmt.Fprintf(io.err, "report %s of %s: %d rows do not count: %s\n", shown(report.ID), shown(report.Org), report.Unusable, shown(report.UnusableWhy))
			}
			tally.Add(report)
			if store == nil {
				return nil
			}
			return store.Add(ctx, report)
		},
		TLS: func(report *reportread.TLSReport) error {
			tally.AddTLS(report)
			if store == nil {
				return nil
			}
			return store.AddTLS(ctx, report)
		},
	}
	if err := r.Paths(ctx, args); err != nil {
		if ctx.Err() != nil && store != nil {
			err = fmt.Errorf("%w; what the store has stays in it: run the command again, which adds the rest", err)
		}
		return exitFailed, err
	}
	if store != nil {
		if err := store.Flush(ctx); err != nil {
			return exitFailed, err
		}
		fmt.Fprintf(io.err, "%s: %d reports were added, %d were there", shown(store.Path), store.New, store.Known)
		if store.Old > 0 {
			fmt.Fprintf(io.err, ", %d are older than --keep-days", store.Old)
		}
		if store.Future > 0 {
			fmt.Fprintf(io.err, ", %d are dated in the future", store.Future)
		}
		fmt.Fprintln(io.err)
		if store.Removed > 0 {
			fmt.Fprintf(io.err, "%s: the %d oldest reports, until %s, were removed, because the file may have at most %d MiB; forged reports may fill it: set --keep-days lower, or store only mail that passed DMARC\n",
				shown(store.Path), store.Removed, store.RemovedUntil.Format(time.DateOnly), reportread.MaxOctets>>20)
		}
	}
	if r.Others > 0 {
		fmt.Fprintf(io.err, "%d of %d files and mails have no report\n", r.Others, r.Files)
	}
	if r.Odd > 0 {
		fmt.Fprintf(io.err, "%d of %d files and mails could not be read, and do not look like reports; the first is %s\n",
			r.Odd, r.Files, shown(problemAt(r.OddWhere, r.OddWhy)))
	}
	if r.Failed > 0 {
		return exitNo, nil
	}
	return exitYes, nil
}

// problemAt returns a problem and where it is. The errors of package os name the file
// already.
func problemAt(where string, err error) string {
	if inFile := (*fs.PathError)(nil); errors.As(err, &inFile) {
		return err.Error()
	}
	return where + ": " + err.Error()
}

// print prints a summary in the form that was asked for.
func (ask *reportsAsked) print(ctx context.Context, io streams, store *reportread.Store, sum *reportread.Summary) error {
	if ask.dns && len(sum.Domains) > 0 {
		if err := ask.identify(ctx, io.err, sum); err != nil {
			return err
		}
		if store != nil {
			if err := store.Remember(ctx, sum); err != nil {
				return err
			}
		}
	}
	if ask.by == bySender {
		sum.BySender()
	}
	switch {
	case ask.json:
		return printJSON(io.out, sum)
	case ask.csv:
		return printReportsCSV(io.out, sum)
	}
	return printReports(io.out, sum, ask.top)
}

func (ask *reportsAsked) identify(ctx context.Context, problems io.Writer, sum *reportread.Summary) error {
	dns, err := resolver.New(resolver.Config{Servers: ask.resolvers})
	if err != nil {
		return fmt.Errorf("%w; or ask no DNS with --dns=false", err)
	}
	defer dns.Close()
	failed, late := (reportread.Identity{DNS: dns}).Identify(ctx, sum)
	if failed > 0 {
		fmt.Fprintf(problems, "DNS lookups failed for %d sources; try again, or name another server with --resolver\n", failed)
	}
	if late > 0 {
		fmt.Fprintf(problems, "%d sources were not looked up, because the time for DNS lookups was over; try again, or choose a --domain\n", late)
	}
	return context.Cause(ctx)
}
