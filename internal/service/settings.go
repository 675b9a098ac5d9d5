package service

import (
	"context"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/daemon"
)

// fixed returns the names of the settings that need a restart.
func (d *running[S]) fixed(s Settings[S]) []string {
	return slices.Concat(s.Fixed(), s.Common().Fixed(), []string{"log-file", "log-format", "drain-timeout"})
}

// showSettings answers with the settings in force and those that are configured
// now.
func (d *running[S]) showSettings(context.Context, struct{}, func(any)) (any, error) {
	fixed, current := d.fixed(d.settings), d.inForce.Load()
	next, err := d.app.Configure(d.process.Args, d.process.Environ)
	var result api.ConfigResult
	switch refused := d.refused.Load(); {
	case err != nil:
		result.Refused = err.Error()
	case refused != nil:
		result.Refused = *refused
	}
	for _, v := range current.Values() {
		s := api.Setting{Restart: slices.Contains(fixed, v.Name)}
		if s.Restart {
			v = d.settings.Set().Value(v.Name)
		}
		s.Name, s.Value, s.Origin = v.Name, v.Text, v.Origin
		if err == nil {
			if now := next.Set().Value(v.Name); now.Text != s.Value {
				s.Pending, s.PendingOrigin = now.Text, now.Origin
			}
		}
		s.Restart = s.Restart && s.Pending != ""
		result.Settings = append(result.Settings, s)
	}
	return result, nil
}

// showReadiness answers like /readyz.
func (d *running[S]) showReadiness(context.Context, struct{}, func(any)) (any, error) {
	ready, report := d.readiness.Ready()
	return api.ReadyResult{Ready: ready, Report: report}, nil
}

// warnOf logs what an operator should know about the settings. listeners are those that
// are open; none where settings are only checked.
func warnOf(s *config.Set, log *zap.Logger, listeners []daemon.Listener) {
	for _, b := range s.Beaten() {
		if !listensAt(listeners, b) && !(len(listeners) == 0 && ofSystemd(b.By)) {
			log.Warn("a setting of the file is not in force", zap.String("setting", b.Text))
		}
	}
	if text := s.Exposed(); text != "" {
		log.Warn("every user can change the settings", zap.String("file", text))
	}
}

// listensAt reports whether a setting of the file names the sockets that are open: the flag
// that beats it names those of systemd, which are at the same addresses.
func listensAt(listeners []daemon.Listener, b config.Beaten) bool {
	var open []string
	for _, l := range listeners {
		if l.Socket.Flag == "--"+b.Name {
			open = append(open, l.Addr().String())
		}
	}
	named := make([]string, 0, len(b.Values))
	for _, value := range b.Values {
		_, address, _ := strings.Cut(value, ":")
		named = append(named, address)
	}
	return len(open) > 0 && slices.Equal(slices.Sorted(slices.Values(open)), slices.Sorted(slices.Values(named)))
}

// ofSystemd reports whether endpoints are sockets that systemd hands on. At which addresses
// is known only once the daemon has them, so a check cannot say that a setting of the file
// names others: postern setup writes both, and each reload runs a check first.
func ofSystemd(endpoints []string) bool {
	return len(endpoints) > 0 && !slices.ContainsFunc(endpoints, func(e string) bool { return e != "systemd" && !strings.HasPrefix(e, "systemd:") })
}

// settled stores which settings are in force, and logs what has changed.
func (d *running[S]) settled(next *config.Set) {
	before := d.inForce.Swap(next)
	warnOf(next, d.log.Logger(), d.listeners)
	if before == nil {
		return
	}
	if changes := next.Changes(before); len(changes) > 0 {
		d.log.Logger().Info("settings were changed", zap.Strings("settings", changes))
	}
}

// noteReload stores why a reload was refused; nil for one that was not.
func (d *running[S]) noteReload(err error) {
	if err == nil {
		d.refused.Store(nil)
		return
	}
	text := err.Error()
	d.refused.Store(&text)
}

// commands returns the commands of this daemon and those that both daemons have.
func (d *running[S]) commands() map[string]admin.Handler {
	all := map[string]admin.Handler{
		api.Config:  admin.Typed(d.showSettings),
		api.Log:     admin.Typed(d.recent.show),
		api.Ready:   admin.Typed(d.showReadiness),
		api.Restart: d.commandRestart,
	}
	for name, handler := range d.traffic.Commands {
		all[name] = handler
	}
	return all
}
