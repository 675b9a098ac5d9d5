package status

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
)

// Times for asking the daemon. Each question may read files and stores.
const (
	aboutEvery   = 15 * time.Second
	aboutTimeout = 5 * time.Second
	aboutWait    = time.Second // how long the first page waits for the first answers
)

// listedLimits is how many keys with the most used limits are shown.
const listedLimits = 10

// maxKeys bounds the keys that are shown.
const maxKeys = 200

// About is what a daemon reports about itself.
type About struct {
	Settings []api.Setting         `json:"settings"` // that differ from the default
	Refused  string                `json:"refused,omitempty"`
	Limits   *api.LimitsListResult `json:"limits,omitempty"`
	Keys     []api.KeyStatus       `json:"keys,omitempty"`
	Trouble  map[string]string     `json:"trouble,omitempty"` // by command: why there is no answer
}

// askAbout asks the daemon.
func (s *Server) askAbout(ctx context.Context) About {
	a := About{Settings: []api.Setting{}, Trouble: map[string]string{}}
	if set, ok := askAs[api.ConfigResult](ctx, s, a.Trouble, api.Config, nil); ok {
		a.Refused = set.Refused
		a.Settings = slices.DeleteFunc(slices.Clone(set.Settings), func(v api.Setting) bool {
			return v.Origin == string(config.Default) && v.Pending == ""
		})
	}
	if limits, ok := askAs[api.LimitsListResult](ctx, s, a.Trouble, api.LimitsList, api.LimitsListArgs{Limit: listedLimits}); ok {
		a.Limits = &limits
	}
	if keys, ok := askAs[[]api.KeyStatus](ctx, s, a.Trouble, api.DKIMKeys, nil); ok {
		a.Keys = keys[:min(len(keys), maxKeys)]
	}
	if s.o.Privacy {
		hideAbout(&a)
	}
	return a
}

// askAs runs one admin command of the daemon. It notes why there is no answer.
func askAs[T any](ctx context.Context, s *Server, trouble map[string]string, command string, args any) (answer T, ok bool) {
	handler := s.o.Commands()[command]
	if handler == nil {
		return answer, false
	}
	var raw json.RawMessage
	if args != nil {
		raw, _ = json.Marshal(args) // a struct of numbers and texts
	}
	result, err := handler(ctx, raw, func(any) {})
	if err != nil {
		trouble[command] = err.Error()
		return answer, false
	}
	answer, ok = result.(T)
	return answer, ok
}

// namesLogins reports whether a setting may contain logins: it is a list of them,
// or a table whose entries are in the setting.
func namesLogins(s api.Setting) bool {
	return s.Name == "owner-exempt" || strings.Contains(s.Value+s.Pending, "inline:") || strings.Contains(s.Value+s.Pending, "static:")
}

// hideAbout removes addresses and logins from what a daemon reports about itself.
// It copies what it changes.
func hideAbout(a *About) {
	a.Settings = slices.Clone(a.Settings)
	for i := range a.Settings {
		s := &a.Settings[i]
		s.Value, s.Pending = hideText(s.Value), hideText(s.Pending)
		if namesLogins(*s) {
			s.Value, s.Pending = hidden, ""
		}
	}
	a.Refused = hideText(a.Refused)
	a.Trouble = maps.Clone(a.Trouble)
	for command, text := range a.Trouble {
		a.Trouble[command] = hideText(text)
	}
	if a.Limits == nil {
		return
	}
	limits := *a.Limits
	limits.Uses, limits.Blocks = slices.Clone(limits.Uses), slices.Clone(limits.Blocks)
	for i := range limits.Uses {
		limits.Uses[i].Value = hideMail(limits.Uses[i].Value)
	}
	for i := range limits.Blocks {
		limits.Blocks[i].Login = hideMail(limits.Blocks[i].Login)
	}
	a.Limits = &limits
}
