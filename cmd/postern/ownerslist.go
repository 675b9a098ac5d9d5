package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
)

func bindOwnersList(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) == 0 {
			return exitFailed, errUsage
		}
		var answer api.OwnersListResult
		if err := client.Call(ctx, api.OwnersList, api.OwnersListArgs{Login: args[0], Senders: args[1:]}, &answer, nil); err != nil {
			return exitFailed, err
		}
		code := exitYes
		if len(answer.Entries) == 0 {
			code = exitNo
		}
		if *asJSON {
			return code, printJSON(io.out, answer)
		}
		return code, printOwnersList(io, answer)
	}
}

func printOwnersList(io streams, a api.OwnersListResult) error {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	for _, e := range a.Entries {
		at := e.Where
		if at == "" {
			at = e.Map
		}
		if len(e.Via) > 0 {
			at += " via " + strings.Join(e.Via, ", ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", e.Sender, e.How, at)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if a.Truncated {
		fmt.Fprintln(io.out, "(there are more)")
	}
	if tables := slices.Compact(slices.Sorted(slices.Values(a.Unread))); len(tables) > 0 {
		fmt.Fprintf(io.out, "%s cannot be listed: such a table says who owns a sender, not what a login owns; name senders after LOGIN to ask for them\n", strings.Join(tables, ", "))
	}
	return nil
}
