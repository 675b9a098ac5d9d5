package checks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds of an allow file.
const (
	maxAllowFile = 4 << 20 // bytes
	maxAllowLine = 1024    // bytes
)

// ClientList is a set of clients: addresses, networks, and names with all that
// lies below them. A nil list is empty.
type ClientList struct {
	networks map[netip.Prefix]bool
	lengths  [2]map[int]bool // prefix lengths of IPv4 and IPv6 that occur
	names    map[string]bool
}

// ReadClientList reads one entry a line: an IP address, a network, or a host
// name, which stands for itself and for all names below it. # begins a comment.
// Errors name file and line.
func ReadClientList(path string) (*ClientList, error) {
	l := &ClientList{networks: map[netip.Prefix]bool{}, lengths: [2]map[int]bool{{}, {}}, names: map[string]bool{}}
	if err := readAllowFile(path, l.add); err != nil {
		return nil, err
	}
	return l, nil
}

var (
	errClient    = errors.New("not an IP address, a network or a host name")
	errHostBits  = errors.New("address bits behind the network's length are set")
	errRecipient = errors.New("not an address (user@example.org), a domain (example.org) or a user of all domains (user@)")
	errRegexp    = errors.New("regular expressions are not read here: write names, which stand for all below them, and networks")
)

func (l *ClientList) add(entry string) error {
	if strings.HasPrefix(entry, "/") {
		return errRegexp
	}
	if addr, err := netip.ParseAddr(entry); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		l.addNetwork(netip.PrefixFrom(addr, addr.BitLen()))
		return nil
	}
	if strings.Contains(entry, "/") {
		return l.addPrefix(entry)
	}
	name, err := mailaddr.ParseDomain(strings.TrimPrefix(entry, "."))
	if err != nil || looksNumeric(name) {
		return errClient
	}
	l.names[name] = true
	return nil
}

func (l *ClientList) addPrefix(entry string) error {
	p, err := netip.ParsePrefix(entry)
	switch {
	case err != nil || p.Addr().Is4In6():
		return errClient
	case p != p.Masked():
		return fmt.Errorf("%w: did you mean %s?", errHostBits, p.Masked())
	}
	l.addNetwork(p)
	return nil
}

// looksNumeric tells a mistyped or shortened address from a name.
func looksNumeric(name string) bool { return strings.Trim(name, "0123456789.") == "" }

func (l *ClientList) addNetwork(p netip.Prefix) {
	l.networks[p] = true
	l.lengths[family(p.Addr())][p.Bits()] = true
}

func family(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// Has tells whether the list holds a client by its address or by its confirmed
// name.
func (l *ClientList) Has(addr netip.Addr, name string) bool {
	if l == nil {
		return false
	}
	return l.hasAddr(addr.Unmap()) || l.hasName(name)
}

func (l *ClientList) hasAddr(addr netip.Addr) bool {
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

func (l *ClientList) hasName(name string) bool {
	if len(l.names) == 0 || name == "" {
		return false
	}
	name, err := mailaddr.ParseDomain(name)
	return err == nil && holdsDomain(l.names, name)
}

// holdsDomain looks for a name and for all above it.
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

// RecipientList is a set of recipients. A nil list is empty.
type RecipientList struct {
	addresses map[string]bool // folded
	users     map[string]bool // folded local parts
	domains   map[string]bool
}

// ReadRecipientList reads one entry a line: user@example.org, user@ for that
// user of every domain, or example.org for everybody there and below. # begins
// a comment. Errors name file and line.
func ReadRecipientList(path string) (*RecipientList, error) {
	l := &RecipientList{addresses: map[string]bool{}, users: map[string]bool{}, domains: map[string]bool{}}
	if err := readAllowFile(path, l.add); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *RecipientList) add(entry string) error {
	if strings.HasPrefix(entry, "/") {
		return errRegexp
	}
	if user, ok := strings.CutSuffix(entry, "@"); ok {
		a := mailaddr.Parse(user)
		if !a.IsBare() {
			return errRecipient
		}
		l.users[mailaddr.Fold(a.Local)] = true
		return nil
	}
	if strings.Contains(entry, "@") && !strings.HasPrefix(entry, "@") {
		a := mailaddr.Parse(entry)
		if !a.IsValid() || a.IsBare() {
			return errRecipient
		}
		l.addresses[mailaddr.Fold(a.Key())] = true
		return nil
	}
	domain, err := mailaddr.ParseDomain(strings.TrimLeft(entry, "@."))
	if err != nil {
		return errRecipient
	}
	l.domains[domain] = true
	return nil
}

// Has tells whether the list holds a recipient.
func (l *RecipientList) Has(a mailaddr.Address) bool {
	if l == nil || !a.IsValid() {
		return false
	}
	return l.users[mailaddr.Fold(a.Local)] || l.addresses[mailaddr.Fold(a.Key())] || holdsDomain(l.domains, a.Domain)
}

// readAllowFile hands each entry to add.
func readAllowFile(path string, add func(entry string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return parseAllowFile(f, path, add)
}

func parseAllowFile(r io.Reader, path string, add func(entry string) error) error {
	bounded := &io.LimitedReader{R: r, N: maxAllowFile + 1}
	lines := bufio.NewScanner(bounded)
	lines.Buffer(nil, maxAllowLine)
	n := 0
	for lines.Scan() {
		n++
		entry, _, _ := strings.Cut(lines.Text(), "#")
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		if err := add(entry); err != nil {
			return fmt.Errorf("%s:%d: %.80q: %w", path, n, entry, err)
		}
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d: a line of more than %d bytes", path, n+1, maxAllowLine)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case bounded.N == 0:
		return fmt.Errorf("%s: larger than %d bytes", path, maxAllowFile)
	}
	return nil
}
