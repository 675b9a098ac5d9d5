package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/maillog"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/replay"
)

func replayCommand() command {
	return command{
		path: "replay", args: "FILE...", bind: bindReplay, files: true,
		help: "what other settings of the policy daemon would have done with the mails of its log",
	}
}

// bindReplayed binds the settings of the daemon that can be tried.
func bindReplayed(fs *pflag.FlagSet) {
	const help = "`value` of the daemon's flag of this name"
	for _, name := range replayedFlags() {
		fs.StringArray(name, nil, help)
	}
}

// replayedFlags are the settings of the daemon that can be tried.
func replayedFlags() []string {
	return []string{
		"greylist-delay", "greylist-retry-window", "greylist-pass-ttl", "greylist-awl-after", "greylist-awl-ttl",
		"greylist-ipv4-prefix", "greylist-ipv6-prefix", "greylist-key", "greylist-when", "greylist-flood", "greylist-flood-network",
		"greylist-allow-clients", "greylist-allow-recipients", "greylist-allow-senders", "trusted-relays", "dnsbl-threshold", "limit", "limit-action", "limit-overrides",
	}
}

func bindReplay(fs *pflag.FlagSet) runner {
	bindReplayed(fs)
	config := fs.String("config", api.PolicydConfig, "the daemon's configuration `file`, read when it exists: the settings that it had")
	since := fs.String("since", "", "only records after this `time`: how long ago (2h, 1d), 14:30 or 2026-11-21T02:00:00Z")
	show := fs.Int("show", 20, "how many of the mails to list that would have got another answer")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (code int, err error) {
		if len(args) == 0 {
			return exitFailed, errUsage
		}
		if *show < 0 {
			return exitFailed, errors.New("--show is how many mails to list; write 0 or more")
		}
		from := time.Time{}
		if *since != "" {
			if from, err = maillog.ParseTime(*since, time.Now()); err != nil {
				return exitFailed, fmt.Errorf("--since: %w", err)
			}
		}
		ask := policyd.ReplayArgs{Changes: changedSettings(fs), Since: from, Show: *show}
		if fs.Changed("config") { // the default one need not exist
			ask.Config = []string{"--config=" + *config}
		}
		sources, err := openFiles(args, openRecords(ctx))
		if err != nil {
			return exitFailed, err
		}
		defer func() {
			for _, s := range sources {
				err = errors.Join(err, s.Close())
			}
		}()
		ask.Questions = replay.Records(maillog.Merge(sources))
		if areOfPostfix(sources) {
			ask.Questions = replay.Postfix(sources, time.Now())
		}
		report, err := policyd.Replay(ctx, ask)
		if err != nil {
			return exitFailed, err
		}
		if report.Questions == 0 {
			complain(io.err, sources)
			return exitFailed, errors.New("there is nothing to replay; name logs that have records of postern-policyd, or logs of Postfix")
		}
		return exitYes, printReplay(io.out, report, *asJSON)
	}
}

// areOfPostfix reports whether files begin with lines of Postfix and without records.
func areOfPostfix(sources []*maillog.Source) bool {
	found := false
	for _, s := range sources {
		for line := range bytes.Lines(s.Start()) {
			if maillog.Parse(line) != nil {
				return false
			}
			found = found || replay.IsPostfix(bytes.TrimRight(line, "\r\n"))
		}
	}
	return found
}

// changedSettings returns the settings to try as arguments of the daemon.
func changedSettings(fs *pflag.FlagSet) []string {
	var all []string
	for _, name := range replayedFlags() {
		list, ok := fs.Lookup(name).Value.(pflag.SliceValue)
		if !ok {
			continue
		}
		for _, value := range list.GetSlice() {
			all = append(all, "--"+name+"="+value)
		}
	}
	return all
}

func printReplay(w io.Writer, r *replay.Report, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	fmt.Fprintf(w, "%s to %s: %d requests\n", local(r.Since), local(r.Until), r.Questions)
	if g := r.Greylist; g != nil && g.Asked > 0 {
		if err := printGreylisted(w, g); err != nil {
			return err
		}
	}
	if l := r.Lists; l.Asked > 0 {
		fmt.Fprintf(w, "\nDNS lists, asked about %d: refused %d; would refuse at least %d\n", l.Asked, l.WasRefused, l.WouldRefuse)
	}
	if r.Limits != nil {
		if err := printLimited(w, r.Limits); err != nil {
			return err
		}
	}
	if err := printDifferences(w, r); err != nil {
		return err
	}
	printUnknown(w, r)
	return nil
}

func printGreylisted(w io.Writer, g *replay.Greylisted) error {
	fmt.Fprintf(w, "\ngreylist, asked about %d\n", g.Asked)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tWAS\tWOULD BE")
	for _, line := range []struct {
		what string
		of   func(*replay.Side) string
	}{
		{"answers \"come back later\"", func(s *replay.Side) string { return fmt.Sprint(s.Deferred) }},
		{"senders who got them", func(s *replay.Side) string { return fmt.Sprint(s.Senders) }},
		{"mails delayed", delayed},
		{"  half of them at most", func(s *replay.Side) string { return waitedFor(s, s.Waits.Median) }},
		{"  90 % of them at most", func(s *replay.Side) string { return waitedFor(s, s.Waits.P90) }},
		{"  longest", func(s *replay.Side) string { return waitedFor(s, s.Waits.Max) }},
		{"mails that did not come back", func(s *replay.Side) string { return fmt.Sprint(s.Gone) }},
	} {
		fmt.Fprintf(t, "%s\t%s\t%s\n", line.what, line.of(&g.Was), line.of(&g.Would))
	}
	return t.Flush()
}

func delayed(s *replay.Side) string {
	if s.AtLeast == 0 {
		return fmt.Sprint(s.Delayed)
	}
	return fmt.Sprintf("%d (%d of them at least as long as shown)", s.Delayed, s.AtLeast)
}

func waitedFor(s *replay.Side, seconds float64) string {
	if s.Waits.Count == 0 {
		return "-"
	}
	return waited(seconds).Round(time.Second).String()
}

func printLimited(w io.Writer, l *replay.Limited) error {
	fmt.Fprintf(w, "\nlimits, asked about %d recipients: refused %d; would refuse %d, of %d mails\n", l.Asked, l.Was, l.Would, l.Mails)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range l.Over {
		fmt.Fprintf(t, "  %s\t%s\t%d recipients\tfrom %s on\n", shown(r.Limit), shown(r.Value), r.Refused, local(r.First))
	}
	return t.Flush()
}

func printDifferences(w io.Writer, r *replay.Report) error {
	if r.Differ == 0 {
		_, err := fmt.Fprintln(w, "\nno mail would have got another answer")
		return err
	}
	fmt.Fprintf(w, "\nanswers that would have been different: %d", r.Differ)
	if len(r.Differences) < r.Differ {
		fmt.Fprintf(w, "; the first %d", len(r.Differences))
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range r.Differences {
		wait := ""
		if d.Wait > 0 {
			wait = " (wait " + waited(d.Wait).Round(time.Second).String() + ")"
		}
		if d.Login != "" {
			wait += " login=" + shown(d.Login)
		}
		fmt.Fprintf(t, "%s\t%s\t%s -> %s\t%s -> %s%s\n", local(d.Time), shown(d.Client), shown(d.Sender), shown(d.Recipient), shown(d.Was), shown(d.Would), wait)
	}
	return t.Flush()
}

// printUnknown prints what cannot be known from the records.
func printUnknown(w io.Writer, r *replay.Report) {
	var lines []string
	if r.Before > 0 {
		lines = append(lines, fmt.Sprintf("%d: the sender or client was known from before the first record; what the daemon's answer shows of it is used", r.Before))
	}
	if r.Misfits > 0 {
		lines = append(lines, fmt.Sprintf("%d: the daemon's answer does not follow from the records before; some are missing, or were made with other settings than --config names", r.Misfits))
	}
	for _, why := range slices.Sorted(maps.Keys(r.Unknown)) {
		lines = append(lines, fmt.Sprintf("%d: %s", r.Unknown[why], why))
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\nwhat the records do not hold, by requests\n  %s\n", strings.Join(lines, "\n  "))
	}
}
