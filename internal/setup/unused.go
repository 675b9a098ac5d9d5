// Parameters of the administrator's own, such as mua_sender_restrictions, that lists name.

package setup

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// fold puts the $names of a list back that had to be expanded, where what they stand for is
// still there as it was. The list then follows the parameter, as the administrator meant it.
func (p *planner) fold(place *Service, name string, list []restriction) []restriction {
	var overrides map[string]string
	if place != nil {
		overrides = place.overrides
	}
	for _, r := range restrictions(p.rawAt(place, name)) {
		if r.name != named.FindString(r.name) || slices.Contains(list, r) {
			continue
		}
		inside := restrictions(p.expand(r.name, overrides))
		for at := 0; len(inside) > 0 && at+len(inside) <= len(list); at++ {
			if slices.Equal(list[at:at+len(inside)], inside) {
				list = slices.Replace(slices.Clone(list), at, at+len(inside), r)
				break
			}
		}
	}
	return list
}

// referred matches the reference to a parameter, also in a condition.
var referred = regexp.MustCompile(`\$[{(]?(\w+)`)

// names adds the parameters that a value refers to.
func names(all map[string]bool, value string) {
	for _, m := range referred.FindAllStringSubmatch(value, -1) {
		all[m[1]] = true
	}
}

// dropUnused plans the removal of the administrator's own parameters that were named only by
// what is replaced. Postfix would warn about each from now on. undo restores them.
func (p *planner) dropUnused(ctx context.Context) error {
	if p.isDockerMailserver() { // its files are not changed
		return nil
	}
	lost := make(map[string]bool)
	for _, c := range p.plan.Changes {
		names(lost, c.Old)
	}
	out, err := p.postconf(ctx, "-d")
	if err != nil {
		return err
	}
	builtIn := postconf.Pairs(out)
	for {
		used := p.used()
		unused := slices.DeleteFunc(slices.Sorted(maps.Keys(lost)), func(name string) bool {
			_, known := builtIn[name]
			return known || !p.explicit[name] || used[name] || strings.HasPrefix(name, ourNames)
		})
		if len(unused) == 0 {
			return nil
		}
		for _, name := range unused {
			p.plan.Changes = append(p.plan.Changes, Change{Name: name, Old: p.main[name], WasSet: true, Unset: true})
			names(lost, p.main[name])
			delete(p.explicit, name)
		}
	}
}

// used returns the parameters that others refer to, as the plan leaves them, and the
// restriction classes.
func (p *planner) used() map[string]bool {
	all := make(map[string]bool)
	for name := range p.explicit {
		names(all, p.main[name])
	}
	for _, s := range p.services {
		for _, value := range s.overrides {
			names(all, value)
		}
	}
	names(all, p.rest)
	for _, class := range postconf.Split(p.value(restrictionClasses)) {
		all[class] = true
	}
	return all
}
