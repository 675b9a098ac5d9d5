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
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/checks"
)

// greylistBatch is how many entries go into one line of the admin protocol,
// or into one operation of the store.
const greylistBatch = 200

func checkFilter(f api.GreylistFilter) error {
	if f.Kind != "" && f.Kind != api.GreylistTriplets && f.Kind != api.GreylistClients {
		return &admin.Error{Code: admin.CodeBadArgs, Message: "kind is " + api.GreylistTriplets + " or " + api.GreylistClients}
	}
	return nil
}

// matches reports whether a filter selects an entry.
func matches(f api.GreylistFilter, id greylist.ID) bool {
	if f.Kind != "" && (f.Kind == api.GreylistClients) != id.IsClient() {
		return false
	}
	client, sender, recipient := id.Split()
	return glob(f.Client, client) && glob(f.Sender, sender) && glob(f.Recipient, recipient)
}

// glob matches a pattern in which * stands for any text, ignoring case.
func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	parts := strings.Split(strings.ToLower(pattern), "*")
	if len(parts) == 1 {
		return s == parts[0]
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return strings.HasSuffix(s, parts[last])
}

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
	t := s.Time().UTC()
	return &t
}

// greylistCommands are what can be asked about the greylist.
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
	now, limits := time.Now(), o.limits()
	var result api.GreylistListResult
	var batch []api.GreylistEntry
	err := o.store.store.Walk(ctx, func(e greylist.Entry) error {
		if !matches(args.GreylistFilter, e.ID) {
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
	sender, recipient := mailaddr.Parse(args.Sender), mailaddr.Parse(args.Recipient)
	claimed := args.Domain
	if claimed == "" {
		claimed = sender.Domain
	}
	key := greylist.NewKey(args.Domain, claimed, greylist.Network(addr, o.GreylistIPv4Prefix, o.GreylistIPv6Prefix),
		greylist.Sender(sender.Local, sender.Domain), recipient.Key())
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
	id, err := o.clientID(args.Client)
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: err.Error()}
	}
	e := greylist.Entry{ID: id, Client: greylist.Client{Manual: true, Last: greylist.At(time.Now())}}
	if err := o.store.store.Put(ctx, []greylist.Entry{e}); err != nil {
		return nil, err
	}
	return api.GreylistAllowResult{Client: string(id)}, nil
}

// clientID reads [domain@]address or [domain@]network. A network must be one
// that keys are made of: any other would never be looked up.
func (o *greylistPart) clientID(text string) (greylist.ID, error) {
	domain, client := "", text
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		var err error
		if domain, err = mailaddr.ParseDomain(text[:at]); err != nil {
			return "", fmt.Errorf("%.60q: %w", text[:at], err)
		}
		client = text[at+1:]
	}
	address, bits, isNetwork := strings.Cut(client, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return "", fmt.Errorf("%.60q is no IP address", address)
	}
	network := greylist.Network(addr, o.GreylistIPv4Prefix, o.GreylistIPv6Prefix)
	if isNetwork && !strings.HasSuffix(network, "/"+bits) {
		return "", fmt.Errorf("/%.10s is not the size of a network here: that of %s is %s", bits, address, network)
	}
	return greylist.ClientID(domain, network), nil
}

func (o *greylistPart) delete(ctx context.Context, args api.GreylistDeleteArgs, progress func(any)) (any, error) {
	if err := checkFilter(args.GreylistFilter); err != nil {
		return nil, err
	}
	if (args.GreylistFilter == api.GreylistFilter{}) != args.All {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "say which entries to delete, or ask for all of them"}
	}
	var ids []greylist.ID
	store := o.store.store
	err := store.Walk(ctx, func(e greylist.Entry) error {
		if matches(args.GreylistFilter, e.ID) {
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
		e, err := imported(old).Entry(o.GreylistIPv4Prefix, o.GreylistIPv6Prefix)
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
