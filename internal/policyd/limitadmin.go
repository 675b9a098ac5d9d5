package policyd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// limitCommands returns the commands about limits.
func limitCommands(c *current) map[string]admin.Handler {
	return map[string]admin.Handler{
		api.LimitsList:    limitCommand(c, (*limitPart).list),
		api.LimitsShow:    limitCommand(c, (*limitPart).show),
		api.LimitsReset:   limitCommand(c, (*limitPart).reset),
		api.LimitsBlock:   command(c, checks.LimitName, (*limitPart).block),
		api.LimitsUnblock: limitCommand(c, (*limitPart).unblock),
		api.LimitsSuggest: limitCommand(c, (*limitPart).suggest),
	}
}

// limitCommand returns the handler of a command that needs limits.
func limitCommand[A any](c *current, answer func(*limitPart, context.Context, A) (any, error)) admin.Handler {
	return command(c, checks.LimitName, func(o *limitPart, ctx context.Context, args A, _ func(any)) (any, error) {
		if o.store == nil {
			return nil, &admin.Error{Code: admin.CodeFailed, Message: "there are no limits and no blocks: set limit, as login.recipients=300/1h"}
		}
		result, err := answer(o, ctx, args)
		return result, withFix(err)
	})
}

// withFix adds the fix to an error of the store or of a table of overrides.
func withFix(err error) error {
	if failed := (*admin.Error)(nil); err == nil || errors.As(err, &failed) {
		return err
	}
	return fmt.Errorf("%w; see that limit-store and limit-overrides answer, then repeat the command", err)
}

func badLimitArgs(format string, args ...any) error {
	return &admin.Error{Code: admin.CodeBadArgs, Message: fmt.Sprintf(format, args...)}
}

// defaultListed is how many counters limits.list returns by default.
const defaultListed = 20

// candidates is how many times as many counters are looked up in the tables of
// overrides.
const candidates = 5

func (o *limitPart) list(ctx context.Context, args api.LimitsListArgs) (any, error) {
	if args.Key != "" && !slices.Contains(limit.Keys(), limit.Key(args.Key)) {
		return nil, badLimitArgs("%.40q is no key", args.Key)
	}
	most := cmp.Or(args.Limit, defaultListed)
	result := api.LimitsListResult{Store: o.store.kind, Uses: []api.LimitUse{}, Blocks: []api.LimitBlock{}, Unsaved: o.store.unsaved()}
	result.Unasked = o.limitsLogins() && o.store.attached.Missing(time.Now())
	if err := o.store.guard.Down(); err != nil {
		result.Down = err.Error()
	}
	found, err := o.fullest(ctx, args.Key, candidates*most)
	if err != nil {
		return nil, err
	}
	for _, c := range found.counters {
		use, ok, unknown := o.use(ctx, c)
		if unknown != nil {
			result.Unknown = unknown.Error()
		}
		if ok && use.Used > 0 {
			result.Uses = append(result.Uses, use)
		}
	}
	slices.SortStableFunc(result.Uses, func(a, b api.LimitUse) int { return cmp.Compare(b.Percent, a.Percent) })
	result.More = found.seen - len(found.counters) + max(len(result.Uses)-most, 0)
	result.Uses = result.Uses[:min(most, len(result.Uses))]
	blocks, err := o.store.guard.Blocks(ctx)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Active(time.Now()) {
			result.Blocks = append(result.Blocks, listedBlock(b))
		}
	}
	slices.SortFunc(result.Blocks, func(a, b api.LimitBlock) int { return cmp.Compare(a.Login, b.Login) })
	return result, nil
}

// full collects the counters that have used the greatest share of the general limits.
type full struct {
	counters []limit.Counter
	seen     int
}

func (o *limitPart) fullest(ctx context.Context, key string, most int) (full, error) {
	counts := make(map[string]int64)
	for _, r := range o.rules {
		counts[r.Name()+r.Window.String()] = r.Count
	}
	share := func(c limit.Counter) float64 {
		name, window, _ := limit.SplitID(c.ID)
		if count := counts[name+window.String()]; count > 0 {
			return float64(c.Used) / float64(count)
		}
		return float64(c.Used) // the limit is in an override
	}
	var f full
	err := o.store.guard.Counters(ctx, key, time.Now(), func(c limit.Counter) error {
		name, _, _ := limit.SplitID(c.ID)
		if of, _, _ := strings.Cut(name, "."); key != "" && of != key || c.Used == 0 {
			return nil
		}
		f.seen++
		if f.counters = append(f.counters, c); len(f.counters) >= 4*most {
			f.keep(most, share)
		}
		return nil
	})
	f.keep(most, share)
	return f, err
}

func (f *full) keep(most int, share func(limit.Counter) float64) {
	slices.SortStableFunc(f.counters, func(a, b limit.Counter) int { return cmp.Compare(share(b), share(a)) })
	f.counters = f.counters[:min(most, len(f.counters))]
}

// use returns a counter with the limit that applies to it, or false if no limit does
// any more. If the override cannot be looked up, that is a general limit, and the error
// says why.
func (o *limitPart) use(ctx context.Context, c limit.Counter) (api.LimitUse, bool, error) {
	name, window, value := limit.SplitID(c.ID)
	login := ""
	if strings.HasPrefix(name, string(limit.Login)+".") {
		login = value
	}
	rules, _, unknown := o.judge.Rules(ctx, login)
	for _, r := range rules {
		if r.Name() == name && r.Window == window {
			return listedUse(r, value, c), true, unknown
		}
	}
	return api.LimitUse{}, false, unknown
}

func listedUse(r limit.Rule, value string, c limit.Counter) api.LimitUse {
	u := api.LimitUse{
		Limit: r.String(), Key: string(r.Key), Unit: string(r.Unit), Value: value, Used: c.Used, Reserved: c.Reserved, Count: r.Count,
		Percent: int(100 * c.Used / r.Count), Window: int(r.Window / time.Second), Wait: int((c.Wait + time.Second - 1) / time.Second),
		Action: string(r.Action), Peak: c.Peak,
	}
	if !c.Last.IsZero() {
		last := showable(c.Last)
		u.Last = &last
	}
	return u
}

func listedBlock(b limit.Block) api.LimitBlock {
	out := api.LimitBlock{Login: b.Login, Since: showable(b.Since)}
	if !b.Until.IsZero() {
		until := showable(b.Until)
		out.Until = &until
	}
	return out
}

// valueOf converts what a person writes to a key and a value of counters.
func (o *limitPart) valueOf(key, text string) (limit.Key, string, error) {
	k := limit.Key(cmp.Or(key, string(limit.Login)))
	if !slices.Contains(limit.Keys(), k) {
		return k, "", badLimitArgs("%.40q is no key", key)
	}
	keyer := o.keyer()
	value := keyer.Normal(k, text)
	if value == "" {
		return k, "", badLimitArgs("%.80q is no %s", text, k)
	}
	return k, value, nil
}

func (o *limitPart) show(ctx context.Context, args api.LimitsOfArgs) (any, error) {
	key, value, err := o.valueOf(args.Key, args.Value)
	if err != nil {
		return nil, err
	}
	result := api.LimitsShowResult{Key: string(key), Value: value, Uses: []api.LimitUse{}, Networks: []string{}, Domains: []string{}, Shadow: o.shadow}
	login := ""
	if key == limit.Login {
		login = value
		if err := o.showBlock(ctx, value, &result); err != nil {
			return nil, err
		}
	}
	rules, override, unknown := o.judge.Rules(ctx, login)
	if unknown != nil {
		result.Unknown = unknown.Error()
	}
	result.Override = listedOverride(override)
	networks, domains := o.store.trail.Of(login)
	result.Networks = append(result.Networks, networks...)
	result.Domains = append(result.Domains, domains...)
	for _, r := range rules {
		if r.Key != key {
			continue
		}
		c, err := o.counter(ctx, limit.CounterID(&r, value).String())
		if err != nil {
			return nil, err
		}
		if r.Unit == limit.Networks && len(c.Members) > 0 {
			result.Networks = c.Members
		}
		result.Uses = append(result.Uses, listedUse(r, value, c))
	}
	return result, nil
}

func (o *limitPart) showBlock(ctx context.Context, login string, result *api.LimitsShowResult) error {
	blocks, err := o.store.guard.Blocks(ctx)
	for _, b := range blocks {
		if b.Login == login && b.Active(time.Now()) {
			listed := listedBlock(b)
			result.Block = &listed
		}
	}
	return err
}

func listedOverride(o *limit.Override) *api.LimitOverride {
	if o == nil {
		return nil
	}
	listed := &api.LimitOverride{Table: o.Table, Key: o.Found, Entry: o.Text, Where: o.Where()}
	if o.Err != nil {
		listed.Error = o.Err.Error()
	}
	return listed
}

// counter returns one counter, which is empty if nothing was counted.
func (o *limitPart) counter(ctx context.Context, id string) (found limit.Counter, err error) {
	err = o.store.guard.Counters(ctx, id, time.Now(), func(c limit.Counter) error {
		if c.ID == id {
			found = c
		}
		return nil
	})
	return found, err
}

func (o *limitPart) reset(ctx context.Context, args api.LimitsOfArgs) (any, error) {
	key, value, err := o.valueOf(args.Key, args.Value)
	if err != nil {
		return nil, err
	}
	var ids []string
	err = o.store.guard.Counters(ctx, string(key)+".", time.Now(), func(c limit.Counter) error {
		if _, _, of := limit.SplitID(c.ID); of == value {
			ids = append(ids, c.ID)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	n, err := o.store.guard.Reset(ctx, ids)
	return api.LimitsResetResult{Value: value, Reset: n, Unsaved: o.store.unsaved()}, err
}

func (o *limitPart) block(ctx context.Context, args api.LimitsBlockArgs, _ func(any)) (any, error) {
	b := limit.Block{Since: time.Now()}
	if args.Duration != "" {
		d, err := config.ParseDuration(args.Duration)
		if err != nil || d < time.Second || d > maxLife {
			return nil, badLimitArgs("the duration %.40q: write it as 90s, 12h or 7d", args.Duration)
		}
		b.Until = b.Since.Add(d)
	}
	var err error
	if _, b.Login, err = o.valueOf("", args.Login); err != nil {
		return nil, err
	}
	if o.store == nil {
		return o.firstBlock(ctx, b)
	}
	result, err := o.setBlock(ctx, b, false)
	return result, withFix(err)
}

// firstBlock sets a block while there is no store, because nothing is limited. It
// creates the store and starts a reload, which opens it.
func (o *limitPart) firstBlock(ctx context.Context, b limit.Block) (any, error) {
	store, err := o.openFirst()
	if err != nil {
		return nil, &admin.Error{Code: admin.CodeFailed, Message: fmt.Sprintf("no store for the block: %v; set limit-store", err)}
	}
	if err := errors.Join(store.SetBlock(ctx, b, false), closeStore("limit", store)); err != nil {
		return nil, err
	}
	if o.reload != nil {
		o.reload("the first login is blocked")
	}
	return api.LimitsBlockResult{LimitBlock: listedBlock(b), Shadow: o.shadow}, nil
}

func (o *limitPart) unblock(ctx context.Context, args api.LimitsBlockArgs) (any, error) {
	_, login, err := o.valueOf("", args.Login)
	if err != nil {
		return nil, err
	}
	return o.setBlock(ctx, limit.Block{Login: login}, true)
}

func (o *limitPart) setBlock(ctx context.Context, b limit.Block, lift bool) (any, error) {
	var before api.LimitsShowResult
	if err := o.showBlock(ctx, b.Login, &before); err != nil {
		return nil, err
	}
	stored := o.store.guard.SetBlock(ctx, b, lift)
	if stored != nil && !errors.Is(stored, limit.ErrUnsaved) {
		return nil, fmt.Errorf("the change to the block of %s was not stored: %w", b.Login, stored)
	}
	if err := errors.Join(o.store.blocks.Refresh(ctx), unsaved(b.Login, stored)); err != nil {
		return nil, err
	}
	return api.LimitsBlockResult{LimitBlock: listedBlock(b), Was: before.Block != nil, Shadow: o.shadow}, nil
}

// unsaved returns the error for a block that was changed in memory only.
func unsaved(login string, err error) error {
	if err == nil {
		return nil
	}
	return &admin.Error{Code: admin.CodeFailed, Message: fmt.Sprintf("the block of %s has changed, but it is lost if the daemon ends now: %v; make room on the disk or the file writable, and the daemon writes it by itself", login, err)}
}

// maxTouch bounds the argument of limits.suggest.
const maxTouch = 1_000_000

func (o *limitPart) suggest(ctx context.Context, args api.LimitsSuggestArgs) (any, error) {
	if args.Touch < 0 || args.Touch > maxTouch {
		return nil, badLimitArgs("touch is 0 to %d", maxTouch)
	}
	result := api.LimitsSuggestResult{Suggestions: []api.LimitSuggestion{}}
	for _, r := range o.rules {
		if r.Key != limit.Login {
			continue
		}
		var peaks []int64
		err := o.store.guard.Counters(ctx, limit.CounterID(&r, "").String(), time.Now(), func(c limit.Counter) error {
			if c.Peak > 0 {
				peaks = append(peaks, c.Peak)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		count, touched := limit.Suggest(peaks, args.Touch)
		s := api.LimitSuggestion{Now: r.String(), Logins: len(peaks), Touched: touched}
		if len(peaks) > 0 {
			s.Most = slices.Max(peaks)
			r.Count = count
			s.Limit = r.String()
		}
		result.Suggestions = append(result.Suggestions, s)
	}
	return result, nil
}

// advise implements adviser.
func (o *limitPart) advise(ctx context.Context, r *policy.Request, step *policy.Step) []string {
	if o.judge == nil || r.Login == "" || step.Err != nil {
		return nil
	}
	login := o.judge.Keyer().LoginOf(r.Login)
	if step.Verdict.Reason == record.LimitBlocked {
		return []string{fmt.Sprintf("`postern limits unblock %s` would lift the block", login)}
	}
	advice := []string{fmt.Sprintf("`postern limits reset %s` would forget what was counted for this login", login)}
	if _, override, err := o.judge.Rules(ctx, login); err == nil && override == nil {
		advice = append(advice, fmt.Sprintf("an entry for %s in a table of --limit-overrides would give it limits of its own", login))
	}
	return advice
}
