package allowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

var (
	errClient   = errors.New("not an IP address, a network or a host name")
	errHostBits = errors.New("address bits after the network's prefix are set")
	errRegexp   = errors.New("regular expressions are not supported; write networks, or names, which include all names below them")
)

// Clients is a set of clients: addresses, networks, and names that include all
// names below them. A nil list is empty.
type Clients struct {
	networks map[netip.Prefix]bool
	lengths  [2]map[int]bool // the prefix lengths of IPv4 and IPv6 in the list
	names    map[string]bool
}

// NewClients makes an empty list.
func NewClients() *Clients {
	return &Clients{networks: map[netip.Prefix]bool{}, lengths: [2]map[int]bool{{}, {}}, names: map[string]bool{}}
}

// ReadClients reads one entry a line: an IP address, a network, or a host name
// that includes all names below it. # begins a comment. Errors contain file and
// line.
func ReadClients(path string) (*Clients, error) {
	l := NewClients()
	if err := Read(path, l.Add); err != nil {
		return nil, err
	}
	return l, nil
}

// Add adds one entry, as in a line of a file.
func (l *Clients) Add(entry string) error {
	if strings.HasPrefix(entry, "/") {
		return errRegexp
	}
	if err := never(entry); err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(entry); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		l.AddNetwork(netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	if strings.Contains(entry, "/") {
		return l.addPrefix(entry)
	}
	name, err := mailaddr.ParseDomain(strings.TrimPrefix(entry, "."))
	if err != nil || isNoName(name) {
		return errClient
	}
	l.names[name] = true
	return nil
}

func (l *Clients) addPrefix(entry string) error {
	p, err := netip.ParsePrefix(entry)
	switch {
	case err != nil || p.Addr().Is4In6():
		return errClient
	case p != p.Masked():
		return fmt.Errorf("%w: did you mean %s?", errHostBits, p.Masked())
	}
	l.AddNetwork(p)
	return nil
}

// AddNetwork adds a network, which must be masked.
func (l *Clients) AddNetwork(p netip.Prefix) {
	l.networks[p] = true
	l.lengths[family(p.Addr())][p.Bits()] = true
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// Len returns the number of entries.
func (l *Clients) Len() int {
	if l == nil {
		return 0
	}
	return len(l.networks) + len(l.names)
}

// Has reports whether a client's address or confirmed name is in the list.
func (l *Clients) Has(addr netip.Addr, name string) bool {
	if l == nil {
		return false
	}
	return l.hasAddr(addr.Unmap()) || l.hasName(name)
}

func (l *Clients) hasAddr(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	for bits := range l.lengths[family(addr)] {
		if p, err := addr.Prefix(bits); err == nil && l.networks[p] {
			return true
		}
	}
	return false
}

func (l *Clients) hasName(name string) bool {
	if len(l.names) == 0 || name == "" {
		return false
	}
	name, err := mailaddr.ParseDomain(name)
	return err == nil && holdsDomain(l.names, name)
}
