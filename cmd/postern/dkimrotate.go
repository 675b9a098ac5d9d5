package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/rotate"
)

// rotateFlags are flags of the daemon that can be given to the command.
var rotateFlags = []string{"dkim-keys", "dkim-expire", "dkim-rotate-lead", "dkim-rotate-password-file", "dkim-rotate-servers", "dns-update", "dns-command", "resolver", "dns-timeout"}

// bindDKIMRotate makes the steps itself. A daemon that rotates keys continues after
// them.
func bindDKIMRotate(fs *pflag.FlagSet) runner {
	fs.String("config", api.MilterdConfig, "the daemon's configuration `file`, read when it exists; the flags below replace what it says")
	for _, name := range rotateFlags {
		fs.StringArray(name, nil, "`value` of the daemon's flag of this name")
	}
	status := fs.Bool("status", false, "only show rotations and their steps")
	undo := fs.Bool("undo", false, "have the old keys sign again; possible until they are revoked")
	wait := fs.Bool("wait", false, "stay until the old keys have stopped signing")
	asJSON := fs.Bool("json", false, "print states as JSON")
	return func(ctx context.Context, io streams, args []string) (int, error) {
		if len(args) > 1 || *undo && len(args) == 0 || *undo && *status {
			return exitFailed, errUsage
		}
		r, end, err := milterd.OpenRotator(ctx, rotateArguments(fs), *status, func(e rotate.Event) { printRotateEvent(io, e) })
		if err != nil {
			return exitFailed, err
		}
		defer end()
		domains, code := args, exitYes
		if len(args) == 0 {
			domains, err = r.UnderWay()
			if err != nil && len(domains) == 0 {
				return exitFailed, err
			}
			if err != nil { // others can be rotated
				fmt.Fprintln(io.err, err)
				code = exitNo
			}
		}
		if len(domains) == 0 {
			fmt.Fprintln(io.out, "no rotation is under way; `postern dkim rotate DOMAIN` begins one")
			return exitYes, nil
		}
		c := rotateCommand{r, io, *wait, *asJSON}
		for _, domain := range domains {
			if !*status && ctx.Err() == nil {
				if err := c.work(ctx, domain, *undo, len(args) > 0); ctx.Err() != nil {
					fmt.Fprintf(io.err, "%v; the rotation stays as it is: postern-milterd goes on with it if it rotates keys (dkim-rotate), and so does this command\n", context.Cause(ctx))
					code = exitNo
				} else if err != nil {
					fmt.Fprintln(io.err, err)
					code = exitNo
				}
			}
			if err := c.show(ctx, domain); err != nil {
				return exitFailed, err
			}
		}
		return code, nil
	}
}

// rotateArguments returns the given flags as arguments of the daemon.
func rotateArguments(fs *pflag.FlagSet) []string {
	return givenFlags(fs, append([]string{"config"}, rotateFlags...))
}

// rotateCommand is one run of the command.
type rotateCommand struct {
	rotator *rotate.Rotator
	io      streams
	wait    bool
	json    bool
}

// work starts or continues a rotation, and makes the steps that can be made now.
func (c *rotateCommand) work(ctx context.Context, domain string, undo, start bool) error {
	if err := c.resume(ctx, domain); err != nil {
		return err
	}
	begin := c.rotator.Start
	if undo {
		begin = c.rotator.Undo
	}
	if undo || start {
		if err := begin(domain); err != nil {
			return err
		}
	}
	for shown := ""; ; {
		next, err := c.rotator.Advance(ctx, domain)
		if !c.wait || ctx.Err() != nil {
			return err
		}
		state, stateErr := c.rotator.State(domain)
		if stateErr != nil || !beforeSwitch(state) {
			return errors.Join(err, stateErr)
		}
		if err != nil && err.Error() != shown {
			shown = err.Error()
			fmt.Fprintln(c.io.err, shown+"; trying again")
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// resume has the waits go on from where they were when the clock of this host may be wrong.
func (c *rotateCommand) resume(ctx context.Context, domain string) error {
	rested, err := c.rotator.ResumeByHand(ctx, domain)
	if rested != 0 && err == nil {
		fmt.Fprintf(c.io.err, "%s: no one has looked at this rotation for %s, or the clock is wrong: that time does not count, and the wait goes on from where it was; let NTP keep the time\n",
			domain, rested.Abs().Round(time.Hour))
	}
	return err
}

// beforeSwitch reports whether the old keys still sign.
func beforeSwitch(s *rotate.State) bool {
	if s == nil {
		return false
	}
	switch s.Phase {
	case rotate.Make, rotate.Publish, rotate.Sign, rotate.Retire, rotate.Withdraw:
		return true
	}
	return false
}

// show prints the state of a domain's rotation.
func (c *rotateCommand) show(ctx context.Context, domain string) error {
	s, err := c.rotator.State(domain)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(c.io.out, s)
	}
	if s == nil {
		fmt.Fprintf(c.io.out, "%s has had no rotation\n", domain)
		return nil
	}
	printRotation(c.io.out, s, c.rotator.KeepTime(ctx))
	return nil
}

// printRotateEvent prints a step, and the records that a person has to publish.
func printRotateEvent(io streams, e rotate.Event) {
	if e.Err == nil { // the command prints errors itself
		fmt.Fprintf(io.err, "%s: %s: %s\n", e.Domain, rotateSteps[e.Step], e.Detail)
	}
	for _, c := range e.Publish {
		fmt.Fprintf(io.out, "%s:\n%s\n", rotateByHand[c.Action], c.Zone())
	}
}

// rotateByHand says what a person has to do for a change.
var rotateByHand = map[rotate.Action]string{
	rotate.DoPublish: "publish this record",
	rotate.DoRevoke:  "replace the record by this one, which revokes the key",
	rotate.DoRemove:  "remove this record",
}

// rotateSteps are the texts for the steps.
var rotateSteps = map[rotate.Step]string{
	rotate.Started:   "rotation begins",
	rotate.Handed:    "given to the DNS",
	rotate.ByHand:    "waits for you",
	rotate.Seen:      "shown by every name server",
	rotate.Signs:     "signs",
	rotate.Retired:   "has stopped signing",
	rotate.RevokedIt: "is revoked, its key deleted",
	rotate.Finished:  "rotation is over",
	rotate.Lost:      "record lost, back to the old keys",
	rotate.UndoneIt:  "undone",
	rotate.Withdrawn: "deleted before it signed",
	rotate.Failed:    "step could not be made",
}

func printRotation(w io.Writer, s *rotate.State, keep time.Duration) {
	fmt.Fprintf(w, "%s: %s since %s; %s\n", s.Domain, s.Phase, local(s.Since), rotatePhase(s, keep))
	if s.Missing != "" {
		fmt.Fprintln(w, "  when last looked:", s.Missing)
	}
	for _, key := range s.Incoming {
		fmt.Fprintf(w, "  new  %s  %s\n", key.Selector, key.Algorithm)
	}
	for _, key := range s.Outgoing {
		fmt.Fprintf(w, "  old  %s  %s\n", key.Selector, key.Algorithm)
	}
	for _, e := range s.History {
		fmt.Fprintf(w, "  %s  %s: %s\n", local(e.Time), rotateSteps[e.Step], e.Detail)
	}
	if s.Problem != "" {
		fmt.Fprintln(w, "  problem:", s.Problem)
	}
}

// rotatePhase returns a text that says what a rotation waits for.
func rotatePhase(s *rotate.State, keep time.Duration) string {
	switch s.Phase {
	case rotate.Make:
		return "the new keys are made next"
	case rotate.Publish:
		if s.Seen.IsZero() {
			return "waits until every name server shows the new records"
		}
		return "every name server shows the new records; waits until caches have forgotten older answers"
	case rotate.Sign:
		return "the new keys sign next"
	case rotate.Retire:
		return "old and new keys sign; the old ones stop after " + local(s.Since.Add(rotate.Overlap))
	case rotate.Keep:
		return "the new keys sign; the old records stay until " + local(s.Since.Add(keep))
	case rotate.Revoke:
		return "waits until every name server shows the old records revoked"
	case rotate.Revoked:
		return "the old records are revoked, and removed after " + local(s.Since.Add(rotate.RevokedFor))
	case rotate.Remove:
		return "waits until no name server shows the old records"
	case rotate.Withdraw:
		return "the new records are removed"
	}
	return "nothing is left to do"
}
