package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	control "github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/authority"
	"github.com/postern-mail/postern/internal/resolver/bindtest"
	"github.com/postern-mail/postern/internal/rotate"
)

// RotationShown is the state of a rotation at one time.
type RotationShown struct {
	When  string // the day, counted from the first, and the phase
	Mail  string // which key signed a mail sent then, and a verifier's result
	Steps string // the steps since the time before
}

// rotationDays are the times, in hours, at which the story looks at the rotation. Each
// has something to do, from the first step to the last.
var rotationDays = []int{0, 2, 4, 15 * 24, 30 * 24}

// RotationStory rotates the keys of a site. The site has a real name server, which
// receives the records by dynamic updates. The story moves the clock of the rotation.
// The mails in between go through postern-milterd, which finds the new keys by itself.
func RotationStory(ctx context.Context, s *Site) (shown []RotationShown, wrong, err error) {
	dir := filepath.Join(s.Dir, "bind")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, nil, err
	}
	zone, err := s.Postern(ctx, "dkim", "dns", "--dir", s.KeysDir, homeDomain)
	if err != nil {
		return nil, nil, err
	}
	s.config.Progress("starting a private BIND for the zone " + homeDomain)
	server, err := bindtest.Start(ctx, dir, homeDomain, zone)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	story, err := newRotationStory(s, server)
	if err != nil {
		return nil, nil, err
	}
	began := story.now
	for _, hours := range rotationDays {
		story.now = began.Add(time.Duration(hours) * time.Hour)
		one, notExpected, err := story.at(ctx, hours)
		if err != nil {
			return shown, wrong, err
		}
		shown, wrong = append(shown, one), errors.Join(wrong, notExpected)
	}
	if story.phase != rotate.Done {
		wrong = errors.Join(wrong, fmt.Errorf("the rotation is in phase %s, expected its end", story.phase))
	}
	return shown, wrong, nil
}

// rotationStory holds a rotation and its clock.
type rotationStory struct {
	site    *Site
	rotator *rotate.Rotator
	now     time.Time
	steps   []string
	phase   rotate.Phase
}

func newRotationStory(s *Site, server *bindtest.Server) (*rotationStory, error) {
	update, err := rotate.OpenUpdate(server.Key, server.Addr, -1)
	if err != nil {
		return nil, err
	}
	t := &rotationStory{site: s, now: time.Now()}
	t.rotator = rotate.New(rotate.Settings{
		Dir: s.KeysDir, Publisher: update, Now: func() time.Time { return t.now },
		DNS:           &rotate.Authorities{Asker: authority.Asker{Servers: []netip.AddrPort{server.Addr}}},
		Expire:        7 * 24 * time.Hour,
		QueueLifetime: func(context.Context) time.Duration { return 5 * 24 * time.Hour },
		Report:        func(e rotate.Event) { t.steps = append(t.steps, string(e.Step)) },
	})
	return t, t.rotator.Start(homeDomain)
}

// signsWith waits until the daemon has noticed by itself which keys are in its folder.
func (t *rotationStory) signsWith(ctx context.Context, paths []string) error {
	client := control.Client{Path: filepath.Join(t.site.Dir, "milterd.sock"), Daemon: api.Milterd}
	for {
		var keys []api.KeyStatus
		if err := client.Call(ctx, api.DKIMKeys, struct{}{}, &keys, nil); err != nil {
			return err
		}
		var sign []string
		for _, key := range keys {
			sign = append(sign, key.Path)
		}
		if slices.Sort(sign); slices.Equal(sign, slices.Sorted(slices.Values(paths))) {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the keys of postern-milterd are %q, expected %q: %w", sign, paths, ctx.Err())
		}
	}
}

// at does the steps that are due at one time, and sends a mail.
func (t *rotationStory) at(ctx context.Context, hours int) (shown RotationShown, wrong, err error) {
	if _, err := t.rotator.Advance(ctx, homeDomain); err != nil {
		return shown, nil, err
	}
	state, err := t.rotator.State(homeDomain)
	if err != nil {
		return shown, nil, err
	}
	t.phase = state.Phase
	keys, err := filepath.Glob(filepath.Join(t.site.KeysDir, homeDomain, "*.private"))
	if err != nil {
		return shown, nil, err
	}
	if err := t.signsWith(ctx, keys); err != nil {
		return shown, nil, err
	}
	if err := t.site.PublishKeys(ctx); err != nil {
		return shown, nil, err
	}
	o, err := SignCase{"a mail during a rotation", postfixtest.Submission, As(Alice, Alice, Dora), record.Signed, len(keys)}.Run(ctx, t.site)
	if err != nil {
		return shown, nil, err
	}
	steps := strings.Join(t.steps, ", ")
	t.steps = nil
	return RotationShown{fmt.Sprintf("day %d: %s", hours/24, t.phase), o.Why(), steps}, o.Wrong, nil
}
