package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// Postfix holds what postconf prints about one instance.
type Postfix struct {
	Directory string            // config_directory
	Params    map[string]string // main.cf and the defaults, expanded
	raw       map[string]string // the same, as written
	Set       map[string]bool   // names that main.cf sets
	Services  []*Service
	Undefined []string // names of parameters that are used but not defined
	Warnings  []string // other warnings of postconf
	primary   []string // folders of the primary instance, and of those that it names, if this is one of them
}

// Service is a line of master.cf.
type Service struct {
	Name, Type, Command string
	Chroot              bool
	Processes           int               // most at the same time; 0 for no limit
	Raw                 map[string]string // -o, as written
	params              map[string]string // all parameters, expanded with these; nil for those of main.cf
	postfix             *Postfix
}

// readPostfix runs postconf for the instance in dir. "" is the default instance.
func readPostfix(ctx context.Context, dir string) (*Postfix, error) {
	p := &Postfix{Set: make(map[string]bool)}
	var base []string
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		base = []string{"-c", abs}
		p.Directory = abs
	}
	all, err := p.postconf(ctx, append(base, "-x")...)
	if err != nil {
		return nil, err
	}
	p.Params = postconf.Pairs(all)
	raw, err := p.postconf(ctx, base...)
	if err != nil {
		return nil, err
	}
	p.raw = postconf.Pairs(raw)
	set, err := p.postconf(ctx, append(base, "-n")...)
	if err != nil {
		return nil, err
	}
	for name := range postconf.Pairs(set) {
		p.Set[name] = true
	}
	p.Directory = p.Params["config_directory"]
	if dir != "" {
		p.primary = instancesWith(ctx, p.Directory)
	}
	return p, p.readServices(ctx, base)
}

// instancesWith returns the folders of the primary instance of Postfix and of all others, if
// it names this one; only main.cf of the primary one has the list.
func instancesWith(ctx context.Context, dir string) []string {
	out, _, err := postconf.Run(ctx, "postconf", "config_directory", "multi_instance_directories")
	params := postconf.Pairs(out)
	others := postconf.Split(params["multi_instance_directories"])
	if err != nil || !slices.ContainsFunc(others, func(other string) bool { return filepath.Clean(other) == filepath.Clean(dir) }) {
		return nil
	}
	return append([]string{params["config_directory"]}, others...)
}

func (p *Postfix) readServices(ctx context.Context, base []string) error {
	lines, err := p.postconf(ctx, append(base, "-M")...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(lines) {
		if s := p.parseService(line); s != nil && !postconf.IsDisabled(p.Params["master_service_disable"], s.Name, s.Type) {
			p.Services = append(p.Services, s)
		}
	}
	overrides, err := p.postconf(ctx, append(base, "-P")...)
	if err != nil {
		return err
	}
	for path, value := range postconf.Pairs(overrides) {
		p.override(path, value)
	}
	for _, s := range p.Services {
		if err := s.readParams(ctx, base); err != nil {
			return err
		}
	}
	return nil
}

// readParams reads the parameters of a service that we look at.
func (s *Service) readParams(ctx context.Context, base []string) (err error) {
	if len(s.Raw) == 0 || !slices.Contains([]string{"smtpd", "postscreen", "pickup", "cleanup", "smtp"}, s.Command) {
		return nil
	}
	s.params, err = postconf.ServiceParams(ctx, base, s.Raw)
	return err
}

// parseService parses a line of master.cf as postconf -M prints it.
func (p *Postfix) parseService(line string) *Service {
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return nil
	}
	chroot := fields[4] == "y" || fields[4] == "-" && p.compatibility() < 1
	processes, err := strconv.Atoi(fields[6])
	if err != nil {
		processes, _ = strconv.Atoi(p.Params["default_process_limit"])
	}
	return &Service{Name: fields[0], Type: fields[1], Command: fields[7], Chroot: chroot, Processes: processes,
		Raw: make(map[string]string), postfix: p}
}

// override records a line service/type/parameter = value.
func (p *Postfix) override(path, value string) {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return
	}
	for _, s := range p.Services {
		if s.String() == path[:at] {
			s.Raw[path[at+1:]] = value
		}
	}
}

var undefinedParameter = regexp.MustCompile(`undefined parameter: (\S+)`)

// postconf runs postconf. Warnings are added to p and are not an error.
func (p *Postfix) postconf(ctx context.Context, args ...string) (string, error) {
	out, errOut, err := postconf.Run(ctx, "postconf", args...)
	for line := range strings.Lines(errOut) {
		line = strings.TrimSpace(line)
		_, text, isWarning := strings.Cut(line, "postconf: warning: ")
		if !isWarning {
			text = line
		}
		if m := undefinedParameter.FindStringSubmatch(line); m != nil {
			if !slices.Contains(p.Undefined, m[1]) {
				p.Undefined = append(p.Undefined, m[1])
			}
		} else if text != "" && !slices.Contains(p.Warnings, text) {
			p.Warnings = append(p.Warnings, text)
		}
	}
	return out, err
}

// Value returns the value of a parameter at a service.
func (s *Service) Value(name string) string {
	if s.params != nil {
		return s.params[name]
	}
	return s.postfix.Params[name]
}

func (s *Service) overrides(name string) bool {
	_, ok := s.Raw[name]
	return ok
}

// String returns the usual name of a service.
func (s *Service) String() string { return s.Name + "/" + s.Type }

func (p *Postfix) queueDirectory() string { return p.Params["queue_directory"] }

// compatibility returns the major number of compatibility_level.
func (p *Postfix) compatibility() int {
	major, _, _ := strings.Cut(p.Params["compatibility_level"], ".")
	n, _ := strconv.Atoi(major)
	return n
}

// atLeast reports whether Postfix is of this release or a later one.
func (p *Postfix) atLeast(major, minor int) bool {
	parts := strings.SplitN(p.Params["mail_version"], ".", 3)
	if len(parts) < 2 {
		return true
	}
	a, _ := strconv.Atoi(parts[0])
	b, _ := strconv.Atoi(strings.TrimRight(parts[1], "-abcdefghijklmnopqrstuvwxyz"))
	return a > major || a == major && b >= minor
}

// smtpds returns the services that speak SMTP to clients, including the smtpd behind
// postscreen.
func (p *Postfix) smtpds() []*Service {
	var found []*Service
	for _, s := range p.Services {
		if s.Command == "smtpd" && s.Type != "unix" {
			found = append(found, s)
		}
	}
	return found
}

// service returns the first service that runs a program, or nil.
func (p *Postfix) service(command string) *Service {
	i := slices.IndexFunc(p.Services, func(s *Service) bool { return s.Command == command })
	if i < 0 {
		return nil
	}
	return p.Services[i]
}

// localCleanup returns the service that mail of sendmail(1) passes, or nil.
func (p *Postfix) localCleanup() *Service {
	name := p.Params["cleanup_service_name"]
	if pickup := p.service("pickup"); pickup != nil {
		name = pickup.Value("cleanup_service_name")
	}
	i := slices.IndexFunc(p.Services, func(s *Service) bool { return s.Command == "cleanup" && s.Name == name })
	if i < 0 {
		return p.service("cleanup")
	}
	return p.Services[i]
}

// yes reports whether a parameter is yes at a service.
func (s *Service) yes(name string) bool { return postconf.IsYes(s.Value(name)) }

// unset returns the command that takes a parameter of a service back to its default.
func (s *Service) unset(name string) string {
	if s.overrides(name) {
		return fmt.Sprintf("postconf -PX '%s/%s'", s, name)
	}
	return "postconf -X " + name
}

// takesLogins reports whether users log in. Where only the site's own clients get in, who
// need no login, the setting of main.cf means other services.
func (s *Service) takesLogins() bool {
	return s.yes("smtpd_sasl_auth_enable") && (s.overrides("smtpd_sasl_auth_enable") || postconf.IsSubmission(s.Name) || !s.isOwn())
}

// isSubmission reports whether a service is for users only: by its name, unless no one logs in
// and only own hosts get in, or because it refuses clients that have not logged in.
func (s *Service) isSubmission() bool {
	return postconf.IsSubmission(s.Name) && (s.takesLogins() || !s.isOwn()) || s.takesLogins() && s.lets(postconf.OnlyLogins)
}

// lets reports whether one of the lists that refuse everyone else lets only some in.
func (s *Service) lets(only func(list string) bool) bool {
	return slices.ContainsFunc(postconf.LoginLists(), func(list string) bool { return only(postconf.Inline(s.Value(list), s.Value)) })
}

// isLoopback reports whether only programs of this machine send through a service, such as a
// content filter that hands mail back. A proxy that names the client's own address brings
// mail from elsewhere.
func (s *Service) isLoopback() bool {
	return s.Type == "inet" && postconf.OnlyLoopback(s.Name, s.postfix.Params["inet_interfaces"]) && s.Value("smtpd_upstream_proxy_protocol") == ""
}

// isOwn reports whether a service takes mail of this machine or of the site's own networks
// only, without a login.
func (s *Service) isOwn() bool {
	return !s.lets(postconf.OnlyLogins) && (s.isLoopback() || s.lets(postconf.OnlyOwn))
}

// isInbound reports whether mail from the internet comes in at a service.
func (s *Service) isInbound() bool { return !s.isSubmission() && !s.isOwn() }
