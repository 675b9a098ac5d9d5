package doctor

import (
	"context"
	"fmt"
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
	limit, _ := strconv.Atoi(f.Postfix.Params["default_process_limit"])
	for _, d := range []*Daemon{f.Policyd, f.Milterd} {
		if most := d.number("max-connections"); most > 0 && limit > most {
			found = append(found, warnf(fmt.Sprintf("set max-connections = %d for %s, or a smaller default_process_limit", 2*limit, d.Name),
				"Postfix may have %d smtpd processes (default_process_limit), and %s takes %d connections", limit, d.Name, most))
		}
	}
	deadline, wait := f.Policyd.seconds("deadline"), seconds(f.Postfix.Params["smtpd_policy_service_timeout"])
	if len(f.Hooks) > 0 && deadline > 0 && wait > 0 && wait <= deadline {
		found = append(found, failf("postconf -X smtpd_policy_service_timeout (100s is the default), or set a shorter deadline in policyd.toml",
			"Postfix waits %gs for an answer (smtpd_policy_service_timeout), and postern-policyd may take %gs (deadline)", wait, deadline))
	}
	verdict := f.Milterd.seconds("verify-deadline")
	for _, name := range []string{"milter_command_timeout", "milter_content_timeout"} {
		if wait := seconds(f.Postfix.Params[name]); f.verifies() && verdict > 0 && wait > 0 && wait <= verdict {
			found = append(found, failf("postconf -X "+name+", or set a shorter verify-deadline in milterd.toml",
				"Postfix waits %gs for a milter (%s), and postern-milterd may take %gs (verify-deadline)", wait, name, verdict))
		}
	}
	return orOK(found, "connections and times fit together")
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
