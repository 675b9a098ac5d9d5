// Package limit answers one question: has this login, sender or client sent as much
// as it may?
//
// A [Rule] allows a key, such as a login, an amount of a unit, such as recipients, in
// a sliding window. A [Judge] turns a mail into the counters that it touches and asks
// a [Store], which looks at all of them and counts in one atomic step. The package
// knows no mail server, reads no clock and logs nothing.
//
// Invariants:
//
//   - Within any time span as long as a window, no more than the rule's count passes. A
//     counted item leaves its window late by at most a hundredth of the window.
//   - A counter needs a bounded amount of memory, whatever it counts.
//   - Only stores count, as an [Op] describes. storetest tests all stores against one
//     model.
//   - Undo takes back what was counted for a mail that is refused later. What a
//     transaction has reserved and never commits is released after [HoldFor].
//   - A time in the future, after a clock has been set back, counts as now.
package limit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is what is limited.
type Key string

// The keys.
const (
	Login        Key = "login"
	LoginDomain  Key = "login-domain"
	Sender       Key = "sender"
	SenderDomain Key = "sender-domain"
	Client       Key = "client"
	Network      Key = "network"
	Recipient    Key = "recipient"
	Global       Key = "global"
)

// Keys returns all keys, in the order of the manual.
func Keys() []Key {
	return []Key{Login, LoginDomain, Sender, SenderDomain, Client, Network, Recipient, Global}
}

// ofLogins reports whether counters of the key belong to people who have logged in.
// These counters have their own budget, so that strangers cannot push them out.
func (k Key) ofLogins() bool { return k == Login || k == LoginDomain || k == Global }

// Unit is what is counted.
type Unit string

// The units.
const (
	Recipients Unit = "recipients"
	Messages   Unit = "messages"
	Bytes      Unit = "bytes"
	Networks   Unit = "networks" // distinct client networks
	Refused    Unit = "refused"
)

// Units returns all units, in the order of the manual.
func Units() []Unit { return []Unit{Recipients, Messages, Bytes, Networks, Refused} }

// Action is what happens when a rule's count is reached.
type Action string

// The actions. Hold and Warn let a mail pass, and count it.
const (
	Defer  Action = "defer"
	Reject Action = "reject"
	Hold   Action = "hold"
	Warn   Action = "warn"
)

// Actions returns all actions.
func Actions() []Action { return []Action{Defer, Reject, Hold, Warn} }

// Refuses reports whether mail beyond the count is refused.
func (a Action) Refuses() bool { return a == Defer || a == Reject }

// Rule is one limit.
type Rule struct {
	Key    Key
	Unit   Unit
	Count  int64
	Window time.Duration
	Action Action
}

// Bounds of a rule.
const (
	MaxCount    = 1_000_000_000_000
	MaxNetworks = 500
	MinWindow   = time.Second
	MaxWindow   = 31 * 24 * time.Hour
	// MaxRules bounds what one request can cost.
	MaxRules = 32
)

// Name returns the rule's key and unit, such as "login.recipients".
func (r Rule) Name() string { return string(r.Key) + "." + string(r.Unit) }

// String returns the rule in the form that ParseRule parses.
func (r Rule) String() string { return r.Name() + "=" + r.Amount() }

// Amount returns the rule's count and window, such as "300/1h".
func (r Rule) Amount() string { return strconv.FormatInt(r.Count, 10) + "/" + spell(r.Window) }

// spell writes whole days, hours, minutes or seconds.
func spell(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d >= u.unit && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}

// DurationParser parses a time span such as "1h" or "1d".
type DurationParser func(string) (time.Duration, error)

// ParseRule parses KEY.UNIT=COUNT/WINDOW. ".UNIT" is optional for recipients.
func ParseRule(text string, duration DurationParser) (Rule, error) {
	name, amount, ok := strings.Cut(text, "=")
	if !ok {
		return Rule{}, fmt.Errorf("%.80q is not a limit: write KEY.UNIT=COUNT/WINDOW, as login.recipients=300/1h", text)
	}
	key, unit, err := ParseName(name)
	if err != nil {
		return Rule{}, err
	}
	r := Rule{Key: key, Unit: cmp.Or(unit, Recipients)}
	if r.Count, r.Window, err = parseAmount(amount, duration); err != nil {
		return Rule{}, fmt.Errorf("%.80q: %w", text, err)
	}
	return r, r.check()
}

// ParseName parses KEY or KEY.UNIT.
func ParseName(text string) (Key, Unit, error) {
	key, unit, hasUnit := strings.Cut(strings.TrimSpace(text), ".")
	if !slices.Contains(Keys(), Key(key)) {
		return "", "", fmt.Errorf("%.40q is none of the keys %s", key, words(Keys()))
	}
	if hasUnit && !slices.Contains(Units(), Unit(unit)) {
		return "", "", fmt.Errorf("%.40q is none of the units %s", unit, words(Units()))
	}
	return Key(key), Unit(unit), nil
}

func words[T ~string](all []T) string {
	names := make([]string, len(all))
	for i, w := range all {
		names[i] = string(w)
	}
	return strings.Join(names, ", ")
}

var errAmount = errors.New("write COUNT/WINDOW, as 300/1h or, for bytes, 2G/1d")

// parseAmount parses COUNT/WINDOW.
func parseAmount(text string, duration DurationParser) (int64, time.Duration, error) {
	count, window, ok := strings.Cut(strings.TrimSpace(text), "/")
	if !ok {
		return 0, 0, fmt.Errorf("%.40q has no window: %w", text, errAmount)
	}
	n, err := parseCount(count)
	if err != nil {
		return 0, 0, err
	}
	d, err := duration(window)
	if err != nil {
		return 0, 0, fmt.Errorf("the window: %w", err)
	}
	if d < MinWindow || d > MaxWindow || d%time.Second != 0 {
		return 0, 0, fmt.Errorf("the window %.40q is out of bounds: use whole seconds from %s to %s", window, spell(MinWindow), spell(MaxWindow))
	}
	return n, d, nil
}

// parseCount parses a number, which may end in k, M or G.
func parseCount(text string) (int64, error) {
	digits, factor := text, int64(1)
	for suffix, f := range map[string]int64{"k": 1e3, "M": 1e6, "G": 1e9} {
		if s, ok := strings.CutSuffix(text, suffix); ok {
			digits, factor = s, f
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is not a count: %w", text, errAmount)
	}
	if n < 1 || n > MaxCount/factor {
		return 0, fmt.Errorf("the count %.40q is out of bounds: use 1 to %d; to refuse all mail of a login use `postern limits block`", text, int64(MaxCount))
	}
	return n * factor, nil
}

// check returns an error for a rule that cannot be counted.
func (r Rule) check() error {
	switch {
	case r.Unit == Networks && r.Key != Login && r.Key != LoginDomain:
		return fmt.Errorf("%s: networks are counted for login and login-domain only", r)
	case r.Unit == Networks && r.Count > MaxNetworks:
		return fmt.Errorf("%s: at most %d networks are counted", r, MaxNetworks)
	case r.Key == Recipient && (r.Unit == Bytes || r.Unit == Refused):
		return fmt.Errorf("%s: a recipient is known when it is named, and neither size nor refusals are; use recipients or messages", r)
	}
	return nil
}

// CheckRules returns an error for rules that contradict each other.
func CheckRules(rules []Rule) error {
	if len(rules) > MaxRules {
		return fmt.Errorf("more than %d limits", MaxRules)
	}
	for i, r := range rules {
		for _, o := range rules[:i] {
			if err := r.contradicts(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// contradicts returns an error if two rules of one key and unit contradict each other.
// The longer window must have the greater count, because otherwise the count of the
// shorter window can never be reached.
func (r Rule) contradicts(o Rule) error {
	if r.Key != o.Key || r.Unit != o.Unit {
		return nil
	}
	short, long := r, o
	if long.Window < short.Window {
		short, long = long, short
	}
	switch {
	case short.Window == long.Window:
		return fmt.Errorf("%s contradicts %s: keep one of them", r, o)
	case long.Count <= short.Count:
		return fmt.Errorf("%s can never be reached beside %s: give the longer window the greater count, or remove %s", short, long, short)
	}
	return nil
}

// OfLogins reports whether the rule's counters are in the budget of logins.
func (r Rule) OfLogins() bool { return r.Key.ofLogins() }

// Valid reports whether a is one of the actions.
func (a Action) Valid() bool { return slices.Contains(Actions(), a) }
