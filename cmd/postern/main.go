// Postern is the administrator's command: it asks the running daemons over
// their admin sockets.
//
// The command contains the code of both daemons, because it explains what they do.
// When it is started under the name of a daemon, it runs that daemon: the container
// image has one file with three names.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/service"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case api.Policyd:
		os.Exit(policyd.Main(service.MainProcess()))
	case api.Milterd:
		os.Exit(milterd.Main(service.MainProcess()))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, func() {
		if len(os.Args) > 1 && os.Args[1] == "setup" {
			// It takes back what it has begun, by programs that get a second signal too.
			signal.Ignore(os.Interrupt)
			return
		}
		stop() // a second signal ends the program, whatever it waits for
	})
	code := run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}
