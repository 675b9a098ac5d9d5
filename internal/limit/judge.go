package limit

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CountAt is the moment at which a recipient counts.
type CountAt uint8

// The moments.
const (
	// AtEndIfAsked is AtEnd while the mail server also asks at the end of mails of the same
	// service, and else AtName.
	AtEndIfAsked CountAt = iota
	AtEnd                // a named recipient is reserved, and counted at the end of the mail
	AtName               // a named recipient is counted at once
)

// Overrides finds the override of a login in tables.
type Overrides interface {
	Find(ctx context.Context, login string) (*Override, error)
}

// Config describes a Judge.
type Config struct {
	Rules     []Rule // each with its action
	Keyer     Keyer
	Overrides Overrides // may be nil
	// PassUnknown is what happens to a login whose override cannot be looked up. If set, its
	// mail is counted by the general limits, and those of logins only warn, because an
	// override could allow any amount. Else Judge returns the error, and counts nothing.
	PassUnknown bool
	// Action returns the action of limits in overrides, by unit; nil means Defer.
	Action  func(Unit) Action
	Store   Store
	Blocks  *Blocks // may be nil
	CountAt CountAt
	Ends    *Ends  // needed by AtEndIfAsked
	Trail   *Trail // may be nil
	// NoEnds is called at most once an hour, when the mail server does not ask at the
	// end of mails of a service although some rule counts only there. It may be nil.
	NoEnds func(service string)
	// Watch lets everything pass and counts it. Rulings say what would have happened.
	Watch bool
}

func (c *Config) action(u Unit) Action {
	if c.Action == nil {
		return Defer
	}
	return c.Action(u)
}

// Judge applies rules to mails. It is immutable and safe for concurrent use.
type Judge struct {
	c     Config
	rules []bound
	mild  []bound  // rules, with those of logins only warning
	atEnd bool     // some rule counts only at the end of mails
	known sync.Map // override text → []bound, bounded by knownLen
	nKnow atomic.Int32
	ops   sync.Pool // of *Op; each is used for one question
}

// bound is a rule with the texts that are made of it.
type bound struct {
	Rule
	id   string // of its counters
	text string
}

// NewJudge returns a judge.
func NewJudge(c Config) *Judge {
	atEnd := c.CountAt == AtEnd || slices.ContainsFunc(c.Rules, func(r Rule) bool { return r.Unit == Bytes })
	return &Judge{c: c, rules: bind(c.Rules), mild: bind(mild(c.Rules)), atEnd: atEnd}
}

// mild returns the rules with the action Warn for those that an override may replace.
func mild(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		if rules[i].Key == Login {
			rules[i].Action = Warn
		}
	}
	return rules
}

func bind(rules []Rule) []bound {
	all := make([]bound, len(rules))
	for i, r := range rules {
		all[i] = bound{Rule: r, id: CounterID(&r, "").Rule, text: r.String()}
	}
	return all
}

// Keyer returns the Keyer of the judge.
func (j *Judge) Keyer() *Keyer { return &j.c.Keyer }

// Kind is the kind of a Ruling.
type Kind uint8

// The kinds.
const (
	None    Kind = iota // no limit applies
	Within              // all limits allow it
	Over                // see Rule
	Blocked             // the login is blocked
)

// Ruling is the result of judging a step of a mail.
type Ruling struct {
	Kind Kind
	// Rule is the rule that decided. If the ruling is Within, it is the rule whose count
	// is used most.
	Rule     *Rule
	Limit    string // Rule as text
	Value    string // the value of the rule's key
	Used     int64
	Wait     time.Duration // until there is room
	Block    *Block
	Repeat   bool // the step was counted before
	Alarms   []Alarm
	Override *Override // the override that applied; its Err is why it did not
	Unknown  error     // why the override could not be looked up, see Config.PassUnknown
}

// Alarm reports a limit that was reached. There is at most one in each window.
type Alarm struct {
	Time     time.Time
	Rule     Rule
	Value    string
	Percent  int // 80 or 100
	Used     int64
	Wait     time.Duration
	Networks []string // of the clients, the latest last
	Domains  []string // of the recipients, the latest last
	Watched  bool     // the limit is only watched, and nothing is refused
}

// Judge judges a step and counts it, unless it is refused.
func (j *Judge) Judge(ctx context.Context, e *Event) (Ruling, error) {
	switch {
	case j.c.Ends == nil:
	case e.Step == End:
		j.c.Ends.seen(e)
	case j.atEnd && j.c.NoEnds != nil && j.c.Ends.missed(e):
		j.c.NoEnds(e.Service)
	}
	return j.decide(ctx, e, false)
}

// Look judges a step and changes nothing in the store.
func (j *Judge) Look(ctx context.Context, e *Event) (Ruling, error) { return j.decide(ctx, e, true) }

func (j *Judge) decide(ctx context.Context, e *Event, look bool) (Ruling, error) {
	login := j.c.Keyer.login(e)
	if b := j.c.Blocks.Find(login, e.Time); b != nil {
		return Ruling{Kind: Blocked, Block: b, Value: login}, nil
	}
	rules, override, unknown := j.rulesFor(ctx, login)
	if unknown != nil && !j.c.PassUnknown {
		return Ruling{}, unknown
	}
	op := j.op(e, rules, login)
	defer j.done(op)
	if len(op.Items) == 0 {
		return Ruling{Override: override, Unknown: unknown}, nil
	}
	op.Look = look
	a, err := j.c.Store.Take(ctx, op)
	if err != nil {
		return Ruling{Override: override}, err
	}
	if a.Blocked != nil {
		return Ruling{Kind: Blocked, Block: a.Blocked, Value: login}, nil
	}
	if j.c.Trail != nil && login != "" && !look {
		j.c.Trail.note(login, j.c.Keyer.prefix(e.Client), e.Recipient.Domain)
	}
	r := ruling(op, &a)
	r.Override, r.Unknown = override, unknown
	r.Alarms = j.alarms(op, &a, e, login)
	return r, nil
}

// Blocked returns the block of the event's login, without asking the store.
func (j *Judge) Blocked(e *Event) *Block {
	return j.c.Blocks.Find(j.c.Keyer.login(e), e.Time)
}

// Blocks reports whether any login may be blocked.
func (j *Judge) Blocks() bool { return j.c.Blocks != nil && j.c.Blocks.Len() > 0 }

// Undo takes back what Judge has counted for an event that was refused later.
func (j *Judge) Undo(ctx context.Context, e *Event) error {
	login := j.c.Keyer.login(e)
	rules, _, err := j.rulesFor(ctx, login)
	if err != nil && !j.c.PassUnknown {
		return err
	}
	op := j.op(e, rules, login)
	defer j.done(op)
	if len(op.Items) == 0 {
		return nil
	}
	return j.c.Store.Undo(ctx, op)
}

// Refused counts a mail that was refused for another reason than its limits.
func (j *Judge) Refused(ctx context.Context, e *Event) error {
	login := j.c.Keyer.login(e)
	rules, _, err := j.rulesFor(ctx, login)
	if err != nil && !j.c.PassUnknown {
		return err
	}
	op := &Op{Now: e.Time}
	for i := range rules {
		r := &rules[i]
		if r.Unit != Refused {
			continue
		}
		if value := j.c.Keyer.value(r.Key, login, e); value != "" {
			op.Items = append(op.Items, Item{ID: ID{r.id, value}, Rule: &r.Rule, Amount: 1})
		}
	}
	if len(op.Items) == 0 {
		return nil
	}
	return j.c.Store.Add(ctx, op)
}

// maxKnown bounds the overrides that are cached as rules.
const maxKnown = 1000

// rulesFor returns the rules for a login, and the override from which they come. If that
// cannot be looked up, it returns the mild rules and the error.
func (j *Judge) rulesFor(ctx context.Context, login string) ([]bound, *Override, error) {
	if login == "" || j.c.Overrides == nil {
		return j.rules, nil, nil
	}
	o, err := j.c.Overrides.Find(ctx, login)
	switch {
	case err != nil:
		return j.mild, nil, err
	case o == nil || o.Err != nil:
		return j.rules, o, nil
	}
	if rules, ok := j.known.Load(o.Text); ok {
		return rules.([]bound), o, nil
	}
	rules := bind(o.apply(j.c.Rules, j.c.action))
	if j.nKnow.Add(1) <= maxKnown {
		j.known.Store(o.Text, rules)
	}
	return rules, o, nil
}

// Rules returns the rules for a login, and the override from which they come. If that
// cannot be looked up, it returns the general rules and the error.
func (j *Judge) Rules(ctx context.Context, login string) ([]Rule, *Override, error) {
	bound, o, err := j.rulesFor(ctx, login)
	if err != nil {
		return slices.Clone(j.c.Rules), nil, err
	}
	rules := make([]Rule, len(bound))
	for i, b := range bound {
		rules[i] = b.Rule
	}
	return rules, o, err
}

// op returns the request to the store for an event. The caller must pass it to done.
func (j *Judge) op(e *Event, rules []bound, login string) *Op {
	op, ok := j.ops.Get().(*Op)
	if !ok {
		op = &Op{Items: make([]Item, 0, len(rules))}
	}
	*op = Op{Step: e.Step, Txn: e.Transaction, Reserve: j.reserves(e), Now: e.Time, Block: login, Items: op.Items}
	if e.Transaction == (Digest{}) { // no later step can be assigned to this mail
		op.Txn, op.Reserve = DigestOf([]byte("?"+e.Time.Format(time.RFC3339Nano)+e.Client.String())), false
	}
	if e.Step == Name {
		op.Part = DigestOf([]byte(e.Recipient.Key()))
	}
	for i := range rules {
		r := &rules[i]
		it := Item{Rule: &r.Rule, Lenient: j.c.Watch || !r.Action.Refuses()}
		value := j.c.Keyer.value(r.Key, login, e)
		if value == "" || !j.fill(&it, e) {
			continue
		}
		it.ID, it.Text = ID{r.id, value}, r.text
		op.Items = append(op.Items, it)
	}
	return op
}

// done clears an op and keeps its memory for reuse.
func (j *Judge) done(op *Op) {
	clear(op.Items)
	*op = Op{Items: op.Items[:0]}
	j.ops.Put(op)
}

// fill sets what an item adds. It returns false if the step does not touch the item.
func (j *Judge) fill(it *Item, e *Event) bool {
	r := it.Rule
	switch r.Unit {
	case Networks:
		it.Member = j.c.Keyer.Network(e.Client)
		return it.Member != ""
	case Bytes:
		it.Need = 1
		if e.Step == End {
			it.Need, it.Amount = 0, e.Size
		}
		return true
	case Refused:
		it.Need = 1
		if e.Step == End {
			it.Need, it.Missing, it.Amount = 0, true, int64(max(e.Recipients, 1))
		}
		return true
	}
	if e.Step == End && (e.Transaction == (Digest{}) || j.c.CountAt == AtName) {
		return false // was counted before
	}
	it.Amount, it.Once, it.Direct = 1, r.Unit == Messages && r.Key != Recipient, r.Key == Recipient
	if e.Step == End && r.Unit == Recipients {
		it.Amount = int64(max(e.Recipients, 1))
	}
	return true
}

func (j *Judge) reserves(e *Event) bool {
	switch j.c.CountAt {
	case AtName:
		return false
	case AtEnd:
		return true
	}
	return j.c.Ends.asked(e)
}

// ruling picks the item that decides. Refusals are first. Among these, the item with the
// longest wait decides.
func ruling(op *Op, a *Answer) Ruling {
	r := Ruling{Kind: Within, Repeat: a.Repeat}
	found := -1
	for i := range op.Items {
		if a.Uses[i].Over && (found < 0 || worse(op, a, i, found)) {
			found = i
		}
	}
	if found >= 0 {
		r.Kind = Over
	} else {
		found = fullest(op, a)
	}
	it := &op.Items[found]
	r.Value, r.Limit = it.ID.Value, it.Text
	r.Rule, r.Used, r.Wait = it.Rule, a.Uses[found].Used, a.Uses[found].Wait
	return r
}

// severity returns the rank of an action.
func severity(a Action) int {
	switch a {
	case Reject:
		return 3
	case Defer:
		return 2
	case Hold:
		return 1
	}
	return 0
}

func worse(op *Op, a *Answer, i, than int) bool {
	x, y := severity(op.Items[i].Rule.Action), severity(op.Items[than].Rule.Action)
	return x > y || x == y && a.Uses[i].Wait > a.Uses[than].Wait
}

// fullest returns the item whose count is used most.
func fullest(op *Op, a *Answer) int {
	found, share := 0, -1.0
	for i := range op.Items {
		if s := float64(a.Uses[i].Used) / float64(op.Items[i].Rule.Count); s > share {
			found, share = i, s
		}
	}
	return found
}

func (j *Judge) alarms(op *Op, a *Answer, e *Event, login string) []Alarm {
	var all []Alarm
	for i := range op.Items {
		u := &a.Uses[i]
		if u.Alarm == 0 {
			continue
		}
		it := &op.Items[i]
		alarm := Alarm{Time: e.Time, Rule: *it.Rule, Percent: u.Alarm, Used: u.Used, Wait: u.Wait, Watched: it.Lenient}
		alarm.Value = it.ID.Value
		alarm.Networks, alarm.Domains = j.c.Trail.Of(login)
		if len(alarm.Networks) == 0 {
			alarm.Networks, alarm.Domains = list(j.c.Keyer.Network(e.Client)), list(e.Recipient.Domain)
		}
		all = append(all, alarm)
	}
	return all
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}
