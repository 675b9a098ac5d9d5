package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/store/redisclient"
	"github.com/postern-mail/postern/policy/checks"
)

// oldHeld is how long a mail may be on hold before it is reported.
const oldHeld = 24 * time.Hour

// checkStores opens the stores in the same way as the daemons.
func checkStores(ctx context.Context, f *Facts) []Finding {
	return append(policydStores(ctx, f), milterdStores(ctx, f)...)
}

// milterdStores looks at the Redis servers that postern-milterd shares with other hosts.
func milterdStores(ctx context.Context, f *Facts) (found []Finding) {
	if f.Milterd.SettingsErr != nil || f.Milterd.ArgsGuessed {
		return nil // checkSettings reports an error
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	stores, err := milterd.ProbeRedis(ctx, f.Milterd.Args, f.Milterd.Environ)
	if err != nil {
		return nil // likewise
	}
	meanwhile := map[string]string{"report-store": "what is counted waits in memory, as far as there is room", "dkim-rotate-lead": "no key is rotated"}
	for _, s := range stores {
		found = append(found, f.storeFinding(s.Setting, s.URL, s.ServerState, s.Err, meanwhile[s.Setting]))
	}
	return found
}

// storeFinding is about a store that was asked. meanwhile is what happens while it does not
// answer.
func (f *Facts) storeFinding(setting, where string, s redisclient.ServerState, err error, meanwhile string) Finding {
	switch {
	case err != nil:
		text, fix := splitFix(oneLine(err.Error()), "start the server, or correct "+setting+"; until then "+meanwhile)
		return failf(fix, "%s = %s: %s", setting, where, text)
	case s.Full:
		return failf("raise maxmemory of the server", "%s = %s: the memory of %s is full, and nothing new is kept", setting, where, s.Version)
	case s.Evicts != "":
		return warnf("set maxmemory-policy noeviction in the server's configuration, and now: CONFIG SET maxmemory-policy noeviction",
			"%s = %s: %s removes keys when its memory is full (%s), and what it then forgets passes without a sign", setting, where, s.Version, s.Evicts)
	case s.Latency > f.Options.bounds.slowStore:
		return warnf("move the store nearer, or look at what keeps it busy", "%s = %s: %s, needs %s for one question", setting, where, s.Version, s.Latency.Round(time.Millisecond))
	case s.Latency == 0:
		return okf("%s = %s: %s", setting, where, s.Version)
	}
	return okf("%s = %s: %s, answers in %s", setting, where, s.Version, s.Latency.Round(10*time.Microsecond))
}

// policydStores looks at the stores of the greylist and of limits.
func policydStores(ctx context.Context, f *Facts) []Finding {
	runs := f.Policyd.list("checks")
	if f.Policyd.SettingsErr != nil || len(runs) == 0 || len(f.Hooks) == 0 && !f.Policyd.wanted() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	down, troubles := f.Policyd.storesSay(ctx)
	if down != "" {
		text, fix := splitFix(oneLine(down), "start the server, or correct greylist-store; until then greylist-on-error decides")
		return []Finding{failf(fix, "%s says that the greylist's store is out of service: %s", f.Policyd.Name, text)}
	}
	if f.Policyd.ArgsGuessed {
		if len(troubles) == 0 {
			return []Finding{okf("the greylist's store answers the daemon")}
		}
		return inOrder(troubles)
	}
	stores, err := policyd.ProbeStores(ctx, f.Policyd.Args, f.Policyd.Environ)
	if err != nil {
		return nil // checkSettings reports this
	}
	var found, good []Finding
	for _, s := range stores {
		finding := f.storeFinding(s.Setting, s.Store, s.ServerState, s.Err, strings.TrimSuffix(s.Setting, "-store")+"-on-error decides")
		if trouble, inTrouble := troubles[s.Setting]; inTrouble && s.Err == nil {
			finding = trouble
		}
		if finding.Level == OK {
			good = append(good, finding)
		} else {
			found = append(found, finding)
		}
	}
	return append(found, good...)
}

// inOrder returns findings by the names of the settings.
func inOrder(bySetting map[string]Finding) []Finding {
	var found []Finding
	for _, setting := range slices.Sorted(maps.Keys(bySetting)) {
		found = append(found, bySetting[setting])
	}
	return found
}

// storesSay returns what the running daemon says about its stores: why the greylist's is
// out of service, and findings about those that answer, by their settings.
func (d *Daemon) storesSay(ctx context.Context) (down string, troubles map[string]Finding) {
	troubles = make(map[string]Finding)
	if !d.Running {
		return "", troubles
	}
	if slices.Contains(d.list("checks"), checks.GreylistName) {
		var stats api.GreylistStatsResult
		err := d.client.Call(ctx, api.GreylistStats, struct{}{}, &stats, nil)
		down = stats.Down
		d.trouble(troubles, "greylist-store", "", stats.Unsaved, err) // down is the only finding then
	}
	if slices.Contains(d.list("checks"), checks.LimitName) {
		var list api.LimitsListResult
		err := d.client.Call(ctx, api.LimitsList, api.LimitsListArgs{Limit: 1}, &list, nil)
		d.trouble(troubles, "limit-store", list.Down, list.Unsaved, err)
	}
	return down, troubles
}

// trouble adds a finding about a store that is down or keeps nothing new, or that the daemon
// cannot list: a file has to be written before. What the daemon did not say is no finding.
func (d *Daemon) trouble(troubles map[string]Finding, setting, down string, unsaved bool, err error) {
	const fix = "make room in the memory or on the disk of the store, or its file writable; the daemon then goes on by itself"
	var said *admin.Error
	switch {
	case errors.As(err, &said) && said.Code == admin.CodeFailed:
		troubles[setting] = failf(fix, "%s cannot list its %s: %s", d.Name, setting, oneLine(said.Message))
	case down != "":
		text, fix := splitFix(oneLine(down), "start the server, make room in its memory or on its disk, or correct "+setting)
		troubles[setting] = failf(fix, "%s says that its %s is out of service: %s", d.Name, setting, text)
	case unsaved:
		troubles[setting] = failf(fix, "the %s of %s is full or cannot be written, and nothing new is kept; the log has the reason", setting, d.Name)
	}
}

// held is a mail in Postfix's hold queue, as postqueue -j prints it.
type held struct {
	Queue   string `json:"queue_name"`
	ID      string `json:"queue_id"`
	Arrival int64  `json:"arrival_time"`
}

// checkQueue counts the mails on hold.
func checkQueue(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.check)
	defer cancel()
	out, errOut, err := postconf.Run(ctx, "postqueue", "-c", f.Postfix.Directory, "-j")
	if err != nil {
		return []Finding{warnf("run it by hand, as root: postqueue -p", "the hold queue cannot be read: %s", oneLine(strings.TrimSpace(errOut)+" "+err.Error()))}
	}
	count, oldest := 0, held{}
	for line := range strings.Lines(out) {
		var m held
		if json.Unmarshal([]byte(line), &m) != nil || m.Queue != "hold" {
			continue
		}
		if count++; count == 1 || m.Arrival < oldest.Arrival {
			oldest = m
		}
	}
	if count == 0 {
		return []Finding{okf("nothing is on hold")}
	}
	age := f.Options.now().Sub(time.Unix(oldest.Arrival, 0)).Truncate(time.Minute)
	if age > oldHeld {
		return []Finding{warnf("look at it (postcat -q "+oldest.ID+"), then release (postsuper -H "+oldest.ID+") or delete (postsuper -d "+oldest.ID+")",
			"%d messages are on hold, the oldest (%s) for %s: no one releases them but you", count, oldest.ID, days(age))}
	}
	return []Finding{okf("%d messages are on hold, the oldest for %s", count, age)}
}

func days(age time.Duration) string { return fmt.Sprintf("%d days", int(age.Hours()/24)) }

// checkClock asks the kernel whether the clock is synchronized.
func checkClock(context.Context, *Facts) []Finding {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		return []Finding{okf("whether the clock is kept right cannot be told: %v", err)}
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		return []Finding{warnf("timedatectl set-ntp true, or install chrony; signatures carry the time, and the greylist counts it", "no one keeps the clock right (it says %s)", time.Now().UTC().Format(time.RFC3339))}
	}
	return []Finding{okf("the clock is kept right, to within %s", time.Duration(t.Maxerror)*time.Microsecond)}
}
