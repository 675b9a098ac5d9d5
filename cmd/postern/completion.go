package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

func completionCommand() command {
	return command{
		path: "completion", args: "bash|zsh|fish", help: "the completion script of a shell",
		bind: bindCompletion, words: map[string][]string{"": {"bash", "zsh", "fish"}},
	}
}

func bindCompletion(*pflag.FlagSet) runner {
	return func(_ context.Context, io streams, args []string) (int, error) {
		if len(args) != 1 {
			return exitFailed, errUsage
		}
		root := newRoot(io, new(int))
		switch args[0] {
		case "bash":
			return exitYes, root.GenBashCompletionV2(io.out, true)
		case "zsh":
			return exitYes, root.GenZshCompletion(io.out)
		case "fish":
			return exitYes, root.GenFishCompletion(io.out, true)
		}
		return exitFailed, fmt.Errorf("no completion for shell %q; there is one for bash, zsh and fish", args[0])
	}
}
