package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
)

func ownersGroup() group {
	return group{"owners", "Ask who may use which sender and From.", []command{
		{path: "owners check", args: "SENDER LOGIN", help: "may LOGIN use the envelope sender SENDER, and by which entry; with --header FILE in SENDER's place, may LOGIN send that message with its From", bind: bindOwnersCheck},
		{path: "owners list", args: "LOGIN [SENDER ...]", help: "which senders LOGIN owns, as far as the tables can be listed", bind: bindOwnersList},
		{path: "owners reload", help: "read the tables and allow lists again", bind: bindOwnersReload},
	}}
}

func bindOwnersCheck(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	header := bindHeader(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if header.file != "" {
			return header.check(ctx, io, client, args, *asJSON)
		}
		if len(args) != 2 {
			return exitFailed, errUsage
		}
		ask := api.OwnersCheckArgs{Sender: args[0], Login: args[1]}
		var answer api.OwnersCheckResult
		if err := client.Call(ctx, api.OwnersCheck, ask, &answer, nil); err != nil {
			return exitFailed, err
		}
		code := exitNo
		if answer.Allowed {
			code = exitYes
		}
		if *asJSON {
			return code, printJSON(io.out, answer)
		}
		printOwners(io, ask, answer)
		return code, nil
	}
}

func printOwners(io streams, ask api.OwnersCheckArgs, a api.OwnersCheckResult) {
	word := "no"
	if a.Allowed {
		word = "yes"
	}
	fmt.Fprintf(io.out, "%s: %s may %suse %s (%s)\n", word, ask.Login, map[bool]string{false: "not "}[a.Allowed], ask.Sender, a.Reason)
	for _, line := range []struct{ name, value string }{
		{"queued", a.Queued}, {"map", a.Map}, {"key", a.Key}, {"entry", a.Entry}, {"at", a.Where},
		{"via", strings.Join(a.Via, ", ")},
		{"owners", strings.Join(a.Owners, ", ")}, {"reply", a.Reply},
	} {
		if line.value != "" {
			fmt.Fprintf(io.out, "  %-7s %s\n", line.name, line.value)
		}
	}
	if a.Shadow {
		fmt.Fprintln(io.out, "  (the check is shadowed: mail is not refused)")
	}
}

func bindOwnersReload(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	force := forceFlag(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		return reload(ctx, io, client, *force)
	}
}
