package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
)

func bindExplainWhose(fs *pflag.FlagSet) runner {
	var args milterd.WhoseArgs
	fs.StringVar(&args.Socket, "socket", "", "the `socket` at which Postfix presents a mail: sign, verify or any; then the row that applies is marked")
	fs.StringVar(&args.Login, "login", "", "`name` with which the client has logged in ({auth_authen})")
	fs.StringVar(&args.Daemon, "daemon-name", "", "milter_macro_daemon_`name` of the service")
	fs.StringVar(&args.Client, "ip", "", "`address` of the client")
	fs.String("config", api.MilterdConfig, "the daemon's configuration `file`, read when it exists")
	asJSON := fs.Bool("json", false, "print everything as JSON")
	return func(_ context.Context, io streams, rest []string) (int, error) {
		if len(rest) != 0 {
			return exitFailed, errUsage
		}
		args.Settings = givenFlags(fs, []string{"config"})
		if args.Socket == "" && (args.Login != "" || args.Daemon != "" || args.Client != "") {
			args.Socket = milterd.SocketAny
		}
		x, err := milterd.ExplainWhose(args)
		if err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return exitYes, printJSON(io.out, x)
		}
		printWhose(io.out, x)
		return exitYes, nil
	}
}

// printWhose prints the table; a star marks the row that applies.
func printWhose(w io.Writer, x *api.WhoseExplained) {
	fmt.Fprintln(w, "sockets:")
	for _, socket := range x.Sockets {
		fmt.Fprintf(w, "  %s\n", shown(socket))
	}
	fmt.Fprintln(w, "\nwhose mail it is: the first row that applies")
	does := map[string]string{"sign": "ours: signed", "verify": "not ours: verified"}
	for _, row := range x.Rows {
		mark, when := " ", row.When
		if row.Whose == x.Applies {
			mark = "*"
		}
		if row.Set != "" {
			when += " (" + row.Set + ")"
		}
		fmt.Fprintf(w, "%s %-17s %-19s %s\n", mark, row.Whose, does[row.Role], shown(when))
	}
	fmt.Fprintln(w, "\nof our mail, not signed (again):")
	for _, row := range x.Own {
		fmt.Fprintf(w, "  %-17s %-19s %s\n", row.Whose, "passes as it is", row.When)
	}
}
