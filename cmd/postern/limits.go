package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
)

// limitKeys are the values of --key.
var limitKeys = []string{"login", "login-domain", "sender", "sender-domain", "client", "network", "recipient", "global"}

func limitsGroup() group {
	keys := map[string][]string{"key": limitKeys}
	return group{"limits", "See who sends how much, lift a limit, and block an account.", []command{
		{path: "limits list", help: "who has used most of a limit, and who is blocked", bind: bindLimitsList, words: keys},
		{path: "limits show", args: "LOGIN", help: "everything about a login: its limits, networks and overrides", bind: bindLimitsOf(api.LimitsShow, printLimitsShow), words: keys},
		{path: "limits reset", args: "LOGIN", help: "forget what was counted for a login", bind: bindLimitsOf(api.LimitsReset, printLimitsReset), words: keys},
		{path: "limits block", args: "LOGIN [DURATION]", help: "refuse all mail of a login at once, on every host with this store", bind: bindLimitsBlock},
		{path: "limits unblock", args: "LOGIN", help: "lift a block", bind: bindLimitsUnblock},
		{path: "limits suggest", help: "limits that would have affected few logins, from what was counted", bind: bindLimitsSuggest},
	}}
}

func limitKey(fs *pflag.FlagSet, usage string) *string { return fs.String("key", "", usage) }

// asked runs a command and prints its answer, as JSON or with print, which returns the
// exit status.
func asked[A any](std streams, call func(any) error, asJSON bool, print func(io.Writer, *A) int) (int, error) {
	answer := new(A)
	if err := call(answer); err != nil {
		return exitFailed, err
	}
	if asJSON {
		code := print(io.Discard, answer)
		return code, printJSON(std.out, answer)
	}
	return print(std.out, answer), nil
}

func bindLimitsList(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	key := limitKey(fs, "only limits of this `key`, as login")
	most := fs.Int("limit", 0, "list at most so many (0: 20)")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		call := func(answer any) error {
			return client.Call(ctx, api.LimitsList, api.LimitsListArgs{Key: *key, Limit: *most}, answer, nil)
		}
		return asked(std, call, *asJSON, printLimitsList)
	}
}

func printLimitsList(w io.Writer, r *api.LimitsListResult) int {
	if r.Down != "" {
		fmt.Fprintf(w, "the %s store does not answer: %s\n", r.Store, printable(r.Down))
	}
	printUnsaved(w, r.Unsaved)
	if r.Unasked {
		fmt.Fprintln(w, "Postfix asks about mail of users and not for their limits, so nothing is counted; run postern setup --apply, or name limit in the policy_context of the hook for users")
	}
	printOverridesUnknown(w, r.Unknown)
	for _, b := range r.Blocks {
		printBlock(w, &b)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARE\tUSED\tLIMIT\tOF\tACTION\tROOM IN\tLAST")
	for _, u := range r.Uses {
		fmt.Fprintf(t, "%d%%\t%d\t%s\t%s\t%s\t%s\t%s\n", u.Percent, u.Used, u.Limit, printable(u.Value), u.Action, span(u.Wait), clock(u.Last))
	}
	_ = t.Flush()
	if r.More > 0 {
		fmt.Fprintf(w, "%d more\n", r.More)
	}
	return exitYes
}

func printUnsaved(w io.Writer, unsaved bool) {
	if unsaved {
		fmt.Fprintln(w, "the limit file cannot be written: what is new is in memory, and lost if the daemon ends; make room on the disk or the file writable (the log has the reason)")
	}
}

func printOverridesUnknown(w io.Writer, unknown string) {
	if unknown != "" {
		fmt.Fprintf(w, "  overrides cannot be looked up, these are the general limits: %s; see that limit-overrides answers\n", printable(unknown))
	}
}

// span formats a number of seconds for people; 0 is "-".
func span(seconds int) string {
	if seconds == 0 {
		return "-"
	}
	return (time.Duration(seconds) * time.Second).String()
}

func printLimitShadow(w io.Writer, shadow bool) {
	if shadow {
		fmt.Fprintln(w, "  the limit check is only watched: nothing is refused")
	}
}

func printBlock(w io.Writer, b *api.LimitBlock) {
	until := "until it is lifted"
	if b.Until != nil {
		until = "until " + clock(b.Until)
	}
	fmt.Fprintf(w, "%s is blocked since %s, %s\n", printable(b.Login), clock(&b.Since), until)
}

// bindLimitsOf binds a command about the limits of one login.
func bindLimitsOf[A any](command string, print func(io.Writer, *A) int) func(*pflag.FlagSet) runner {
	return func(fs *pflag.FlagSet) runner {
		client := policydClient(fs)
		key := limitKey(fs, "what LOGIN is a value of: login, sender, network or another `key`")
		asJSON := fs.Bool("json", false, "print the answer as JSON")
		return func(ctx context.Context, std streams, args []string) (int, error) {
			if len(args) != 1 {
				return exitFailed, errUsage
			}
			call := func(answer any) error {
				return client.Call(ctx, command, api.LimitsOfArgs{Value: args[0], Key: *key}, answer, nil)
			}
			return asked(std, call, *asJSON, print)
		}
	}
}

// printLimitsShow returns exitNo for a login that cannot send mail now: it is blocked or
// has reached a limit, and the check is not only watched. From the networks that are
// counted, a login may send when it has reached a limit of networks.
func printLimitsShow(w io.Writer, r *api.LimitsShowResult) int {
	code := exitYes
	refuses := exitNo
	if r.Shadow {
		refuses = exitYes
	}
	fmt.Fprintf(w, "%s %s\n", r.Key, printable(r.Value))
	printLimitShadow(w, r.Shadow)
	if r.Block != nil {
		fmt.Fprint(w, "  ")
		printBlock(w, r.Block)
		code = refuses
	}
	printOverridesUnknown(w, r.Unknown)
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	for _, u := range r.Uses {
		note := ""
		if u.Used >= u.Count {
			note = "reached: " + u.Action
			switch {
			case u.Action != "defer" && u.Action != "reject":
			case u.Unit == "networks":
				note += " from other networks"
			default:
				code = refuses
			}
		}
		fmt.Fprintf(t, "  %s\tused %d\t(%d%%)\troom in %s\tmost %d\t%s\n", u.Limit, u.Used, u.Percent, span(u.Wait), u.Peak, note)
	}
	_ = t.Flush()
	if o := r.Override; o != nil {
		fmt.Fprintf(w, "  override  %s: %s\n            from %s", printable(o.Key), printable(o.Entry), printable(o.Table))
		if o.Where != "" {
			fmt.Fprintf(w, ", %s", printable(o.Where))
		}
		fmt.Fprintln(w)
		if o.Error != "" {
			fmt.Fprintf(w, "            not used: %s\n", printable(o.Error))
		}
	}
	if len(r.Networks) > 0 {
		fmt.Fprintf(w, "  networks  %s\n", printable(strings.Join(r.Networks, " ")))
	}
	if len(r.Domains) > 0 {
		fmt.Fprintf(w, "  sent to   %s\n", printable(strings.Join(r.Domains, " ")))
	}
	return code
}

func printLimitsReset(w io.Writer, r *api.LimitsResetResult) int {
	fmt.Fprintf(w, "%d counts of %s are forgotten\n", r.Reset, printable(r.Value))
	printUnsaved(w, r.Unsaved)
	return exitYes
}

func bindLimitsBlock(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) < 1 || len(args) > 2 {
			return exitFailed, errUsage
		}
		ask := api.LimitsBlockArgs{Login: args[0]}
		if len(args) == 2 {
			ask.Duration = args[1]
		}
		call := func(answer any) error { return client.Call(ctx, api.LimitsBlock, ask, answer, nil) }
		return asked(std, call, *asJSON, func(w io.Writer, r *api.LimitsBlockResult) int {
			printBlock(w, &r.LimitBlock)
			printLimitShadow(w, r.Shadow)
			fmt.Fprintf(w, "`postern limits unblock %s` lifts it\n", printable(r.Login))
			return exitYes
		})
	}
}

// bindLimitsUnblock returns exitNo for a login that was not blocked.
func bindLimitsUnblock(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) != 1 {
			return exitFailed, errUsage
		}
		call := func(answer any) error {
			return client.Call(ctx, api.LimitsUnblock, api.LimitsBlockArgs{Login: args[0]}, answer, nil)
		}
		return asked(std, call, *asJSON, func(w io.Writer, r *api.LimitsBlockResult) int {
			if !r.Was {
				fmt.Fprintf(w, "%s was not blocked\n", printable(r.Login))
				return exitNo
			}
			fmt.Fprintf(w, "%s may send mail again\n", printable(r.Login))
			return exitYes
		})
	}
}

func bindLimitsSuggest(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	touch := fs.Int("touch", 0, "how many logins the limits may have affected")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, std streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		call := func(answer any) error {
			return client.Call(ctx, api.LimitsSuggest, api.LimitsSuggestArgs{Touch: *touch}, answer, nil)
		}
		return asked(std, call, *asJSON, printLimitsSuggest)
	}
}

func printLimitsSuggest(w io.Writer, r *api.LimitsSuggestResult) int {
	if len(r.Suggestions) == 0 {
		fmt.Fprintln(w, "there is no limit of logins to suggest another for: set limit, and the check into the shadow")
		return exitNo
	}
	for _, s := range r.Suggestions {
		if s.Logins == 0 {
			fmt.Fprintf(w, "# nothing was counted for %s yet\n", s.Now)
			continue
		}
		fmt.Fprintf(w, "--limit %s  # would have affected %d of %d logins; the most was %d; now %s\n", s.Limit, s.Touched, s.Logins, s.Most, s.Now)
	}
	return exitYes
}
