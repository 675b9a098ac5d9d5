package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/service"
)

// Exit codes. The answer "no" is not a failure of the command, but scripts need to
// distinguish it from "yes".
const (
	exitYes    = 0
	exitNo     = 1
	exitFailed = 2
)

type streams struct{ out, err io.Writer }

// group is the first word of several commands, and these commands. Each group has its
// own file.
type group struct {
	name     string
	help     string // one line
	commands []command
}

// command is one command of the program.
type command struct {
	path  string // the words that name it: "owners check"
	args  string // what follows, for the usage line
	help  string // one line
	bind  func(*pflag.FlagSet) runner
	files bool                // the arguments are files, for completion
	words map[string][]string // the values of flags that take one of a few words, likewise; "" for arguments
}

// runner runs a command with the arguments that follow the flags.
type runner func(ctx context.Context, io streams, args []string) (code int, err error)

// groups returns all groups in the order of the help.
func groups() []group {
	return []group{explainGroup(), ownersGroup(), dnsblGroup(), greylistGroup(), limitsGroup(), dkimGroup(), dmarcGroup(), restartGroup()}
}

// commands returns all commands.
func commands() []command {
	var all []command
	for _, g := range groups() {
		all = append(all, g.commands...)
	}
	return append(all, single()...)
}

// single returns the commands that are in no group.
func single() []command {
	return []command{setupCommand(), doctorCommand(), logCommand(), replayCommand(), configCommand(), readyCommand(), reloadCommand(), completionCommand(), versionCommand()}
}

// errUsage makes run print the usage line of the command.
var errUsage = errors.New("wrong number of arguments")

// run is the whole command: it runs args and returns the exit status.
func run(ctx context.Context, args []string, io streams) int {
	code := exitYes
	out := &checkedOut{Writer: io.out}
	io.out = out
	root := newRoot(io, &code)
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	if at, ok := isKnown(root, args); !ok {
		fmt.Fprintf(io.err, "postern: no command %q; %s\n", strings.Join(args, " "), whatThereIs(at))
		return exitFailed
	}
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	if err != nil {
		fmt.Fprintf(io.err, "%s: %v\n", ran.CommandPath(), err)
		return exitFailed
	}
	if out.err != nil { // the answer, or a part of it, was lost
		fmt.Fprintf(io.err, "%s: %v\n", ran.CommandPath(), out.err)
		return exitFailed
	}
	return code
}

// checkedOut is standard output. It keeps the first error, because a command that prints
// does not look at each: a script must not take half an answer for a whole one.
type checkedOut struct {
	io.Writer
	err error
}

func (c *checkedOut) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// newRoot builds the tree of all commands. The command that runs writes its exit
// status to code.
func newRoot(io streams, code *int) *cobra.Command {
	root := &cobra.Command{
		Use:               "postern",
		Short:             "The administrator's command of the Postern policy and milter daemons.",
		Version:           service.Version(),
		SilenceErrors:     true, // run prints them, in one line
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetVersionTemplate("postern {{.Version}}\n")
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { printHelp(io.out, c) })
	for _, g := range groups() {
		parent := &cobra.Command{Use: g.name, Short: g.help}
		for _, c := range g.commands {
			parent.AddCommand(c.build(io, code))
		}
		root.AddCommand(parent)
	}
	for _, c := range single() {
		root.AddCommand(c.build(io, code))
	}
	return root
}

// build converts c to a cobra command.
func (c command) build(io streams, code *int) *cobra.Command {
	name := c.path[strings.LastIndexByte(c.path, ' ')+1:]
	built := &cobra.Command{Use: strings.TrimSpace(name + " " + c.args), Short: c.help, DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs}
	run := c.bind(built.Flags())
	built.Flags().BoolP("help", "h", false, "print this help and exit")
	built.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return c.usageError(err) })
	built.RunE = func(cmd *cobra.Command, args []string) (err error) {
		findSockets(cmd.Flags(), settingsOf)
		if *code, err = run(cmd.Context(), io, args); errors.Is(err, errUsage) {
			return c.usageError(err)
		}
		return err
	}
	if !c.files {
		built.ValidArgsFunction = cobra.FixedCompletions(cobraWords(c.words[""]), cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, words := range c.words {
		if flag != "" {
			_ = built.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(cobraWords(words), cobra.ShellCompDirectiveNoFileComp))
		}
	}
	return built
}

func cobraWords(words []string) []cobra.Completion { return words }

func (c command) usageError(err error) error {
	return fmt.Errorf("%w; usage: %s", err, c.usage())
}

func (c command) usage() string {
	return strings.TrimSpace("postern " + c.path + " [flags] " + c.args)
}

// isKnown reports whether args name a command, or ask for help or the release, and
// returns the last command or group that they name. Flags come after the name of the
// command.
func isKnown(root *cobra.Command, args []string) (at *cobra.Command, ok bool) {
	if args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd {
		return root, true
	}
	at = root
	for len(args) > 0 {
		below := child(at, args[0])
		if below == nil {
			break
		}
		at, args = below, args[1:]
	}
	if !at.HasSubCommands() {
		return at, true // a command: what follows is its own
	}
	return at, len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || at == root && args[0] == "--version")
}

// whatThereIs is the advice after a command that does not exist: the words that may
// follow the name of a group.
func whatThereIs(at *cobra.Command) string {
	if !at.HasParent() {
		return "`postern help` lists them"
	}
	var words []string
	for _, c := range at.Commands() {
		words = append(words, c.Name())
	}
	return fmt.Sprintf("after %s comes one of %s; `postern %[1]s --help` explains them", at.Name(), strings.Join(words, ", "))
}

func child(of *cobra.Command, name string) *cobra.Command {
	for _, c := range of.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}
