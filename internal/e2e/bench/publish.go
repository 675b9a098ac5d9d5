package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// usualRounds is how often each server is measured without --rounds.
const usualRounds = 3

// publication is a run of a verb that publishes its figures in deploy/.
type publication struct {
	verb    string // and the name of the page
	command string // that makes these figures again
	share   int    // the load is divided by it
	rounds  int
	only    []string // contests; empty for all
	publish bool
}

// newPublication returns the publication of a verb, with the flags that both verbs have.
func newPublication(verb string) (*publication, *pflag.FlagSet) {
	p := &publication{verb: verb, share: 1}
	flags := pflag.NewFlagSet(verb, pflag.ContinueOnError)
	flags.IntVar(&p.rounds, "rounds", usualRounds, "how often each server is measured, after a round that warms up")
	flags.StringSliceVar(&p.only, "only", nil, "measure these tables alone, and publish nothing")
	flags.BoolVar(&p.publish, "publish", true, "write the figures to deploy/")
	return p, flags
}

// run measures contests and publishes their figures. derived returns what is calculated
// from the figures of all of them.
func (p *publication) run(ctx context.Context, contests func(field) []contest, derived func([]manual.FigureGroup) []manual.FigureGroup) error {
	if p.rounds < 1 {
		return fmt.Errorf("--rounds is %d; at least 1 is needed", p.rounds)
	}
	if err := postfixtest.Check(); err != nil {
		return err
	}
	e, stop, err := newDiskEnv()
	if err != nil {
		return err
	}
	defer stop()
	f := field{at: postfixtest.NameserverAddr()}
	if f.key, f.record, err = newRSAKey(); err != nil {
		return err
	}
	dns, err := resolvertest.StartAt(f.at.String(), f.zone())
	if err != nil {
		return err
	}
	defer dns.Close()
	figures := manual.Figures{Measured: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Command: p.command, Rounds: p.rounds, Short: p.share > 1}
	chosen, err := p.chosen(contests(f))
	if err != nil {
		return err
	}
	for _, c := range chosen {
		fmt.Fprintln(os.Stderr, "bench:", c.name)
		g, err := c.run(ctx, e, p.rounds, p.share)
		if err != nil {
			return err
		}
		g.Command = fmt.Sprintf("go run ./internal/e2e/bench %s --only %s", p.verb, c.key)
		figures.Groups = append(figures.Groups, g)
	}
	if len(p.only) > 0 {
		fmt.Print(figures.Markdown())
		return nil
	}
	figures.Groups = append(figures.Groups, derived(figures.Groups)...)
	return p.show(ctx, figures)
}

// chosen returns the contests that were asked for.
func (p *publication) chosen(all []contest) ([]contest, error) {
	if len(p.only) == 0 {
		return all, nil
	}
	var keys []string
	for _, c := range all {
		keys = append(keys, c.key)
	}
	for _, key := range p.only {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("--only: no table %q; there are %s", key, strings.Join(slices.Compact(keys), ", "))
		}
	}
	return slices.DeleteFunc(all, func(c contest) bool { return !slices.Contains(p.only, c.key) }), nil
}

// show prints figures, and publishes them if that is wanted.
func (p *publication) show(ctx context.Context, f manual.Figures) error {
	fmt.Print(f.Markdown())
	if !p.publish {
		return nil
	}
	root, err := postfixtest.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	return f.Publish(root, p.verb)
}
