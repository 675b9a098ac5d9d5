package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/service"
)

// Exit codes. A question with the answer "no" is not a failure of the command,
// but scripts want to tell it from "yes".
const (
	exitYes    = 0
	exitNo     = 1
	exitFailed = 2
)

type streams struct{ out, err io.Writer }

// command is one thing that can be asked.
type command struct {
	path string // the words that name it: "owners check"
	args string // what follows, for the usage line
	help string // one line
	bind func(*pflag.FlagSet) runner
}

// runner does it, with the arguments that follow the flags.
type runner func(ctx context.Context, io streams, args []string) (code int, err error)

// commands is the list of everything that can be asked.
func commands() []command {
	return []command{
		{"explain message", "FILE", "how a message would be verified: every DNS answer, SPF step and signature, and the header it gets", bindExplainMessage},
		{"owners check", "SENDER LOGIN", "may LOGIN use the envelope sender SENDER, and by which entry", bindOwnersCheck},
		{"owners list", "LOGIN [SENDER ...]", "which senders LOGIN owns, as far as the tables can be read backwards", bindOwnersList},
		{"dnsbl check", "ADDRESS|NAME", "what every DNS list says about an address or a name", bindDNSBLCheck},
		{"dnsbl selftest", "", "test every DNS list now, as RFC 5782 has it", bindDNSBLSelfTest},
		{"greylist list", "", "what the greylist holds", bindGreylistList},
		{"greylist show", "CLIENT SENDER RECIPIENT", "what would become of a mail, and by which entries", bindGreylistShow},
		{"greylist allow", "[DOMAIN@]CLIENT", "never delay a client", bindGreylistAllow},
		{"greylist delete", "", "forget entries", bindGreylistDelete},
		{"greylist stats", "", "count entries by their state", bindGreylistStats},
		{"greylist import", "", "take over what postgrey or sqlgrey has remembered", bindGreylistImport},
		{"dkim genkey", "DOMAIN", "make signing keys and their DNS records", bindDKIMGenkey},
		{"dkim dns", "[DOMAIN ...]", "the DNS records of all signing keys, to paste into a zone", bindDKIMDNS},
		{"dkim keys", "", "which keys the running daemon signs with", bindDKIMKeys},
	}
}

// errUsage asks for the command's usage line.
var errUsage = errors.New("wrong number of arguments")

func run(ctx context.Context, args []string, io streams) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		usage(io.out)
		return exitYes
	}
	if args[0] == "version" || args[0] == "--version" {
		fmt.Fprintln(io.out, "postern", service.Version())
		return exitYes
	}
	c, rest, ok := find(args)
	if !ok {
		fmt.Fprintf(io.err, "postern: no command %q; `postern help` lists them\n", strings.Join(args, " "))
		return exitFailed
	}
	code, err := c.execute(ctx, io, rest)
	if err != nil {
		fmt.Fprintf(io.err, "postern %s: %v\n", c.path, err)
		return exitFailed
	}
	return code
}

// find splits the words that name a command from what follows them.
func find(args []string) (c command, rest []string, ok bool) {
	for _, c := range commands() {
		words := strings.Fields(c.path)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.path {
			return c, args[len(words):], true
		}
	}
	return command{}, nil, false
}

func (c command) execute(ctx context.Context, io streams, args []string) (int, error) {
	fs := pflag.NewFlagSet(c.path, pflag.ContinueOnError)
	fs.Usage = func() {}
	run := c.bind(fs)
	err := fs.Parse(args)
	if err == nil {
		var code int
		if code, err = run(ctx, io, fs.Args()); !errors.Is(err, errUsage) {
			return code, err
		}
	}
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintf(io.out, "%s\n\nUsage: postern %s [flags] %s\n\n%s", c.help, c.path, c.args, fs.FlagUsages())
		return exitYes, nil
	}
	return exitFailed, fmt.Errorf("%w; usage: postern %s [flags] %s", err, c.path, c.args)
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "The administrator's command of the Postern policy and milter daemons.")
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(t, "  postern %s %s\t%s\n", c.path, c.args, c.help)
	}
	fmt.Fprintf(t, "  postern version\tthe release\n")
	t.Flush()
	fmt.Fprintln(w, "\n`postern COMMAND --help` lists a command's flags.")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
