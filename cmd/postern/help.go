package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/service"
)

// printHelp prints the help of the whole command, of a group, or of one command.
func printHelp(w io.Writer, c *cobra.Command) {
	path := strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "postern"), " ")
	if c.HasSubCommands() {
		fmt.Fprintf(w, "%s\n\n", c.Short)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, one := range commands() {
			if strings.HasPrefix(one.path+" ", strings.TrimLeft(path+" ", " ")) {
				fmt.Fprintf(t, "  postern %s %s\t%s\n", one.path, one.args, one.help)
			}
		}
		t.Flush()
		fmt.Fprintln(w, "\n`postern COMMAND --help` lists a command's flags.")
		return
	}
	for _, one := range commands() {
		if one.path == path {
			fmt.Fprintf(w, "%s\n\nUsage: %s\n\n%s", one.help, one.usage(), c.LocalFlags().FlagUsages())
		}
	}
}

func versionCommand() command {
	bind := func(*pflag.FlagSet) runner {
		return func(_ context.Context, io streams, args []string) (int, error) {
			if len(args) != 0 {
				return exitFailed, errUsage
			}
			fmt.Fprintln(io.out, "postern", service.Version())
			return exitYes, nil
		}
	}
	return command{path: "version", help: "the release", bind: bind}
}
