package checks_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

func look(t *testing.T, check policy.Peeker, r *policy.Request) policy.Verdict {
	t.Helper()
	v, err := check.Peek(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// At each step, Peek returns the verdict that the next request gets, however
// often it is called.
func TestGreylistPeekIsWhatCheckGives(t *testing.T) {
	g := newGreylist(world())
	for _, step := range []struct {
		after  time.Duration
		detail string
		reason record.Reason
	}{
		{0, " waited=0s left=180s", record.GreylistNew},
		{49 * time.Second, " waited=49s left=131s", record.GreylistEarly},
		{4 * time.Minute, " waited=240s", record.GreylistWaited},
		{5 * time.Minute, "", record.GreylistKnown},
	} {
		r := rcpt("192.0.2.7", "ann@good.example", "bob@home.example")
		r.Received = start.Add(step.after)
		looked := look(t, g, r)
		if again := look(t, g, r); again.Reason != looked.Reason || again.Header != looked.Header {
			t.Errorf("after %v: looked %+v, then %+v", step.after, looked, again)
		}
		got := ask(t, g, r)
		if looked.Kind != got.Kind || looked.Reason != got.Reason || got.Reason != step.reason || looked.Text != got.Text || looked.Header != got.Header {
			t.Errorf("after %v: looked %+v, got %+v", step.after, looked, got)
		}
		if !strings.HasSuffix(looked.Detail, " spf=pass"+step.detail) {
			t.Errorf("after %v: detail %q", step.after, looked.Detail)
		}
	}
}

func TestGreylistPeekAtAFlood(t *testing.T) {
	g := newGreylist(world())
	g.Flood = greylist.NewFlood(1)
	ask(t, g, rcpt("192.0.2.7", "ann@good.example", "bob@home.example"))
	r := rcpt("192.0.2.7", "eve@good.example", "bob@home.example")
	if looked, got := look(t, g, r), ask(t, g, r); looked.Reason != record.GreylistFlood || got.Reason != looked.Reason {
		t.Errorf("looked %+v, got %+v", looked, got)
	}
}

// downStore is a store behind an open breaker. It would answer if it were
// asked.
type downStore struct{ greylist.Store }

func (downStore) Down() error { return errors.New("refused") }

func TestGreylistPeekWhileTheStoreIsDown(t *testing.T) {
	g := newGreylist(world())
	g.Store = downStore{g.Store}
	v, err := g.Peek(context.Background(), rcpt("192.0.2.7", "ann@good.example", "bob@home.example"), nil)
	if !errors.Is(err, greylist.ErrUnavailable) || v.Reason != record.GreylistUnavailable {
		t.Errorf("got %+v, %v", v, err)
	}
}
