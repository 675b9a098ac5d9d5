package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func restartGroup() group {
	return group{"restart", "Have a daemon replace itself, without a connection refused.", []command{
		{path: "restart policyd", help: "start the policy daemon anew, and end the old one when the new one serves", bind: bindRestart(policydClient)},
		{path: "restart milterd", help: "start the milter daemon anew; open sessions go on in the old one", bind: bindRestart(milterdClient)},
	}}
}

func bindRestart(find func(*pflag.FlagSet) *admin.Client) func(*pflag.FlagSet) runner {
	return func(fs *pflag.FlagSet) runner {
		client := find(fs)
		return func(ctx context.Context, io streams, args []string) (int, error) {
			if len(args) != 0 {
				return exitFailed, errUsage
			}
			var done bool
			if err := client.Call(ctx, api.Restart, nil, &done, nil); err != nil {
				if ctx.Err() != nil {
					err = fmt.Errorf("%w; the restart goes on, and the daemon's log has its outcome", err)
				}
				return exitFailed, err
			}
			fmt.Fprintf(io.out, "%s: a new process serves\n", client.Daemon)
			return exitYes, nil
		}
	}
}
