package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func configCommand() command {
	return command{
		path: "config", args: "[policyd|milterd]", help: "what the running daemons are set to, where each value comes from, and what is pending",
		bind: bindConfig, words: map[string][]string{"": {"policyd", "milterd"}},
	}
}

func bindConfig(fs *pflag.FlagSet) runner {
	set := fs.Bool("set", false, "leave out what is at its default")
	at := atFlag(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		clients, err := namedDaemons(args, *at)
		if err != nil {
			return exitFailed, err
		}
		return showConfig(ctx, io, clients, *set)
	}
}

// showConfig prints the settings with which each daemon runs.
func showConfig(ctx context.Context, io streams, clients []*admin.Client, set bool) (code int, err error) {
	err = eachDaemon(io, "config", clients, func(c *admin.Client) error {
		var answer api.ConfigResult
		if err := c.Call(ctx, api.Config, struct{}{}, &answer, nil); err != nil {
			return err
		}
		if !printConfig(io.out, c.Daemon, answer, set) {
			code = exitNo
		}
		return nil
	})
	if err != nil {
		return exitFailed, err
	}
	return code, nil
}

// printConfig writes the settings as a configuration file, and reports whether all of
// them are in force.
func printConfig(w io.Writer, daemon string, a api.ConfigResult, set bool) (inForce bool) {
	fmt.Fprintf(w, "# %s\n", daemon)
	inForce = a.Refused == ""
	for line := range strings.Lines(a.Refused) {
		fmt.Fprintf(w, "# refused: %s\n", strings.TrimSuffix(line, "\n"))
	}
	for _, s := range a.Settings {
		if !set || s.Origin != "default" || s.Pending != "" {
			fmt.Fprintf(w, "%s = %s  # %s\n", s.Name, s.Value, s.Origin)
		}
		if s.Pending == "" {
			continue
		}
		inForce = false
		needs := "a reload"
		if s.Restart {
			needs = "a restart"
		}
		fmt.Fprintf(w, "# pending %s: %s = %s  # %s\n", needs, s.Name, s.Pending, s.PendingOrigin)
	}
	return inForce
}
