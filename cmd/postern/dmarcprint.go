package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/reportread"
)

const (
	shownReasons = 2  // of one source
	barWidth     = 20 // of a day's bar
)

// printReports prints a summary for people. The texts in a report are written by
// strangers, so they are escaped.
func printReports(w io.Writer, sum *reportread.Summary, top int) error {
	fmt.Fprintf(w, "reports: %d", sum.Reports)
	if sum.Duplicates > 0 {
		fmt.Fprintf(w, "; read again: %d", sum.Duplicates)
	}
	fmt.Fprintln(w)
	for _, d := range sum.Domains {
		printReportedDomain(w, d, top)
	}
	for _, d := range sum.TLS {
		printReportedTLS(w, d, top)
	}
	return nil
}

func printReportedDomain(w io.Writer, d *reportread.Domain, top int) {
	fmt.Fprintf(w, "\n%s (%s), %s to %s\nmails: %d; DMARC passes: %s; quarantined: %d; rejected: %d\n", shown(d.Domain), shown(d.Policy),
		d.Begin.Format(time.DateOnly), d.End.Format(time.DateOnly), d.Messages, share(d.Passed, d.Messages), d.Quarantined, d.Rejected)
	fmt.Fprintf(w, "reported by %s\n", someOf(d.Reporters, 5))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nDAY\tMAILS\tPASS\tFAIL\t")
	for _, day := range d.Days {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", day.Day, day.Messages, share(day.Passed, day.Messages), day.Failed(), bar(day.Passed, day.Messages))
	}
	t.Flush()
	fmt.Fprintln(w)
	printSources(w, d.Sources, top)
}

// printSources prints a table of sources. Below each row it says why mail of the
// source failed.
func printSources(w io.Writer, sources []*reportread.Source, top int) {
	listed := sources
	if top > 0 {
		listed = sources[:min(len(sources), top)]
	}
	var table bytes.Buffer
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SOURCE\tMAILS\tDKIM\tSPF\tFAIL\tWHO IT PROBABLY IS")
	for _, s := range listed {
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%d\t%s\n", sourceName(s), s.Messages, share(s.DKIM, s.Messages), share(s.SPFPassed, s.Messages), s.Failed(), who(s))
	}
	t.Flush()
	head, _ := table.ReadString('\n')
	fmt.Fprint(w, head)
	for _, s := range listed {
		line, _ := table.ReadString('\n')
		fmt.Fprint(w, line)
		for _, why := range s.Why[:min(len(s.Why), shownReasons)] {
			fmt.Fprintf(w, "  %d: %s\n", why.Messages, cut(shown(why.Text), 160))
		}
	}
	if more := len(sources) - len(listed); more > 0 {
		fmt.Fprintf(w, "%d more; --top=0 lists all\n", more)
	}
}

func sourceName(s *reportread.Source) string {
	switch {
	case s.Hosts > 1:
		return fmt.Sprintf("%d hosts", s.Hosts)
	case s.Address == "":
		return "others"
	}
	return s.Address
}

func who(s *reportread.Source) string {
	var parts []string
	if s.Name != "" {
		name := shown(s.Name)
		if !s.Confirmed && s.Hosts == 1 {
			name += " (not confirmed)"
		}
		parts = append(parts, name)
	}
	if s.SPF != "" {
		parts = append(parts, shown(s.SPF))
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, "; ")
	case s.Lookup == reportread.LookupFailed:
		return "DNS does not answer"
	case s.Lookup == reportread.LookupNone:
		return "not looked up"
	}
	return "-"
}

func someOf(all []reportread.Count, most int) string {
	var parts []string
	for _, one := range all[:min(len(all), most)] {
		parts = append(parts, fmt.Sprintf("%s (%d)", cmp.Or(shown(one.Text), "someone"), one.Messages))
	}
	if len(all) > most {
		parts = append(parts, fmt.Sprintf("%d more", len(all)-most))
	}
	return strings.Join(parts, ", ")
}

func share(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	percent := strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64)
	if percent == "100.0" && part < whole {
		percent = "99.9"
	}
	return strings.TrimSuffix(percent, ".0") + "%"
}

func bar(part, whole int64) string {
	if whole == 0 {
		return ""
	}
	full := int(barWidth * float64(part) / float64(whole))
	return strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
}

func cut(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "..."
}

func printReportedTLS(w io.Writer, d *reportread.TLSDomain, top int) {
	fmt.Fprintf(w, "\nTLS to the mail hosts of %s, %s to %s\nsessions: %d; failed: %d\n", shown(d.Domain),
		d.Begin.Format(time.DateOnly), d.End.Format(time.DateOnly), d.Successful+d.Failed, d.Failed)
	fmt.Fprintf(w, "reported by %s\n", someOf(d.Reporters, 5))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nDAY\tSESSIONS\tENCRYPTED\tFAIL\t")
	for _, day := range d.Days {
		all := day.Successful + day.Failed
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", day.Day, all, share(day.Successful, all), day.Failed, bar(day.Successful, all))
	}
	if len(d.Failures) > 0 {
		fmt.Fprintln(t, "\nFAILED\tPOLICY\tRESULT\tOUR HOST\tSENDER\tWHY")
	}
	for i, f := range d.Failures {
		if top > 0 && i == top {
			fmt.Fprintf(t, "%d more; --top=0 lists all\n", len(d.Failures)-top)
			break
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\n", f.Sessions, shown(f.Policy), shown(f.Result), cmp.Or(shown(f.Host), "-"), cmp.Or(shown(f.Sender), "-"), cut(shown(f.Reason), 100))
	}
	t.Flush()
}

// printReportsCSV prints a line for each source, and for each kind of TLS failure.
func printReportsCSV(w io.Writer, sum *reportread.Summary) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"report", "domain", "source", "hosts", "name", "confirmed", "spf_record", "messages", "passed", "failed", "dkim_passed", "spf_passed", "quarantined", "rejected", "from", "why", "first", "last"})
	for _, d := range sum.Domains {
		for _, s := range d.Sources {
			_ = c.Write(cells("dmarc", d.Domain, s.Address, s.Hosts, s.Name, s.Confirmed, s.SPF, s.Messages, s.Passed, s.Failed(), s.DKIM, s.SPFPassed,
				s.Quarantined, s.Rejected, listed(s.From), listed(s.Why), s.First, s.Last))
		}
	}
	for _, d := range sum.TLS {
		first, last := d.Begin.Format(time.DateOnly), d.End.Format(time.DateOnly)
		_ = c.Write(cells("tls", d.Domain, "", "", "", "", "", d.Successful+d.Failed, d.Successful, d.Failed, "", "", "", "", "", "", first, last))
		for _, f := range d.Failures {
			_ = c.Write(cells("tls-failure", d.Domain, f.Sender, 1, "", "", "", f.Sessions, 0, f.Sessions, "", "", "", "", f.Host, f.Policy+": "+f.Result+": "+f.Reason, first, last))
		}
	}
	c.Flush()
	return c.Error()
}

// cells formats values for a spreadsheet. It puts an apostrophe before a value that a
// spreadsheet would run as a formula, and escapes what is not printable.
func cells(values ...any) []string {
	var all []string
	for _, v := range values {
		text := fmt.Sprint(v)
		if s, ok := v.(string); ok {
			text = shown(s)
			if first := strings.TrimLeft(text, " "); first != "" && strings.ContainsRune("=+-@|%", rune(first[0])) {
				text = "'" + text
			}
		}
		all = append(all, text)
	}
	return all
}

func listed(all []reportread.Count) string {
	var parts []string
	for _, one := range all {
		parts = append(parts, fmt.Sprintf("%s (%d)", one.Text, one.Messages))
	}
	return strings.Join(parts, " | ")
}
