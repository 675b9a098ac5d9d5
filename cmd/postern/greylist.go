package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
)

func greylistGroup() group {
	kinds := map[string][]string{"kind": {api.GreylistTriplets, api.GreylistClients}}
	return group{"greylist", "Look into the greylist, change it, and take over another one.", []command{
		{path: "greylist list", help: "what the greylist holds", bind: bindGreylistList, words: kinds},
		{path: "greylist show", args: "CLIENT SENDER RECIPIENT", help: "what would happen to a mail, and by which entries", bind: bindGreylistShow},
		{path: "greylist allow", args: "[DOMAIN@]CLIENT", help: "never delay a client", bind: bindGreylistAllow},
		{path: "greylist delete", help: "forget entries", bind: bindGreylistDelete, words: kinds},
		{path: "greylist stats", help: "count entries by their state", bind: bindGreylistStats},
		{path: "greylist import", help: "take over what postgrey or sqlgrey has remembered", bind: bindGreylistImport},
	}}
}

// greylistFilter binds the flags that select entries.
func greylistFilter(fs *pflag.FlagSet) *api.GreylistFilter {
	f := new(api.GreylistFilter)
	fs.StringVar(&f.Kind, "kind", "", "only `triplets` or clients")
	fs.StringVar(&f.Client, "client", "", "only this `client`: an address or network, spf:domain, spf:domain/pool, domain@network or domain@pool; * means any text")
	fs.StringVar(&f.Sender, "sender", "", "only this `sender`, as it arrives or as it is in keys; * means any text")
	fs.StringVar(&f.Recipient, "recipient", "", "only this `recipient`; * means any text")
	return f
}

func bindGreylistList(fs *pflag.FlagSet) runner {
	client, filter := policydClient(fs), greylistFilter(fs)
	limit := fs.Int("limit", 0, "list at most so many entries (0: all)")
	asJSON := fs.Bool("json", false, "print each entry as one line of JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		p := newEntryPrinter(io.out, *asJSON)
		var result api.GreylistListResult
		ask := api.GreylistListArgs{GreylistFilter: *filter, Limit: *limit}
		if err := client.Call(ctx, api.GreylistList, ask, &result, p.progress); err != nil {
			return exitFailed, err
		}
		if err := p.finish(); err != nil {
			return exitFailed, err
		}
		if result.More {
			fmt.Fprintf(io.err, "the first %d entries; there are more\n", result.Matched)
		}
		return exitYes, nil
	}
}

// entryPrinter prints entries as they arrive.
type entryPrinter struct {
	out   io.Writer
	table *tabwriter.Writer // nil for JSON
	err   error
}

func newEntryPrinter(out io.Writer, asJSON bool) *entryPrinter {
	p := &entryPrinter{out: out}
	if !asJSON {
		p.table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(p.table, "CLIENT\tSENDER\tRECIPIENT\tSTATE\tFIRST\tLAST\tPASSES")
	}
	return p
}

func (p *entryPrinter) progress(line json.RawMessage) {
	var entries []api.GreylistEntry
	if err := json.Unmarshal(line, &entries); err != nil {
		p.err = errors.Join(p.err, err)
		return
	}
	for _, e := range entries {
		p.err = errors.Join(p.err, p.print(e))
	}
}

func (p *entryPrinter) print(e api.GreylistEntry) error {
	if p.table == nil {
		line, err := json.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(p.out, "%s\n", line)
		}
		return err
	}
	passes := ""
	if e.Passes > 0 {
		passes = fmt.Sprint(e.Passes)
	}
	_, err := fmt.Fprintf(p.table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(e.Client), printable(e.Sender), printable(e.Recipient), e.State, clock(e.First), clock(e.Last), passes)
	return err
}

func (p *entryPrinter) finish() error {
	if p.table != nil {
		p.err = errors.Join(p.err, p.table.Flush())
	}
	return p.err
}

func clock(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return local(*t)
}

// bindGreylistShow answers exitNo for a mail that would be deferred.
func bindGreylistShow(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	domain := fs.String("spf", "", "the `domain` that SPF authorises for the client")
	pool := fs.String("pool", "", "the organizational `domain` of the client's name, when SPF admits too many (spf:DOMAIN/POOL in keys)")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 3 {
			return exitFailed, errUsage
		}
		ask := api.GreylistShowArgs{Client: args[0], Domain: *domain, Pool: *pool, Sender: args[1], Recipient: args[2]}
		var answer api.GreylistShowResult
		if err := client.Call(ctx, api.GreylistShow, ask, &answer, nil); err != nil {
			return exitFailed, err
		}
		code := exitNo
		if answer.Verdict == "pass" {
			code = exitYes
		}
		if *asJSON {
			return code, printJSON(io.out, answer)
		}
		fmt.Fprintf(io.out, "%s (%s)", answer.Verdict, answer.Reason)
		if answer.Wait > 0 {
			fmt.Fprintf(io.out, ", to wait %s", time.Duration(answer.Wait)*time.Second)
		}
		fmt.Fprintf(io.out, "\nkey: %s, sender %s\n", printable(answer.Key), printable(answer.Sender))
		p := newEntryPrinter(io.out, false)
		for _, e := range answer.Entries {
			p.err = errors.Join(p.err, p.print(e))
		}
		if len(answer.Entries) == 0 {
			return code, nil
		}
		return code, p.finish()
	}
}

func bindGreylistAllow(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 1 {
			return exitFailed, errUsage
		}
		var answer api.GreylistAllowResult
		if err := client.Call(ctx, api.GreylistAllow, api.GreylistAllowArgs{Client: args[0]}, &answer, nil); err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return exitYes, printJSON(io.out, answer)
		}
		fmt.Fprintf(io.out, "%s is never delayed; `postern greylist delete --client %s --kind clients` undoes it\n", answer.Client, answer.Client)
		return exitYes, nil
	}
}

func bindGreylistDelete(fs *pflag.FlagSet) runner {
	client, filter := policydClient(fs), greylistFilter(fs)
	all := fs.Bool("all", false, "delete everything")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		var answer api.GreylistDeleteResult
		ask := api.GreylistDeleteArgs{GreylistFilter: *filter, All: *all}
		var soFar api.GreylistDeleteResult
		p := progress{io}
		show := func(line json.RawMessage) {
			if json.Unmarshal(line, &soFar) == nil {
				p.at("%d deleted", soFar.Deleted)
			}
		}
		err := client.Call(ctx, api.GreylistDelete, ask, &answer, show)
		if soFar.Deleted > 0 {
			p.end()
		}
		if err != nil && soFar.Deleted > 0 {
			err = fmt.Errorf("%w; at least %d entries are deleted", err, soFar.Deleted)
		}
		if err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return exitYes, printJSON(io.out, answer)
		}
		fmt.Fprintf(io.out, "%d entries deleted\n", answer.Deleted)
		return exitYes, nil
	}
}

func bindGreylistStats(fs *pflag.FlagSet) runner {
	client := policydClient(fs)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) != 0 {
			return exitFailed, errUsage
		}
		var answer api.GreylistStatsResult
		show := func(line json.RawMessage) { fmt.Fprintf(io.err, "%s entries counted\n", line) }
		if err := client.Call(ctx, api.GreylistStats, nil, &answer, show); err != nil {
			return exitFailed, err
		}
		if *asJSON {
			return exitYes, printJSON(io.out, answer)
		}
		t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "store\t%s\n", answer.Store)
		if answer.Down != "" {
			fmt.Fprintf(t, "down\t%s\n", printable(answer.Down))
		}
		if answer.Unsaved {
			fmt.Fprintf(t, "full\tnothing new is kept; make room in the memory or on the disk of the store, or its file writable (the log has the reason)\n")
		}
		for _, of := range []struct {
			name   string
			counts map[string]int
		}{{"triplets", answer.Triplets}, {"clients", answer.Clients}} {
			for _, state := range slices.Sorted(maps.Keys(of.counts)) {
				fmt.Fprintf(t, "%s %s\t%d\n", of.name, state, of.counts[state])
			}
		}
		return exitYes, t.Flush()
	}
}
