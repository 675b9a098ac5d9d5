package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
)

// headerFlags are the flags for questions about the header of a message, which
// postern-milterd answers.
type headerFlags struct {
	flags        *pflag.FlagSet
	file, sender string
}

func bindHeader(fs *pflag.FlagSet) *headerFlags {
	h := &headerFlags{flags: fs}
	fs.StringVar(&h.file, "header", "", "ask postern-milterd about the From, Sender and Resent-From of the message in `FILE`; - for standard input")
	fs.StringVar(&h.sender, "sender", "", "with --header: the envelope `sender`, which counts when the message has no From (default LOGIN)")
	return h
}

// check asks the daemon about the message.
func (h *headerFlags) check(ctx context.Context, io streams, client *admin.Client, args []string, asJSON bool) (int, error) {
	if len(args) != 1 {
		return exitFailed, errUsage
	}
	client.Daemon = api.Milterd
	if !h.flags.Changed("admin") {
		client = configuredClient(api.Milterd, api.MilterdConfig)
	}
	ask := api.OwnersHeaderArgs{Login: args[0], Sender: args[0]}
	if h.flags.Changed("sender") {
		ask.Sender = h.sender
	}
	file, err := openMessage(ctx, h.file)
	if err != nil {
		return exitFailed, err
	}
	defer file.Close()
	if ask.Fields, err = milterd.NamingFields(file); err != nil {
		return exitFailed, fmt.Errorf("%s: %w", h.file, err)
	}
	var answer api.OwnersHeaderResult
	if err := client.Call(ctx, api.OwnersHeader, ask, &answer, nil); err != nil {
		return exitFailed, olderDaemon(client, err, "cannot judge a header")
	}
	code := exitNo
	if answer.Allowed {
		code = exitYes
	}
	if asJSON {
		return code, printJSON(io.out, answer)
	}
	printOwnersHeader(io, ask.Login, h.file, answer)
	return code, nil
}

// printOwnersHeader escapes text from strangers, so that it cannot control the
// terminal.
func printOwnersHeader(io streams, login, file string, a api.OwnersHeaderResult) {
	word := "no: %s may not send %s (%s)\n"
	if a.Allowed {
		word = "yes: %s may send %s (%s)\n"
	}
	fmt.Fprintf(io.out, word, login, file, a.Reason)
	for _, line := range []struct{ name, value string }{
		{"field", a.Field}, {"address", a.Address}, {"map", a.Map}, {"key", a.Key}, {"at", a.Where},
		{"via", strings.Join(a.Via, ", ")}, {"owners", strings.Join(a.Owners, ", ")},
		{"shows", strings.Join(a.Display, ", ")}, {"problem", a.Problem}, {"reply", a.Reply},
	} {
		if line.value != "" {
			fmt.Fprintf(io.out, "  %-7s %s\n", line.name, shown(line.value))
		}
	}
	if a.Shadow {
		fmt.Fprintln(io.out, "  (From ownership is shadowed: mail is not refused)")
	}
}
