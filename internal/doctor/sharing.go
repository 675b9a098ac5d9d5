package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/service/hosts"
)

const (
	// clocksApart is by how much clocks may differ that are kept right, with room for a slow
	// answer.
	clocksApart = 30 * time.Second
	// freshStart is how long a daemon may run before it has written its settings.
	freshStart = 2 * hosts.Every
)

// checkHosts compares what the hosts that share a Redis have written there about themselves.
func checkHosts(ctx context.Context, f *Facts) []Finding {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	var found []Finding
	shared := false
	alike := make(map[string][]string) // settings, by what is good about them
	for _, one := range []struct {
		d    *Daemon
		read func(ctx context.Context, args, environ []string) ([]hosts.Shared, error)
	}{{f.Policyd, policyd.SharedStores}, {f.Milterd, milterd.SharedRedis}} {
		if one.d.SettingsErr != nil || one.d.ArgsGuessed || !one.d.wanted() {
			continue // checkSettings reports an error
		}
		all, err := one.read(ctx, one.d.Args, one.d.Environ)
		if err != nil {
			continue // likewise
		}
		for _, s := range all {
			shared = true
			differ, good := f.sharing(one.d, s)
			for _, finding := range differ {
				found = appendNew(found, finding)
			}
			if len(differ) == 0 && good != "" {
				alike[good] = append(alike[good], s.Setting)
			}
		}
	}
	for _, good := range slices.Sorted(maps.Keys(alike)) {
		found = append(found, okf("%s: %s", strings.Join(alike[good], ", "), good))
	}
	if !shared {
		return []Finding{okf("nothing is shared with other hosts over Redis")}
	}
	return found
}

// sharing judges the hosts that share the Redis of a setting of a daemon. good is what to say
// if nothing is wrong, "" if the stores check has something to say.
func (f *Facts) sharing(d *Daemon, s hosts.Shared) (found []Finding, good string) {
	switch {
	case errors.Is(s.Err, hosts.ErrAway):
		return nil, ""
	case s.Err != nil:
		text, fix := splitFix(oneLine(s.Err.Error()), "see which other program uses the keys that begin as those of "+s.Setting)
		return []Finding{warnf(fix, "%s: what the hosts have written about themselves cannot be read: %s", s.Setting, text)}, ""
	}
	if s.Unreadable > 0 {
		found = append(found, warnf("give the other program a prefix of its own (?prefix=NAME)", "%s: %d records of hosts have another form: something else than Postern writes there", s.Setting, s.Unreadable))
	}
	found = append(found, f.unwritten(d, s)...)
	found = append(found, namesakes(s.Hosts)...)
	found = append(found, clocks(s.Hosts)...)
	found = append(found, differing(s)...)
	names := namesOf(s.Hosts)
	switch len(names) {
	case 0:
		return found, "no host has written its settings yet"
	case 1:
		return found, "only " + names[0] + " uses it"
	}
	return found, fmt.Sprintf("%d hosts with the same settings (%s)", len(names), few(names))
}

// unwritten finds that a daemon has not written the settings of this host: the comparison
// would never find them.
func (f *Facts) unwritten(d *Daemon, s hosts.Shared) []Finding {
	host, err := os.Hostname()
	if err != nil || !d.Running || f.Options.now().Sub(startOf(d.PID)) < freshStart || slices.Contains(namesOf(s.Hosts), host) {
		return nil
	}
	return []Finding{warnf("see the log of "+d.Name+" for a right that its user in Redis lacks; restart it if its release is older than this command",
		"%s: %s has not written the settings of %s, so that they are not compared with those of other hosts", s.Setting, d.Name, host)}
}

// namesakes finds machines of one name.
func namesakes(all []hosts.Host) (found []Finding) {
	for i, h := range all { // they are in the order of their names
		if i > 0 && all[i-1].Name == h.Name && !all[i-1].SameMachine(h) {
			found = appendNew(found, warnf("give each a name of its own (hostnamectl set-hostname NAME) and restart both daemons there",
				"two machines that share a Redis are called %s: if one of them leads the rotation of DKIM keys, both do", h.Name))
		}
	}
	return found
}

// clocks finds hosts whose clock is not that of the server.
func clocks(all []hosts.Host) (found []Finding) {
	for _, h := range all {
		if h.Ahead.Abs() < clocksApart {
			continue
		}
		where := "ahead of"
		if h.Ahead < 0 {
			where = "behind"
		}
		found = appendNew(found, warnf("have both kept right (timedatectl set-ntp true); signatures carry the time of the host, and the greylist counts that of the server",
			"the clock of %s is %s %s that of the Redis server", h.Name, h.Ahead.Abs().Round(10*time.Second), where))
	}
	return found
}

// differing finds settings, and releases, that are not the same on all hosts. A release that
// does not know a setting has none.
func differing(s hosts.Shared) (found []Finding) {
	releases := make(map[string][]string)
	settings := make(map[string]map[string][]string) // by name, value: the hosts
	for _, h := range s.Hosts {
		releases[h.Release] = append(releases[h.Release], h.Name)
		for name, value := range h.Settings {
			if settings[name] == nil {
				settings[name] = make(map[string][]string)
			}
			settings[name][value] = append(settings[name][value], h.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if values := settings[name]; len(values) > 1 {
			found = append(found, warnf("set it to the same on all of them", "%s is not the same on the hosts that share %s: %s", name, s.Setting, byValue(values)))
		}
	}
	if len(releases) > 1 {
		found = append(found, warnf("install the same on all of them", "the hosts that share a Redis have different releases: %s", byValue(releases)))
	}
	return found
}

// byValue lists values with the hosts that have them.
func byValue(values map[string][]string) string {
	var parts []string
	for _, value := range slices.Sorted(maps.Keys(values)) {
		shown := value
		if value == "" {
			shown = `""`
		}
		parts = append(parts, shown+" on "+few(slices.Compact(values[value])))
	}
	return strings.Join(parts, "; ")
}

// namesOf returns the names of hosts, each once.
func namesOf(all []hosts.Host) []string {
	var names []string
	for _, h := range all {
		names = append(names, h.Name)
	}
	return slices.Compact(names)
}
