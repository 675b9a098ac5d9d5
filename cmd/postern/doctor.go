package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/doctor"
	"github.com/postern-mail/postern/internal/service"
)

func doctorCommand() command {
	return command{
		path: "doctor", help: "check Postfix, the daemons and what they need, and print what is wrong and how to fix it",
		bind: bindDoctor, words: map[string][]string{"check": doctor.Names(), "skip": doctor.Names()},
	}
}

// bindDoctor answers 0 when everything is well, 1 for warnings, 2 for failures.
func bindDoctor(fs *pflag.FlagSet) runner {
	o := doctor.Options{Version: service.Version()}
	fs.StringVar(&o.ConfigDirectory, "config-directory", "", "`folder` of Postfix's main.cf (default what postconf says)")
	fs.StringVar(&o.Policyd.Config, "policyd-config", "", "configuration `file` of postern-policyd, for when it does not run (default that of its unit)")
	fs.StringVar(&o.Milterd.Config, "milterd-config", "", "configuration `file` of postern-milterd, for when it does not run (default that of its unit)")
	fs.StringVar(&o.Policyd.Admin, "policyd-admin", "", "`endpoint` of postern-policyd's admin socket, as its --admin has it")
	fs.StringVar(&o.Milterd.Admin, "milterd-admin", "", "`endpoint` of postern-milterd's admin socket, as its --admin has it")
	fs.StringVar(&o.Root, "root", "", "`folder` below which the files of other programs are, as for postern setup")
	fs.StringVar(&o.MailLog, "mail-log", "", "Postfix's log `file`, for the clients' addresses (default where Postfix or the system keeps it)")
	fs.StringSliceVar(&o.Only, "check", nil, "`names` of the checks to make; repeat, or put commas between them (default all)")
	fs.StringSliceVar(&o.Skip, "skip", nil, "`names` of checks to leave out")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		for _, name := range slices.Concat(o.Only, o.Skip) {
			if !slices.Contains(doctor.Names(), name) {
				return exitFailed, fmt.Errorf("no check %.40q; the checks are %s", name, strings.Join(doctor.Names(), ", "))
			}
		}
		findAdmin(&o.Policyd, api.Policyd)
		findAdmin(&o.Milterd, api.Milterd)
		report := doctor.Run(ctx, o)
		hideKeys(&report)
		if err := context.Cause(ctx); err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return report.Status(), printJSON(io.out, report)
		}
		printReport(io.out, report)
		return report.Status(), nil
	}
}

// findAdmin fills in the admin socket that the settings of a daemon name.
func findAdmin(o *doctor.DaemonOptions, daemon string) {
	if o.Admin == "" {
		o.Admin = configuredClient(daemon, cmp.Or(o.Config, settingsOf(daemon))).Endpoint()
	}
}

// hideKeys masks the keys of DQS: findings quote parameters of Postfix.
func hideKeys(r *doctor.Report) {
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Text, f.Fix = dnsbl.HideKeys(f.Text), dnsbl.HideKeys(f.Fix)
	}
}

// printReport prints one line for each finding.
func printReport(w io.Writer, r doctor.Report) { printFindings(w, "", r.Findings) }

func printFindings(w io.Writer, indent string, found []doctor.Finding) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		fmt.Fprintf(t, "%s%s\t%s\t%s\n", indent, f.Level, f.Check, findingText(f))
	}
	t.Flush()
}

// findingText returns what was found and how to fix it.
func findingText(f doctor.Finding) string {
	if f.Fix == "" {
		return printable(f.Text)
	}
	return printable(f.Text) + "; fix: " + printable(f.Fix)
}
