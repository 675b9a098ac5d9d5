package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/doctor"
	"github.com/postern-mail/postern/internal/service"
)

// bindDKIMCheck answers 0 when everything is well, 1 for warnings, 2 for failures.
func bindDKIMCheck(fs *pflag.FlagSet) runner {
	o := doctor.Options{Version: service.Version()}
	fs.StringVar(&o.ConfigDirectory, "config-directory", "", "`folder` of Postfix's main.cf, for the address that mail leaves from (default what postconf says)")
	fs.StringVar(&o.Milterd.Config, "milterd-config", "", "configuration `file` of postern-milterd, for when it does not run (default that of its unit)")
	fs.StringVar(&o.Milterd.Admin, "milterd-admin", "", "`endpoint` of postern-milterd's admin socket, as its --admin has it")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, domains []string) (int, error) {
		findAdmin(&o.Milterd, api.Milterd)
		report, err := doctor.CheckDKIM(ctx, o, domains)
		if err != nil {
			return exitFailed, err
		}
		if err := context.Cause(ctx); err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return report.Status(), printJSON(io.out, report)
		}
		printDKIMReport(io.out, report)
		return report.Status(), nil
	}
}

// printDKIMReport prints the findings of each domain below its name. Findings about
// all domains are last.
func printDKIMReport(w io.Writer, r *doctor.DKIMReport) {
	for _, d := range r.Domains {
		fmt.Fprintln(w, d.Domain)
		printFindings(w, "  ", d.Findings)
		for _, key := range d.Keys {
			printServers(w, key)
		}
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(w, "all domains")
		printFindings(w, "  ", r.Findings)
	}
}

// printServers prints what each name server answers for a key.
func printServers(w io.Writer, key doctor.DKIMKey) {
	strs := ""
	if key.Strings > 1 {
		strs = fmt.Sprintf(" (%d strings)", key.Strings)
	}
	fmt.Fprintf(w, "  %s%s\n", printable(strings.Join(key.Names, " -> ")), strs)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range key.Servers {
		fmt.Fprintf(t, "    %s\t%s\t%s\n", printable(s.Server), s.Address, s.State)
	}
	t.Flush()
}
