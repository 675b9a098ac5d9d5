package doctor

import (
	"context"
	"fmt"
	"slices"
)

// checkFrom looks at whether milterd sees the From of what users send, and by which
// tables it judges.
func checkFrom(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || !f.usesMilterd() || f.Milterd.SettingsErr != nil {
		return nil
	}
	mode := f.Milterd.text("from-ownership")
	if mode != "shadow" && mode != "enforce" {
		return []Finding{okf("From of what users send is not held to their login: from-ownership is off")}
	}
	var found []Finding
	logins := 0
	for _, s := range f.Postfix.smtpds() {
		if !s.takesLogins() {
			continue
		}
		if logins++; f.roleAt(s) == "" {
			found = append(found, failf(f.giveToSigner(s), "%s: users who log in here may write any From: %s", s, whyNoMilter(s)))
		}
	}
	found = append(found, f.otherOwners()...)
	if logins == 0 {
		return orOK(found, "no service takes logins, so that there is no From to hold to a login")
	}
	if mode == "shadow" || f.Milterd.shadows("all") {
		return orOK(found, "From of what users send (services: %d) is judged and recorded only: shadow", logins)
	}
	return orOK(found, "From of what users send (services: %d) is held to their login", logins)
}

// otherOwners looks for tables of owners that only one of the daemons has.
func (f *Facts) otherOwners() (found []Finding) {
	if len(f.Hooks) == 0 || f.Policyd.SettingsErr != nil || !slices.Contains(f.Policyd.list("checks"), ownershipWord) {
		return nil
	}
	for _, name := range []string{"owners", "owner-aliases"} {
		policy, milter := slices.Sorted(slices.Values(f.Policyd.list(name))), slices.Sorted(slices.Values(f.Milterd.list(name)))
		if !slices.Equal(policy, milter) {
			found = append(found, warnf(fmt.Sprintf("give %s the same value in policyd.toml and milterd.toml", name),
				"%s of %s and %s differ: a login may send as an address that it may not write in From, or the other way round", name, f.Policyd.Name, f.Milterd.Name))
		}
	}
	return found
}
