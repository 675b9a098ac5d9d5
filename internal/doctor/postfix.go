package doctor

import (
	"context"
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
}

// Service is a line of master.cf.
type Service struct {
	Name, Type, Command string
	Chroot              bool
	Overrides           map[string]string // -o, expanded
	Raw                 map[string]string // -o, as written
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
	return p, p.readServices(ctx, base)
}

func (p *Postfix) readServices(ctx context.Context, base []string) error {
	lines, err := p.postconf(ctx, append(base, "-M")...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(lines) {
		if s := p.parseService(line); s != nil {
			p.Services = append(p.Services, s)
		}
	}
	for _, flags := range []string{"-P", "-Px"} {
		overrides, err := p.postconf(ctx, append(base, flags)...)
		if err != nil {
			return err
		}
		for path, value := range postconf.Pairs(overrides) {
			p.override(path, value, flags == "-P")
		}
	}
	return nil
}

// parseService parses a line of master.cf as postconf -M prints it.
func (p *Postfix) parseService(line string) *Service {
	fields := strings.Fields(line)
	if len(fields) < 8 {
		return nil
	}
	chroot := fields[4] == "y" || fields[4] == "-" && p.compatibility() < 1
	return &Service{Name: fields[0], Type: fields[1], Command: fields[7], Chroot: chroot,
		Overrides: make(map[string]string), Raw: make(map[string]string), postfix: p}
}

// override records a line service/type/parameter = value.
func (p *Postfix) override(path, value string, raw bool) {
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return
	}
	for _, s := range p.Services {
		switch {
		case s.Name+"/"+s.Type != path[:at]:
		case raw:
			s.Raw[path[at+1:]] = value
		default:
			s.Overrides[path[at+1:]] = value
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
	if value, ok := s.Overrides[name]; ok {
		return value
	}
	if raw := s.postfix.raw[name]; s.changes(raw) {
		return s.expand(raw, 0)
	}
	return s.postfix.Params[name]
}

var named = regexp.MustCompile(`\$(?:\{(\w+)\}|\((\w+)\)|(\w+))`)

// maxExpansion bounds the depth of parameters that name each other.
const maxExpansion = 16

// changes reports whether a text of main.cf names a parameter that the service
// overrides.
func (s *Service) changes(text string) bool {
	for _, m := range named.FindAllString(text, -1) {
		if s.overrides(strings.Trim(m, "${}()")) {
			return true
		}
	}
	return false
}

// expand replaces the names of parameters in a text of main.cf by their values at the
// service.
func (s *Service) expand(text string, depth int) string {
	if depth == maxExpansion {
		return ""
	}
	return named.ReplaceAllStringFunc(text, func(m string) string {
		name := strings.Trim(m, "${}()")
		if own, ok := s.Overrides[name]; ok {
			return own
		}
		return s.expand(s.postfix.raw[name], depth+1)
	})
}

func (s *Service) overrides(name string) bool {
	_, ok := s.Overrides[name]
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

// takesLogins reports whether clients can log in.
func (s *Service) takesLogins() bool { return s.Value("smtpd_sasl_auth_enable") == "yes" }

// submissionNames are the names and ports of services for users.
var submissionNames = []string{"submission", "submissions", "smtps", "587", "465"}

// isSubmission reports whether a service is for users only: by its name, or because it
// refuses clients that have not logged in.
func (s *Service) isSubmission() bool {
	name := s.Name[strings.LastIndexByte(s.Name, ':')+1:]
	if slices.Contains(submissionNames, name) {
		return true
	}
	if !s.takesLogins() {
		return false
	}
	return slices.ContainsFunc(postconf.LoginLists(), func(list string) bool { return postconf.OnlyLogins(s.Value(list)) })
}

// isLoopback reports whether only programs of this machine reach a service, such as a
// content filter that hands mail back.
func (s *Service) isLoopback() bool {
	return strings.HasPrefix(s.Name, "127.") || strings.HasPrefix(s.Name, "localhost:") || strings.HasPrefix(s.Name, "[::1]:")
}

// isInbound reports whether mail from the internet comes in at a service.
func (s *Service) isInbound() bool { return !s.isSubmission() && !s.isLoopback() }
