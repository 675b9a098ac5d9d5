package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

func readyCommand() command {
	return command{
		path: "ready", args: "[policyd|milterd]", help: "whether the daemons of this machine or container can take work (exit status 0), and which condition fails",
		bind: bindReady, words: map[string][]string{"": {"policyd", "milterd"}},
	}
}

// readyTimeout is how long a daemon may take to answer. A daemon that is stopped or
// hangs is not ready.
const readyTimeout = 5 * time.Second

func bindReady(fs *pflag.FlagSet) runner {
	at := atFlag(fs)
	return func(ctx context.Context, io streams, args []string) (int, error) {
		clients, err := namedDaemons(args, *at)
		if err != nil {
			return exitFailed, err
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		return showReady(ctx, io, clients)
	}
}

// showReady asks each daemon. If there are several, a daemon without a socket is
// ignored: it does not run here, as in a container for the other daemon.
func showReady(ctx context.Context, io streams, clients []*admin.Client) (code int, err error) {
	var missing []error
	for _, c := range clients {
		var answer api.ReadyResult
		err := c.Call(ctx, api.Ready, nil, &answer, nil)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, err)
		case err != nil:
			return exitFailed, err
		case answer.Ready:
			fmt.Fprintf(io.out, "%s: ready\n", c.Daemon)
		default:
			code = exitNo
			fmt.Fprintf(io.out, "%s: not ready\n", c.Daemon)
			for line := range strings.Lines(answer.Report) {
				fmt.Fprintf(io.out, "  %s\n", strings.TrimSpace(line))
			}
		}
	}
	if len(missing) == len(clients) {
		return exitFailed, errors.Join(missing...)
	}
	return code, nil
}
