// The services of master.cf that take mail by SMTP, and who sends through each; and the
// cleanup services that ask milters of their own.

package setup

import (
	"context"
	"fmt"
	"regexp"
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
	Hosts    Role = "mail of own hosts, which need no login"
	Local    Role = "mail of programs of this machine" // a cleanup(8) with non_smtpd_milters of its own
	Closed   Role = ""                                 // an smtpd(8) that takes no connections
)

// Service is one smtpd(8) of master.cf, or a cleanup(8) with the role Local.
type Service struct {
	Key  string // "submission/inet", as postconf -P takes it
	Name string // "submission", "127.0.0.1:10025"
	Role Role

	overrides map[string]string
	meant     map[string]string // all parameters as they were read, with $names and conditions expanded
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
		if len(fields) < 8 || fields[7] != "smtpd" && fields[7] != "cleanup" || postconf.IsDisabled(p.value("master_service_disable"), fields[0], fields[1]) {
			p.rest += line
			continue
		}
		s := &Service{Key: fields[0] + "/" + fields[1], Name: fields[0], overrides: make(map[string]string)}
		for name, value := range all {
			if parameter, ok := strings.CutPrefix(name, s.Key+"/"); ok {
				s.overrides[parameter] = value
			}
		}
		isCleanup := fields[7] == "cleanup"
		if isCleanup && s.overrides[localMilters] == "" {
			p.rest += line
			continue // it has the list of main.cf, or none on purpose
		}
		if err := p.readMeant(ctx, s); err != nil {
			return err
		}
		if s.Role = Local; !isCleanup {
			s.Role = p.role(s, fields[1])
		}
		p.services = append(p.services, s)
	}
	return nil
}

// readMeant reads the parameters of a service.
func (p *Postfix) readMeant(ctx context.Context, s *Service) (err error) {
	if len(s.overrides) == 0 {
		s.meant = p.meant
		return nil
	}
	s.meant, err = postconf.ServiceParams(ctx, []string{"-c", p.Dir}, s.overrides)
	return err
}

// role returns whose mail a service takes.
func (p *Postfix) role(s *Service, kind string) Role {
	port := s.Name[strings.LastIndexByte(s.Name, ':')+1:]
	switch {
	case kind == "pass":
		return Internet // behind postscreen(8)
	case postconf.IsSubmission(s.Name) && !p.logsIn(s) && p.takesOwn(s):
		return Hosts
	case postconf.IsSubmission(s.Name):
		return Users
	case postconf.IsYes(p.expand(s.overrides["smtpd_sasl_auth_enable"], s.overrides)) && port != "smtp" && port != "25":
		return Users
	case p.logsIn(s) && p.lets(s, postconf.OnlyLogins):
		return Users
	case port == "smtp" || port == "25":
		return Internet
	case p.onlyLoopback(s, ""):
		return Filter
	case kind != "inet":
		return Closed
	case p.takesOwn(s):
		return Hosts
	}
	return Internet
}

// takesOwn reports whether a service takes mail of this machine or of the site's own
// networks only.
func (p *Postfix) takesOwn(s *Service) bool {
	return p.onlyLoopback(s, p.value("inet_interfaces")) || p.lets(s, postconf.OnlyOwn)
}

// onlyLoopback reports whether programs of this machine alone send through a service. A
// proxy that names the client's own address brings mail from elsewhere.
func (p *Postfix) onlyLoopback(s *Service, interfaces string) bool {
	return postconf.OnlyLoopback(s.Name, interfaces) && p.get(s, "smtpd_upstream_proxy_protocol") == ""
}

// lets reports whether one of the lists that refuse everyone else lets only some in.
func (p *Postfix) lets(s *Service, only func(list string) bool) bool {
	value := func(name string) string { return p.get(s, name) }
	return slices.ContainsFunc(postconf.LoginLists(), func(list string) bool { return only(postconf.Inline(value(list), value)) })
}

// get returns the value of a parameter at the service, with its $names and conditions
// expanded. One with conditions is the one that was read, whatever is planned.
func (p *Postfix) get(s *Service, name string) string {
	value := p.expand(p.raw(s, name), s.overrides)
	if condition.MatchString(value) {
		return s.meant[name]
	}
	return value
}

// condition matches the beginning of ${name?value} and ${name:value}, and of a comparison.
var condition = regexp.MustCompile(`\$[{(](?:\w+[?:]|\{)`)

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
		i := slices.IndexFunc(p.services, func(s *Service) bool { return s.Role != Local && (s.Name == name || s.Key == name) })
		if i < 0 {
			var all []string
			for _, s := range p.services {
				if s.Role != Local {
					all = append(all, s.Name)
				}
			}
			return fmt.Errorf("master.cf has no smtpd service %q; it has %s", name, strings.Join(all, ", "))
		}
		p.services[i].Role = role
	}
	return nil
}

// logsIn reports whether users may log in at a service.
func (p *Postfix) logsIn(s *Service) bool { return postconf.IsYes(p.get(s, "smtpd_sasl_auth_enable")) }
