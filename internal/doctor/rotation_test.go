package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/rotate"
	"github.com/postern-mail/postern/milter/sign"
)

// bare is a DNS without any record.
type bare struct{}

func (bare) Look(context.Context, string) (rotate.View, error) {
	return rotate.View{Servers: []rotate.ServerView{{Server: "ns.home.example"}}, Cached: time.Hour}, nil
}

// rotating begins a rotation of the keys of a domain. publish is a program that publishes;
// "" leaves it to a person.
func rotating(t *testing.T, dir, domain, publish string) {
	t.Helper()
	s := rotate.Settings{Dir: dir, DNS: bare{}, QueueLifetime: func(context.Context) time.Duration { return 0 }}
	if publish != "" {
		program := filepath.Join(t.TempDir(), "publish")
		if err := os.WriteFile(program, []byte(publish), 0o755); err != nil {
			t.Fatal(err)
		}
		s.Publisher = &rotate.Command{Path: program}
	}
	r := rotate.New(s)
	if err := r.Start(domain); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Advance(t.Context(), domain); (err != nil) != (publish != "") {
		t.Fatal(err)
	}
}

const refusing = "#!/bin/sh\necho no such zone; exit 3\n"

// Rotations that fail, wait for a person or do not begin are found, and no others.
func TestRotations(t *testing.T) {
	for _, tt := range []struct {
		name, publish string
		later         time.Duration
		lead          string
		want, fix     string // "" for no finding
	}{
		{name: "the publisher fails", publish: refusing, want: `(phase publish, since `, fix: "postern dkim rotate --status home.example"},
		{name: "a person publishes", later: time.Hour},
		{name: "a person does not publish", later: 25 * time.Hour, want: "waits for you since ", fix: "postern log --reason rotate_by_hand"},
		{name: "rotations begin", publish: "none", later: 90*24*time.Hour + time.Hour},
		{name: "no rotation begins", publish: "none", later: 92 * 24 * time.Hour, want: "older than dkim-rotate (90d), and no rotation begins: home.example", fix: "rotate_failed"},
		{name: "another host rotates", publish: "none", later: 92 * 24 * time.Hour, lead: "no"},
		{name: "a broken state", publish: "broken", want: "cannot go on: ", fix: "use the release of Postern that wrote it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: "home.example", Selector: "a", Type: sign.Ed25519}); err != nil {
				t.Fatal(err)
			}
			switch tt.publish {
			case "none":
			case "broken":
				folder := filepath.Join(dir, "home.example", ".rotation")
				if err := os.Mkdir(folder, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, "state.json"), []byte(`{"version":7}`), 0o600); err != nil {
					t.Fatal(err)
				}
			default:
				rotating(t, dir, "home.example", tt.publish)
			}
			lead := "yes"
			if tt.lead != "" {
				lead = tt.lead
			}
			f := &Facts{Milterd: &Daemon{Name: "postern-milterd", Running: true, Settings: map[string][]string{"dkim-keys": {dir}, "dkim-rotate": {"90d"}, "dkim-rotate-lead": {lead}}}}
			f.Options.now = func() time.Time { return time.Now().Add(tt.later) }
			if strings.HasPrefix(tt.publish, "#!") {
				f.Milterd.Settings["dns-command"] = []string{"/usr/local/sbin/publish"}
			}
			found := f.rotations()
			if tt.want == "" {
				if len(found) > 0 {
					t.Error(show(found))
				}
				return
			}
			if len(found) != 1 || found[0].Level != Warn || !strings.Contains(found[0].Text, tt.want) || !strings.Contains(found[0].Fix, tt.fix) {
				t.Error(show(found))
			}
		})
	}
}

// One cause that stops many rotations does not hide what else is wrong.
func TestManyRotations(t *testing.T) {
	dir := t.TempDir()
	for _, domain := range []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example"} {
		if _, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: domain, Selector: "a", Type: sign.Ed25519}); err != nil {
			t.Fatal(err)
		}
		rotating(t, dir, domain, refusing)
	}
	f := &Facts{Milterd: &Daemon{Settings: map[string][]string{"dkim-keys": {dir}}}}
	f.Options.now = time.Now
	if found := f.rotations(); len(found) != maxRotations+1 || !strings.HasPrefix(found[maxRotations].Text, "2 more rotations") {
		t.Error(show(found))
	}
}
