package limit

import (
	"context"
	"fmt"
	"strings"
)

// Table is where overrides are looked up. It returns all values of a key.
type Table interface {
	Lookup(ctx context.Context, key string) ([]string, error)
	Name() string
	// Locate returns where the entry of a key is in a file, or "" if that is unknown.
	Locate(key string) string
}

// Override is an entry for a login in a table: its own limits for some units, or no
// limits.
type Override struct {
	Off   bool            // the login has no limits of its own
	Units map[Unit][]Rule // rules instead of the general ones; an empty list: no limit
	Text  string          // as in the table
	Found string          // the key that was found: the login, or "@domain"
	Table string          // the name of the table
	Err   error           // why the text is not used; the general limits apply
	table Table           // the table with that name
}

// Where returns where the entry is, as "path:line", or "" if that is unknown. It looks
// this up on each call, because judging mail does not need it.
func (o *Override) Where() string {
	if o.table == nil {
		return ""
	}
	return o.table.Locate(o.Found)
}

// maxOverride bounds the text of an override.
const maxOverride = 1000

// ParseOverride parses an entry: "off", or words such as "recipients=5000/1d" and
// "messages=off". For a unit that is named, only the limits in the entry apply.
func ParseOverride(text string, duration DurationParser) (Override, error) {
	o := Override{Text: text}
	fields := strings.FieldsFunc(text, func(c rune) bool { return c == ' ' || c == '\t' || c == ',' || c == '\r' || c == '\n' })
	if len(text) > maxOverride || len(fields) == 0 {
		return o, fmt.Errorf("an override has 1 to %d characters", maxOverride)
	}
	if len(fields) == 1 && strings.EqualFold(fields[0], "off") {
		o.Off = true
		return o, nil
	}
	o.Units = make(map[Unit][]Rule)
	var all []Rule
	for _, field := range fields {
		name, amount, ok := strings.Cut(field, "=")
		name = strings.TrimPrefix(name, string(Login)+".")
		unit := Unit(name)
		switch {
		case !ok:
			return o, fmt.Errorf("%.60q: write UNIT=COUNT/WINDOW, UNIT=off, or off alone", field)
		case strings.EqualFold(amount, "off"):
			if _, _, err := ParseName(string(Login) + "." + name); err != nil {
				return o, err
			}
			o.Units[unit] = nil
			continue
		}
		r, err := ParseRule(string(Login)+"."+name+"="+amount, duration)
		if err != nil {
			return o, err
		}
		o.Units[r.Unit] = append(o.Units[r.Unit], r)
		all = append(all, r)
	}
	return o, CheckRules(all)
}

// apply returns the rules that apply to a login. action returns the action for a unit
// of logins.
func (o *Override) apply(rules []Rule, action func(Unit) Action) []Rule {
	out := make([]Rule, 0, len(rules))
	for _, r := range rules {
		if _, named := o.Units[r.Unit]; r.Key != Login || !o.Off && !named {
			out = append(out, r)
		}
	}
	for _, unit := range Units() {
		for _, r := range o.Units[unit] {
			r.Action = action(unit)
			out = append(out, r)
		}
	}
	return out
}
