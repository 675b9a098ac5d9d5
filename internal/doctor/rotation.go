package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/rotate"
)

const (
	// overdue is how long after its time a rotation may begin, and how long one may wait
	// for a person, before it is reported.
	overdue = 24 * time.Hour
	// maxRotations bounds the findings about rotations: one cause often stops all.
	maxRotations = 5
)

// rotations finds rotations of keys that do not go on, and those that do not begin.
func (f *Facts) rotations() []Finding {
	d := f.Milterd
	dir := d.text(dkimKeys)
	if !filepath.IsAbs(dir) || d.text("dkim-key-table") != "" {
		return nil // nothing is rotated
	}
	r := rotate.New(rotate.Settings{Dir: dir, Now: f.Options.now})
	domains, err := r.UnderWay()
	found := unreadable(dir, err)
	for _, domain := range domains {
		if state, err := r.State(domain); err == nil && state != nil {
			found = append(found, d.stopped(state, f.Options.now())...)
		}
	}
	if d.rotatesKeys() && d.text("dkim-rotate-lead") == "yes" && d.Running {
		found = append(found, d.late(r)...)
	}
	if more := len(found) - maxRotations; more > 0 {
		found = append(found[:maxRotations], warnf("postern dkim rotate --status shows all", "%d more rotations of DKIM keys do not go on", more))
	}
	return found
}

// unreadable is the finding for states of rotations that cannot be read. Others than root
// and the daemon may not read any.
func unreadable(dir string, err error) []Finding {
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && !isRoot() {
		return nil
	}
	text, fix := splitFix(oneLine(err.Error()), "repair the file, or restore it from a backup")
	return []Finding{warnf(fix, "rotations of DKIM keys in %s cannot go on: %s", dir, text)}
}

// stopped judges one rotation that is under way.
func (d *Daemon) stopped(s *rotate.State, now time.Time) []Finding {
	since := s.Since.UTC().Format(time.DateOnly)
	switch {
	case s.Problem != "":
		text, fix := splitFix(oneLine(s.Problem), "correct that; the next attempt is made within a minute, and postern dkim rotate --status "+s.Domain+" shows the steps")
		return []Finding{warnf(fix, "the rotation of the DKIM keys of %s does not go on (phase %s, since %s): %s", s.Domain, s.Phase, since, text)}
	case s.Missing != "" && d.text("dns-update") == "" && d.text("dns-command") == "" && now.Sub(s.Since) > overdue:
		return []Finding{warnf("change the DNS as the latest line of postern log --reason rotate_by_hand about "+s.Domain+" says, or set dns-update or dns-command",
			"the rotation of the DKIM keys of %s waits for you since %s: %s", s.Domain, since, s.Missing)}
	}
	return nil
}

// late finds domains whose keys should have been rotated long ago, and whose rotation has
// not begun.
func (d *Daemon) late(r *rotate.Rotator) []Finding {
	every, err := config.ParseDuration(d.text("dkim-rotate"))
	if err != nil {
		return nil
	}
	due, _ := r.Due(every + overdue) // what cannot be read was reported
	if len(due) == 0 {
		return nil
	}
	return []Finding{warnf("postern log --reason rotate_failed says why", "DKIM keys are older than dkim-rotate (%s), and no rotation begins: %s", d.text("dkim-rotate"), few(due))}
}

// few names the first of a list, and how many more there are.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
