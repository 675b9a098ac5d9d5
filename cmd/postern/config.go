package main

import (
	"context"
	"errors"
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
	at := fs.String("admin", "", "`endpoint` of the daemon's admin socket, as its --admin has it (default that of the daemon)")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		clients, err := configClients(args, *at)
		if err != nil {
			return exitFailed, err
		}
		return showConfig(ctx, io, clients, *set)
	}
}

// configClients are the daemons to ask: the one that args name, or both.
func configClients(args []string, at string) ([]*admin.Client, error) {
	both := map[string]*admin.Client{
		"policyd": {Daemon: api.Policyd, Path: api.PolicydSocket},
		"milterd": {Daemon: api.Milterd, Path: api.MilterdSocket},
	}
	if len(args) == 0 && at == "" {
		return []*admin.Client{both["policyd"], both["milterd"]}, nil
	}
	if len(args) != 1 {
		return nil, errUsage
	}
	one := both[strings.TrimPrefix(args[0], "postern-")]
	if one == nil {
		return nil, fmt.Errorf("no daemon %.40q; write policyd or milterd", args[0])
	}
	if at == "" {
		return []*admin.Client{one}, nil
	}
	return []*admin.Client{one}, one.SetEndpoint(at)
}

// showConfig prints what each daemon runs with. Of several, one that does not run
// is passed over.
func showConfig(ctx context.Context, io streams, clients []*admin.Client, set bool) (code int, err error) {
	var errs []error
	for _, c := range clients {
		var answer api.ConfigResult
		if err := c.Call(ctx, api.Config, struct{}{}, &answer, nil); err != nil {
			errs = append(errs, err)
			continue
		}
		if !printConfig(io.out, c.Daemon, answer, set) {
			code = exitNo
		}
	}
	if len(errs) == len(clients) {
		return exitFailed, errors.Join(errs...)
	}
	for _, err := range errs {
		fmt.Fprintf(io.err, "postern config: %v\n", err)
	}
	return code, nil
}

// printConfig writes the settings as a configuration file, and reports whether
// nothing waits to come into force.
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
