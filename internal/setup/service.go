// The services of master.cf that take mail by SMTP, and who sends through each.

package setup

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// Role is the kind of senders that use a service.
type Role string

// The roles.
const (
	Internet Role = "mail from the internet"
	Users    Role = "mail of users who log in"
	Filter   Role = "mail that a content filter hands back"
	Closed   Role = "" // not an smtpd(8)
)

// Service is one smtpd(8) of master.cf.
type Service struct {
	Key  string // "submission/inet", as postconf -P takes it
	Name string // "submission", "127.0.0.1:10025"
	Role Role

	overrides map[string]string
}

// readServices reads master.cf.
func (p *Postfix) readServices(ctx context.Context) error {
	entries, err := p.postconf(ctx, "-M")
	if err != nil {
		return err
	}
	overrides, err := p.postconf(ctx, "-P")
	if err != nil {
		return err
	}
	all := postconf.Pairs(overrides)
	for line := range strings.Lines(entries) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[7] != "smtpd" {
			continue
		}
		s := &Service{Key: fields[0] + "/" + fields[1], Name: fields[0], overrides: make(map[string]string)}
		for name, value := range all {
			if parameter, ok := strings.CutPrefix(name, s.Key+"/"); ok {
				s.overrides[parameter] = value
			}
		}
		s.Role = p.role(s, fields[1])
		p.services = append(p.services, s)
	}
	return nil
}

// loopbackPort returns the port of a service that only this machine can reach.
func (s *Service) loopbackPort() (port string, ok bool) {
	host, port, err := net.SplitHostPort(s.Name)
	if err != nil {
		return "", false
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return port, host == "localhost" || ip != nil && ip.IsLoopback()
}

// role returns whose mail a service takes.
func (p *Postfix) role(s *Service, kind string) Role {
	port := s.Name[strings.LastIndexByte(s.Name, ':')+1:]
	_, loopback := s.loopbackPort()
	switch {
	case kind == "pass":
		return Internet // behind postscreen(8)
	case slices.Contains([]string{"submission", "submissions", "smtps", "587", "465"}, port):
		return Users
	case isYes(p.expand(s.overrides["smtpd_sasl_auth_enable"], s.overrides)) && port != "smtp" && port != "25":
		return Users
	case p.logsIn(s) && slices.ContainsFunc(postconf.LoginLists(), func(list string) bool { return postconf.OnlyLogins(p.effective(s, list)) }):
		return Users
	case port == "smtp" || port == "25":
		return Internet
	case loopback:
		return Filter
	case kind != "inet":
		return Closed
	}
	return Internet
}

// get returns the value of a parameter at the service, with its $names expanded.
func (p *Postfix) get(s *Service, name string) string { return p.expand(p.raw(s, name), s.overrides) }

// effective is like get. A parameter that the service does not override has its conditions
// expanded too.
func (p *Postfix) effective(s *Service, name string) string {
	if s != nil && s.has(name) {
		return p.get(s, name)
	}
	return p.value(name)
}

// raw returns the value of a parameter at the service, as written. An empty value in
// master.cf is not the same as none.
func (p *Postfix) raw(s *Service, name string) string {
	if own, ok := s.overrides[name]; ok {
		return own
	}
	return p.main[name]
}

// has reports whether the service overrides a parameter.
func (s *Service) has(name string) bool { _, ok := s.overrides[name]; return ok }

// with returns the services that have a role.
func (p *Postfix) with(role Role) []*Service {
	var all []*Service
	for _, s := range p.services {
		if s.Role == role {
			all = append(all, s)
		}
	}
	return all
}

// give sets the role of services that the administrator has named.
func (p *Postfix) give(role Role, names []string) error {
	for _, name := range names {
		i := slices.IndexFunc(p.services, func(s *Service) bool { return s.Name == name || s.Key == name })
		if i < 0 {
			var all []string
			for _, s := range p.services {
				all = append(all, s.Name)
			}
			return fmt.Errorf("master.cf has no smtpd service %q; it has %s", name, strings.Join(all, ", "))
		}
		p.services[i].Role = role
	}
	return nil
}

// logsIn reports whether users may log in at a service.
func (p *Postfix) logsIn(s *Service) bool { return isYes(p.get(s, "smtpd_sasl_auth_enable")) }
