package allowlist

import (
	"errors"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

var errDomain = errors.New("not a domain name, such as example.org")

// Domains is a set of domains. A nil set is empty.
type Domains struct{ exact, below map[string]bool }

// ReadDomains reads one domain a line. example.org means only itself;
// .example.org means itself and all names below it. # begins a comment. Errors
// contain file and line.
func ReadDomains(path string) (*Domains, error) {
	d := &Domains{exact: map[string]bool{}, below: map[string]bool{}}
	if err := Read(path, d.addEntry); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Domains) addEntry(entry string) error {
	if err := never(entry); err != nil {
		return err
	}
	set := d.exact
	if bare, ok := strings.CutPrefix(entry, "."); ok {
		entry, set = bare, d.below
	}
	name, err := mailaddr.ParseDomain(entry)
	if err != nil || isNoName(name) {
		return errDomain
	}
	set[name] = true
	return nil
}

// Len returns the number of entries.
func (d *Domains) Len() int {
	if d == nil {
		return 0
	}
	return len(d.exact) + len(d.below)
}

// Has reports whether a domain, given as A-labels in lower case, is in the set.
func (d *Domains) Has(name string) bool {
	return d != nil && (d.exact[name] || holdsDomain(d.below, name))
}

// holdsDomain reports whether a name or a name above it is in the set.
func holdsDomain(set map[string]bool, name string) bool {
	for {
		if set[name] {
			return true
		}
		_, above, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		name = above
	}
}
