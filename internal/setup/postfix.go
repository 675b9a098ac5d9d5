// The settings of Postfix, read with postconf(1).

package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// Postfix holds the settings of one Postfix instance.
type Postfix struct {
	Dir      string            // config_directory
	main     map[string]string // as written
	meant    map[string]string // with $names and conditions expanded
	explicit map[string]bool   // whether main.cf sets it
	services []*Service
	rest     string            // what postconf prints of master.cf's other services
	warnings map[string]bool   // printed by postconf
	texts    map[string][]byte // of main.cf and master.cf, before they were read
}

// Version returns the version of Postfix.
func (p *Postfix) Version() string { return p.main["mail_version"] }

// ConfigDirectory returns the configuration folder of a Postfix: dir, or postconf(1)'s
// own if dir is empty.
func ConfigDirectory(ctx context.Context, dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	out, _, err := postconf.Run(ctx, "postconf", "-h", "config_directory")
	if dir = strings.TrimSpace(out); dir != "" && err == nil {
		return dir, nil
	}
	return "", fmt.Errorf("no Postfix found; name its folder with --config-directory: %w", err)
}

// ReadPostfix reads the settings of the Postfix in a folder. "" is the instance that
// postconf(1) reads by default.
func ReadPostfix(ctx context.Context, dir string) (*Postfix, error) {
	dir, err := ConfigDirectory(ctx, dir)
	if err != nil {
		return nil, err
	}
	p := &Postfix{Dir: dir, warnings: make(map[string]bool), explicit: make(map[string]bool), texts: make(map[string][]byte)}
	for _, name := range []string{"main.cf", "master.cf"} {
		if p.texts[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("%w; name the folder of Postfix's configuration with --config-directory", err)
		}
	}
	all, err := p.postconf(ctx)
	if err != nil {
		return nil, err
	}
	p.main = postconf.Pairs(all)
	meant, err := p.postconf(ctx, "-x")
	if err != nil {
		return nil, err
	}
	p.meant = postconf.Pairs(meant)
	set, err := p.postconf(ctx, "-n")
	if err != nil {
		return nil, err
	}
	for name := range postconf.Pairs(set) {
		p.explicit[name] = true
	}
	return p, p.readServices(ctx)
}

func (p *Postfix) postconf(ctx context.Context, args ...string) (string, error) {
	out, said, err := postconf.Run(ctx, "postconf", append([]string{"-c", p.Dir}, args...)...)
	for line := range strings.Lines(said) {
		p.warnings[strings.TrimSpace(line)] = true
	}
	return out, err
}

// isSet reports whether main.cf sets a parameter.
func (p *Postfix) isSet(name string) bool { return p.explicit[name] }

// value returns a parameter of main.cf with its $names expanded.
func (p *Postfix) value(name string) string { return p.meant[name] }

// yes reports whether a parameter is "yes".
func (p *Postfix) yes(name string) bool { return postconf.IsYes(p.value(name)) }

// maxExpansion bounds the depth of parameters that name each other.
const maxExpansion = 32

// named matches $name, ${name} and $(name). Conditional expressions are not expanded.
var named = regexp.MustCompile(`\$(?:\{([A-Za-z0-9_]+)\}|\(([A-Za-z0-9_]+)\)|([A-Za-z0-9_]+))`)

// expand replaces $names by the service's overrides, or else by the values of main.cf.
func (p *Postfix) expand(value string, overrides map[string]string) string {
	for range maxExpansion {
		before := value
		value = named.ReplaceAllStringFunc(value, func(text string) string {
			name := strings.Trim(text, "${}()")
			if own, ok := overrides[name]; ok {
				return own
			}
			return p.main[name] // an undefined parameter is empty
		})
		if value == before || len(value) > 1<<20 {
			break
		}
	}
	return value
}

// origin returns the domain that Postfix appends to addresses without one. myorigin may
// name a file that holds it.
func (p *Postfix) origin(root string) (string, error) {
	name := p.value("myorigin")
	if !strings.HasPrefix(name, "/") {
		return name, nil
	}
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return "", fmt.Errorf("myorigin names a file that cannot be read: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.New("myorigin names a file that is empty: " + name)
	}
	return line, nil
}
