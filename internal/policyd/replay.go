package policyd

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/replay"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy/checks"
)

// ReplayArgs are the arguments of [Replay].
type ReplayArgs struct {
	Config    []string // arguments of the daemon: its settings when it wrote the records
	Changes   []string // further arguments: the settings to try
	Questions iter.Seq2[*replay.Question, error]
	Since     time.Time // older requests only show what the store knew
	Show      int       // how many differences to list
}

// Replay returns what other settings would have done, according to records.
func Replay(ctx context.Context, a ReplayArgs) (*replay.Report, error) {
	life := service.NewLife()
	defer life.Discard()
	was, err := replayed(life, a.Config)
	if err != nil {
		return nil, err
	}
	would, err := replayed(life, slices.Concat(a.Config, a.Changes))
	if err != nil {
		return nil, err
	}
	p := replay.New(replay.Options{Was: was, Would: would, Show: a.Show})
	early := !a.Since.IsZero()
	for q, err := range a.Questions {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
		if early && !q.Request.Received.Before(a.Since) {
			early = false
			p.Reset()
		}
		if err := p.Play(ctx, q); err != nil {
			return nil, err
		}
	}
	if early {
		p.Reset()
	}
	report := p.Report()
	return &report, nil
}

// replayer is a part that can be replayed without its servers.
type replayer interface {
	replay(n *needs, to *replay.Settings) error
}

// replayed builds the settings of one side. It only uses the checks that can be
// replayed. Which of them were only watched is in the records.
func replayed(life *service.Life, args []string) (settings replay.Settings, err error) {
	s, err := configure(slices.Concat(args, []string{"--checks=" + strings.Join([]string{checks.LimitName, checks.DNSBLName, checks.GreylistName}, ","), "--shadow=" + wordAll}), nil)
	if err != nil {
		return settings, err
	}
	n := &needs{Runtime: service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{})), life: life, set: s.set, options: &s.Options}
	for _, room := range s.rooms {
		if part, ok := room.part.(replayer); ok {
			if err := part.replay(n, &settings); err != nil {
				return settings, err
			}
		}
	}
	return settings, nil
}
