package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func reloadCommand() command {
	return command{
		path: "reload", args: "[policyd|milterd]", help: "read the settings, tables, keys and allow lists again",
		bind: bindReload, words: map[string][]string{"": {"policyd", "milterd"}},
	}
}

func bindReload(fs *pflag.FlagSet) runner {
	force, at := forceFlag(fs), atFlag(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		clients, err := namedDaemons(args, *at)
		if err != nil {
			return exitFailed, err
		}
		code := exitYes
		err = eachDaemon(io, "reload", clients, func(c *admin.Client) error {
			one, err := reload(ctx, io, c, *force)
			if err == nil {
				code = max(code, one)
			}
			return err
		})
		if err != nil {
			return exitFailed, err
		}
		return code, nil
	}
}

func forceFlag(fs *pflag.FlagSet) *bool {
	return fs.Bool("force", false, "use what is held back because it would lose more than half of its entries")
}

// reload asks one daemon.
func reload(ctx context.Context, io streams, client *admin.Client, force bool) (code int, err error) {
	var answer api.ReloadResult
	if err := client.Call(ctx, api.Reload, api.ReloadArgs{Force: force}, &answer, nil); err != nil {
		return exitFailed, err
	}
	code = exitYes
	for _, name := range answer.Held {
		if slices.Contains(answer.Taken, name) {
			fmt.Fprintf(io.out, "%s: used as it is from now on\n", name)
			continue
		}
		code = exitNo
		fmt.Fprintf(io.out, "%s: held back, it would lose more than half of its entries; correct it, or use it with --force\n", name)
	}
	fmt.Fprintf(io.out, "%s: a reload was asked for; the daemon's log has its outcome\n", client.Daemon)
	return code, nil
}
