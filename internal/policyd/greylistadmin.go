package policyd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/migrate"
	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/checks"
)

// greylistBatch is how many entries go into one line of the admin protocol,
// or into one operation of the store.
const greylistBatch = 200

// GreylistFilter selects entries. A * stands for any text; empty means all.
type GreylistFilter struct {
	Kind      string `json:"kind,omitempty"` // triplets, clients
	Client    string `json:"client,omitempty"`
	Sender    string `json:"sender,omitempty"`
	Recipient string `json:"recipient,omitempty"`
}

// The kinds of a GreylistFilter.
const (
	GreylistTriplets = "triplets"
	GreylistClients  = "clients"
)

func (f GreylistFilter) empty() bool { return f == GreylistFilter{} }

func (f GreylistFilter) check() error {
	if f.Kind != "" && f.Kind != GreylistTriplets && f.Kind != GreylistClients {
		return &admin.Error{Code: admin.CodeBadArgs, Message: "kind is " + GreylistTriplets + " or " + GreylistClients}
	}
	return nil
}

func (f GreylistFilter) matches(id greylist.ID) bool {
	if f.Kind != "" && (f.Kind == GreylistClients) != id.IsClient() {
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

// GreylistEntry is an entry as people read it.
type GreylistEntry struct {
	Client    string     `json:"client"` // a network, spf:domain, or domain@network
	Sender    string     `json:"sender,omitempty"`
	Recipient string     `json:"recipient,omitempty"`
	State     string     `json:"state"` // waiting, passed; earning, allowed, allowed by hand; expired
	First     *time.Time `json:"first,omitempty"`
	Last      *time.Time `json:"last,omitempty"`
	Passed    *time.Time `json:"passed,omitempty"`
	Passes    int        `json:"passes,omitempty"`
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

func listedEntry(e greylist.Entry, now time.Time, l greylist.Limits) GreylistEntry {
	out := GreylistEntry{State: entryState(e, now, l), Passes: e.Client.Passes}
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
		"greylist.list":   command(c, checks.GreylistName, (*greylistPart).list),
		"greylist.show":   command(c, checks.GreylistName, (*greylistPart).show),
		"greylist.allow":  command(c, checks.GreylistName, (*greylistPart).allow),
		"greylist.delete": command(c, checks.GreylistName, (*greylistPart).delete),
		"greylist.stats":  command(c, checks.GreylistName, (*greylistPart).stats),
		"greylist.import": command(c, checks.GreylistName, (*greylistPart).importEntries),
	}
}

// GreylistListArgs asks for entries ("greylist.list"). They come as progress,
// in lines of []GreylistEntry.
type GreylistListArgs struct {
	GreylistFilter
	Limit int `json:"limit,omitempty"` // 0: all
}

// GreylistListResult ends a list.
type GreylistListResult struct {
	Matched int  `json:"matched"` // entries that were sent
	More    bool `json:"more"`    // the limit was reached
}

var errEnough = errors.New("the limit is reached")

func (o *greylistPart) list(ctx context.Context, args GreylistListArgs, progress func(any)) (any, error) {
	if err := args.check(); err != nil {
		return nil, err
	}
	now, limits := time.Now(), o.limits()
	var result GreylistListResult
	var batch []GreylistEntry
	err := o.store.store.Walk(ctx, func(e greylist.Entry) error {
		if !args.matches(e.ID) {
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

// GreylistShowArgs asks what would become of a mail ("greylist.show").
type GreylistShowArgs struct {
	Client    string `json:"client"`           // IP address
	Domain    string `json:"domain,omitempty"` // that SPF authorises, "" for none
	Sender    string `json:"sender"`           // "" or <> is the null sender
	Recipient string `json:"recipient"`
}

// GreylistShowResult is what the store knows, and what follows.
type GreylistShowResult struct {
	Key     string          `json:"key"`     // the client part
	Sender  string          `json:"sender"`  // as it stands in the key
	Verdict string          `json:"verdict"` // pass, defer
	Reason  string          `json:"reason"`
	Wait    int             `json:"wait_seconds,omitempty"`
	Entries []GreylistEntry `json:"entries"`
}

func (o *greylistPart) show(ctx context.Context, args GreylistShowArgs, _ func(any)) (any, error) {
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
	result := GreylistShowResult{Key: key.Client(), Sender: key.Sender, Verdict: "defer", Reason: string(checks.GreylistReason(outcome.Why)),
		Wait: int((outcome.Wait + time.Second - 1) / time.Second), Entries: []GreylistEntry{}}
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

// GreylistAllowArgs names a client that is never delayed ("greylist.allow").
type GreylistAllowArgs struct {
	Client string `json:"client"` // IP address or network, with domain@ in front for one SPF domain there
}

// GreylistAllowResult is the client as the store has it.
type GreylistAllowResult struct {
	Client string `json:"client"`
}

func (o *greylistPart) allow(ctx context.Context, args GreylistAllowArgs, _ func(any)) (any, error) {
	id, err := o.clientID(args.Client)
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: err.Error()}
	}
	e := greylist.Entry{ID: id, Client: greylist.Client{Manual: true, Last: greylist.At(time.Now())}}
	if err := o.store.store.Put(ctx, []greylist.Entry{e}); err != nil {
		return nil, err
	}
	return GreylistAllowResult{Client: string(id)}, nil
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

// GreylistDeleteArgs selects what to forget ("greylist.delete").
type GreylistDeleteArgs struct {
	GreylistFilter
	All bool `json:"all,omitempty"` // needed when the filter is empty
}

// GreylistDeleteResult counts.
type GreylistDeleteResult struct {
	Deleted int `json:"deleted"`
}

func (o *greylistPart) delete(ctx context.Context, args GreylistDeleteArgs, progress func(any)) (any, error) {
	if err := args.check(); err != nil {
		return nil, err
	}
	if args.empty() != args.All {
		return nil, &admin.Error{Code: admin.CodeBadArgs, Message: "say which entries to delete, or ask for all of them"}
	}
	var ids []greylist.ID
	store := o.store.store
	err := store.Walk(ctx, func(e greylist.Entry) error {
		if args.matches(e.ID) {
			ids = append(ids, e.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var result GreylistDeleteResult
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

// GreylistStatsResult counts entries by state ("greylist.stats").
type GreylistStatsResult struct {
	Store    string         `json:"store"` // its kind
	Down     string         `json:"down,omitempty"`
	Triplets map[string]int `json:"triplets"` // waiting, passed, expired
	Clients  map[string]int `json:"clients"`  // earning, allowed, allowed by hand, expired
}

func (o *greylistPart) stats(ctx context.Context, _ struct{}, progress func(any)) (any, error) {
	g := o.store
	result := GreylistStatsResult{Store: g.kind, Triplets: map[string]int{}, Clients: map[string]int{}}
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

// GreylistImportArgs brings entries of another program ("greylist.import").
type GreylistImportArgs struct {
	Entries []migrate.Entry `json:"entries"`
}

// GreylistImportResult counts what came of them.
type GreylistImportResult struct {
	Imported int      `json:"imported"`
	Skipped  int      `json:"skipped"`
	Why      []string `json:"why,omitempty"` // of the first that were skipped
}

// maxImportWhy bounds GreylistImportResult.Why.
const maxImportWhy = 10

func (o *greylistPart) importEntries(ctx context.Context, args GreylistImportArgs, _ func(any)) (any, error) {
	var result GreylistImportResult
	var entries []greylist.Entry
	for _, old := range args.Entries {
		e, err := old.Entry(o.GreylistIPv4Prefix, o.GreylistIPv6Prefix)
		if err != nil {
			result.skip(err.Error())
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

func (r *GreylistImportResult) skip(why ...string) {
	for _, w := range why {
		r.Skipped++
		if len(r.Why) < maxImportWhy {
			r.Why = append(r.Why, w)
		}
	}
}

// GreylistImport is a file of another program on its way into the daemon.
type GreylistImport struct {
	Client   admin.Client
	Progress func(imported int) // told after each batch
}

// Postgrey sends what db_dump has written of postgrey's databases. passedAfter
// is postgrey's delay.
func (i GreylistImport) Postgrey(ctx context.Context, path string, passedAfter time.Duration) (GreylistImportResult, error) {
	return i.file(ctx, path, func(f *os.File, yield func(migrate.Entry) error) (migrate.Result, error) {
		return migrate.Postgrey(f, passedAfter, yield)
	})
}

// Sqlgrey sends what is in sqlgrey's SQLite database, or in a SQL dump of any.
func (i GreylistImport) Sqlgrey(ctx context.Context, path string) (GreylistImportResult, error) {
	return i.file(ctx, path, func(f *os.File, yield func(migrate.Entry) error) (migrate.Result, error) {
		return migrate.SqlgreyFile(ctx, f, time.Local, yield)
	})
}

func (i GreylistImport) file(ctx context.Context, path string, read func(*os.File, func(migrate.Entry) error) (migrate.Result, error)) (GreylistImportResult, error) {
	var total GreylistImportResult
	f, err := os.Open(path)
	if err != nil {
		return total, err
	}
	defer f.Close()
	var batch []migrate.Entry
	send := func() error {
		var r GreylistImportResult
		if err := i.Client.Call(ctx, "greylist.import", GreylistImportArgs{batch}, &r, nil); err != nil {
			return err
		}
		total.Imported += r.Imported
		total.Skipped += r.Skipped
		total.Why = append(total.Why, r.Why[:min(len(r.Why), maxImportWhy-len(total.Why))]...)
		batch = batch[:0]
		i.Progress(total.Imported)
		return nil
	}
	size := 0
	result, err := read(f, func(e migrate.Entry) error {
		size += len(e.Sender) + len(e.Recipient) + len(e.Domain) + importOverhead
		if len(batch) > 0 && size > maxImportBatch {
			if err := send(); err != nil {
				return err
			}
			size = 0
		}
		batch = append(batch, e)
		return nil
	})
	total.Skipped += result.Skipped
	total.Why = append(result.Why, total.Why...)
	if err == nil && len(batch) > 0 {
		err = send()
	}
	if err != nil {
		return total, fmt.Errorf("%s: %w", path, err)
	}
	return total, nil
}

// A request of the admin protocol holds 64 KiB; JSON may escape an octet with
// six.
const (
	maxImportBatch = 10_000
	importOverhead = 120
)
