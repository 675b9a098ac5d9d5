package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/config"
)

// checkBounds compares the limits of Postfix with those of the daemons.
func checkBounds(_ context.Context, f *Facts) []Finding {
	if f.Postfix == nil || len(f.Hooks) == 0 && !f.usesMilterd() {
		return nil
	}
	var found []Finding
	for _, d := range []*Daemon{f.Policyd, f.Milterd} {
		if most, limit := d.number("max-connections"), f.processes(d); most > 0 && limit > most {
			found = append(found, warnf(fmt.Sprintf("set max-connections = %d for %s, or a smaller default_process_limit (or numbers in the column maxproc of master.cf)", 2*limit, d.Name),
				"Postfix may have %d smtpd processes that ask %s, and it takes %d connections", limit, d.Name, most))
		}
	}
	for _, h := range f.Hooks {
		found = appendNew(found, f.answersInTime(h)...)
	}
	for _, m := range f.Milters {
		if m.Ours != nil && m.Ours.Role != roleSign {
			found = appendNew(found, f.verdictInTime(m)...)
		}
	}
	return orOK(found, "connections and times fit together")
}

// processes returns how many smtpd processes may ask a daemon at the same time.
func (f *Facts) processes(d *Daemon) (n int) {
	for _, s := range f.Postfix.smtpds() {
		asks := d == f.Policyd && slices.ContainsFunc(f.Hooks, func(h Hook) bool { return h.Service == s })
		if asks || d == f.Milterd && f.roleAt(s) != "" {
			n += s.Processes
		}
	}
	return n
}

// answersInTime compares how long Postfix waits for the answer to a hook with how long
// policyd may take.
func (f *Facts) answersInTime(h Hook) []Finding {
	const name = "smtpd_policy_service_timeout"
	wait, fix, by := h.Service.Value(name), h.Service.unset(name)+" (100s is the default)", name
	if h.Timeout != "" {
		wait, fix, by = h.Timeout, "take timeout out of this hook", "timeout of the hook in "+h.List
	}
	deadline := f.Policyd.seconds("deadline")
	if seconds(wait) == 0 || deadline == 0 || seconds(wait) > deadline {
		return nil
	}
	return []Finding{failf(fix+", or set a shorter deadline in policyd.toml",
		"Postfix waits %gs for an answer (%s), and postern-policyd may take %gs (deadline)", seconds(wait), by, deadline)}
}

// verdictInTime does the same for a milter.
func (f *Facts) verdictInTime(m AttachedMilter) (found []Finding) {
	s := m.Service
	if s == nil {
		s = cmp.Or(f.Postfix.localCleanup(), &Service{postfix: f.Postfix})
	}
	verdict := f.Milterd.seconds("verify-deadline")
	for _, short := range []string{"command_timeout", "content_timeout"} {
		name := "milter_" + short
		wait, fix, by := s.Value(name), s.unset(name), name
		if own := m.Timeouts[short]; own != "" {
			wait, fix, by = own, "take "+short+" out of this entry of "+m.list(), short+" of "+m.Endpoint
		}
		if seconds(wait) > 0 && verdict > 0 && seconds(wait) <= verdict {
			found = append(found, failf(fix+", or set a shorter verify-deadline in milterd.toml",
				"Postfix waits %gs for a milter (%s), and postern-milterd may take %gs (verify-deadline)", seconds(wait), by, verdict))
		}
	}
	return found
}

// seconds returns a setting of a daemon that is a duration, or 0.
func (d *Daemon) seconds(name string) float64 {
	duration, err := config.ParseDuration(d.text(name))
	if err != nil {
		return 0
	}
	return duration.Seconds()
}

// seconds parses a time in Postfix's spelling. It returns 0 if there is none.
func seconds(text string) float64 {
	units := map[string]float64{"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
	at := strings.LastIndexAny(text, "0123456789") + 1
	n, err := strconv.ParseFloat(text[:at], 64)
	unit, known := units[text[at:]]
	if err != nil || !known {
		return 0
	}
	return n * unit
}
