package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/postern-mail/postern/internal/maillog"
)

// summary prints what was counted.
func (p *logPrinter) summary(s maillog.Summary) error {
	p.printed = s.Records
	if p.asJSON {
		return printJSON(p.out, s)
	}
	if s.Records == 0 {
		_, err := fmt.Fprintln(p.out, "no records")
		return err
	}
	fmt.Fprintf(p.out, "%s to %s: %d mails, %d records\n\nreasons\n", local(s.Since), local(s.Until), s.Mails, s.Records)
	t := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, d := range s.Reasons {
		fmt.Fprintf(t, "%d\t  %s %s %s%s\n", d.Count, shown(d.Check), p.colored(d.Verdict), shown(d.Reason), inShadow(d.Mode))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if g := s.Greylisted; g.Count > 0 {
		fmt.Fprintf(p.out, "\ngreylisted mails that came back: %d; waited %s (half of them at most), %s (90 %%), %s (99 %%), %s (longest)\n",
			g.Count, waited(g.Median), waited(g.P90), waited(g.P99), waited(g.Max))
	}
	for _, daemon := range slices.Sorted(maps.Keys(s.Durations)) {
		d := s.Durations[daemon]
		fmt.Fprintf(p.out, "\nreplies of %s: %g ms (half of them at most), %g ms (90 %%), %g ms (99 %%), %g ms (longest)\n", shown(daemon), d.Median, d.P90, d.P99, d.Max)
	}
	for _, of := range []struct {
		what string
		list []maillog.Count
	}{{"senders", s.Senders}, {"recipients", s.Recipients}, {"clients", s.Clients}, {"logins", s.Logins}} {
		printCounts(p.out, of.what, of.list)
	}
	if s.Rough {
		fmt.Fprintln(p.out, "\nthere are more names than are counted: rare ones may be missing")
	}
	return printHours(p.out, s.Hours)
}

func waited(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

func printCounts(w io.Writer, what string, list []maillog.Count) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s, by mails\n", what)
	for _, c := range list {
		fmt.Fprintf(w, "%8d  %s\n", c.Count, shown(c.Name))
	}
}

func printHours(w io.Writer, hours []maillog.Hour) error {
	fmt.Fprintln(w, "\nrecords by the hour")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tpass\thold\tdefer\treject\tnone\terror\t")
	for _, h := range hours {
		v := h.Verdicts
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", h.Hour.Local().Format("2006-01-02 15:04Z07:00"), v["pass"], v["hold"], v["defer"], v["reject"], v["none"], v["error"])
	}
	return t.Flush()
}
