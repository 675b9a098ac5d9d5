package policyd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/migrate"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/glob"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/checks"
)

// greylistBatch is how many entries are in one line of the admin protocol, or in one
// operation of the store.
const greylistBatch = 200

func checkFilter(f api.GreylistFilter) error {
	if f.Kind != "" && f.Kind != api.GreylistTriplets && f.Kind != api.GreylistClients {
		return &admin.Error{Code: admin.CodeBadArgs, Message: "kind is " + api.GreylistTriplets + " or " + api.GreylistClients}
	}
	return nil
}

// matcher returns a function that selects the entries of a filter. A text without * can
// be in the form of keys, or an address as it is in a mail.
func matcher(f api.GreylistFilter, k greylist.Keyer) func(greylist.ID) bool {
	network := ""
	if addr, err := netip.ParseAddr(f.Client); err == nil {
		network = k.Network(addr)
	}
	sender, recipient := greylist.SenderPart(address(f.Sender)), greylist.RecipientPart(address(f.Recipient))
	either := func(pattern, key, s string) bool {
		return globs(pattern, s) || key == s && key != "" && !strings.Contains(pattern, "*")
	}
	return func(id greylist.ID) bool {
		if f.Kind != "" && (f.Kind == api.GreylistClients) != id.IsClient() {
			return false
		}
		c, s, r := id.Split()
		return either(f.Client, network, c) && either(f.Sender, sender, s) && either(f.Recipient, recipient, r)
	}
}

// address parses an address as people write it, or else as Postfix sends it.
func address(text string) mailaddr.Address {
	if a := mailaddr.Parse(text); a.IsValid() || a.IsNull() {
		return a
	}
	return mailaddr.ParseInternal(text)
}

// globs reports whether s matches a pattern. An empty pattern matches everything.
func globs(pattern, s string) bool { return pattern == "" || glob.Match(pattern, s) }

// The states of a GreylistEntry.
const (
	stateExpired = "expired"
	stateWaiting = "waiting"
	statePassed  = "passed"
	stateEarning = "earning"
	stateAllowed = "allowed"
	stateManual  = "allowed by hand"
)

func entryState(e greylist.Entry, now time.Time, l greylist.Limits) string {
	switch {
	case e.Expired(greylist.At(now), l):
		return stateExpired
	case e.ID.IsClient() && e.Client.Manual:
		return stateManual
	case e.ID.IsClient() && l.AllowAfter > 0 && e.Client.Passes >= l.AllowAfter:
		return stateAllowed
	case e.ID.IsClient():
		return stateEarning
	case e.Triplet.Passed != 0:
		return statePassed
	}
	return stateWaiting
}

func listedEntry(e greylist.Entry, now time.Time, l greylist.Limits) api.GreylistEntry {
	out := api.GreylistEntry{State: entryState(e, now, l), Passes: e.Client.Passes}
	out.Client, out.Sender, out.Recipient = e.ID.Split()
	out.First, out.Passed = when(e.Triplet.First), when(e.Triplet.Passed)
	out.Last = when(max(e.Triplet.Last, e.Client.Last))
	return out
}

func when(s greylist.Stamp) *time.Time {
	if s == 0 {
		return nil
	}
	t := showable(s.Time())
	return &t
}

// greylistCommands returns the commands about the greylist.
func greylistCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.GreylistList:   command(c, checks.GreylistName, (*greylistPart).list),
		api.GreylistShow:   command(c, checks.GreylistName, (*greylistPart).show),
		api.GreylistAllow:  command(c, checks.GreylistName, (*greylistPart).allow),
		api.GreylistDelete: command(c, checks.GreylistName, (*greylistPart).delete),
		api.GreylistStats:  command(c, checks.GreylistName, (*greylistPart).stats),
		api.GreylistImport: command(c, checks.GreylistName, (*greylistPart).importEntries),
	}
}

var errEnough = errors.New("the limit is reached")

func (o *greylistPart) list(ctx context.Context, args api.GreylistListArgs, progress func(any)) (any, error) {
	if err := checkFilter(args.GreylistFilter); err != nil {
		return nil, err
	}
	now, limits, matches := time.Now(), o.limits(), matcher(args.GreylistFilter, o.keyer())
	var result api.GreylistListResult
	var batch []api.GreylistEntry
	err := o.store.store.Walk(ctx, func(e greylist.Entry) error {
		if !matches(e.ID) {
			return nil
		}
		if args.Limit > 0 && result.Matched == args.Limit {
			result.More = true
			return errEnough
		}
		result.Matched++
		batch = append(batch, listedEntry(e, now, limits))
		if len(batch) == greylistBatch {
			progress(batch)
			batch = batch[:0]
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if len(batch) > 0 {
		progress(batch)
	}
	return result, nil
}

func (o *greylistPart) show(ctx context.Context, args api.GreylistShowArgs, _ func(any)) (any, error) {
	addr, err := netip.ParseAddr(args.Client)
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: fmt.Sprintf("client %.60q is no IP address", args.Client)}
	}
	key := o.keyer().Key(greylist.Mail{
		Client: addr, Sender: address(args.Sender), Recipient: address(args.Recipient),
		Source: greylist.Source{Domain: args.Domain, Pool: args.Pool, PoolCredit: args.Pool != ""},
	})
	r, err := o.store.store.Peek(ctx, key)
	if err != nil {
		return nil, err
	}
	now, limits := time.Now(), o.limits()
	outcome := greylist.Decide(r, now, limits)
	result := api.GreylistShowResult{Key: key.Client(), Sender: key.Sender, Verdict: "defer", Reason: string(checks.GreylistReason(outcome.Why)),
		Wait: int((outcome.Wait + time.Second - 1) / time.Second), Entries: []api.GreylistEntry{}}
	if outcome.Pass() {
		result.Verdict = "pass"
	}
	for _, e := range []greylist.Entry{
		{ID: key.ByDomain(), Triplet: r.ByDomain}, {ID: key.ByNetwork(), Triplet: r.ByNetwork},
		{ID: key.DomainClient(), Client: r.DomainClient}, {ID: key.NetworkClient(), Client: r.NetworkClient},
	} {
		if e.Triplet != (greylist.Triplet{}) || e.Client != (greylist.Client{}) {
			result.Entries = append(result.Entries, listedEntry(e, now, limits))
		}
	}
	return result, nil
}

func (o *greylistPart) allow(ctx context.Context, args api.GreylistAllowArgs, _ func(any)) (any, error) {
	id, err := o.keyer().ClientID(args.Client)
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: err.Error()}
	}
	e := greylist.Entry{ID: id, Client: greylist.Client{Manual: true, Last: greylist.At(time.Now())}}
	if err := o.store.store.Put(ctx, []greylist.Entry{e}); err != nil {
		return nil, err
	}
	return api.GreylistAllowResult{Client: string(id)}, nil
}

func (o *greylistPart) delete(ctx context.Context, args api.GreylistDeleteArgs, progress func(any)) (any, error) {
	if err := checkFilter(args.GreylistFilter); err != nil {
		return nil, err
	}
	if (args.GreylistFilter == api.GreylistFilter{}) != args.All {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "say which entries to delete, or ask for all of them"}
	}
	var ids []greylist.ID
	store, matches := o.store.store, matcher(args.GreylistFilter, o.keyer())
	err := store.Walk(ctx, func(e greylist.Entry) error {
		if matches(e.ID) {
			ids = append(ids, e.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var result api.GreylistDeleteResult
	for len(ids) > 0 {
		some := ids[:min(greylistBatch, len(ids))]
		ids = ids[len(some):]
		n, err := store.Delete(ctx, some)
		result.Deleted += n
		if err != nil {
			return nil, fmt.Errorf("after %d entries: %w", result.Deleted, err)
		}
		progress(result)
	}
	return result, nil
}

func (o *greylistPart) stats(ctx context.Context, _ struct{}, progress func(any)) (any, error) {
	g := o.store
	result := api.GreylistStatsResult{Store: g.kind, Triplets: map[string]int{}, Clients: map[string]int{}}
	if err := g.breaker.Down(); err != nil {
		result.Down = err.Error()
	} else {
		result.Unsaved = !g.writes()
	}
	now, limits, n := time.Now(), o.limits(), 0
	err := g.store.Walk(ctx, func(e greylist.Entry) error {
		of := result.Triplets
		if e.ID.IsClient() {
			of = result.Clients
		}
		of[entryState(e, now, limits)]++
		if n++; n%statsStep == 0 {
			progress(n)
		}
		return nil
	})
	return result, err
}

// statsStep is how many entries are counted between two lines of progress.
const statsStep = 100_000

func (o *greylistPart) importEntries(ctx context.Context, args api.GreylistImportArgs, _ func(any)) (any, error) {
	var result api.GreylistImportResult
	var entries []greylist.Entry
	for _, old := range args.Entries {
		e, err := imported(old).Entry(o.keyer())
		if err != nil {
			result.Skipped++
			if len(result.Why) < api.MaxImportWhy {
				result.Why = append(result.Why, err.Error())
			}
			continue
		}
		entries = append(entries, e)
	}
	if err := o.store.store.Put(ctx, entries); err != nil {
		return nil, err
	}
	result.Imported = len(entries)
	return result, nil
}

func imported(e api.ImportedEntry) migrate.Entry {
	return migrate.Entry{
		Client: e.Client, Sender: e.Sender, Domain: e.Domain, Recipient: e.Recipient,
		First: greylist.Stamp(e.First), Last: greylist.Stamp(e.Last), Passed: e.Passed, Passes: e.Passes,
	}
}
