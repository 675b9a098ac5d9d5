package checks

import (
	_ "embed" // for the lists in the program
	"net/netip"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// DefaultAllowList is the word for the list in the program, instead of a file.
const DefaultAllowList = "default"

//go:embed greylist_clients.txt
var defaultGreylistClients string

//go:embed greylist_senders.txt
var defaultGreylistSenders string

// GreylistClients is an allow list of clients in postgrey's format. An entry is
// an address, a network, the first two or three octets of a network, a host
// name that includes all names below it, or a /regular expression/ for host
// names. A nil list is empty.
type GreylistClients struct {
	list     *allowlist.Clients
	patterns patterns
}

// Len returns the number of entries.
func (l *GreylistClients) Len() int {
	if l == nil {
		return 0
	}
	return l.list.Len() + len(l.patterns)
}

// ReadGreylistClients reads files. The word "default" is the list in the
// program. Errors contain file and line.
func ReadGreylistClients(paths []string) (*GreylistClients, error) {
	l := &GreylistClients{list: allowlist.NewClients()}
	return l, readLists(paths, defaultGreylistClients, l.addEntry)
}

func readLists(paths []string, standard string, add func(string) error) error {
	for _, path := range paths {
		var err error
		if path == DefaultAllowList {
			err = allowlist.Parse(strings.NewReader(standard), "the program's own list", add)
		} else {
			err = allowlist.Read(path, add)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *GreylistClients) addEntry(entry string) error {
	if ok, err := l.patterns.addPattern(entry); ok {
		return err
	}
	if p, ok := partialNetwork(entry); ok {
		l.list.AddNetwork(p)
		return nil
	}
	// Like postgrey, accept a network with address bits set.
	if p, err := netip.ParsePrefix(entry); err == nil && !p.Addr().Is4In6() {
		l.list.AddNetwork(p.Masked())
		return nil
	}
	return l.list.Add(entry)
}

// partialNetwork parses two octets as a /16, or three as a /24. (postgrey
// itself takes two octets for a /24.)
func partialNetwork(entry string) (netip.Prefix, bool) {
	octets := strings.Split(entry, ".")
	if len(octets) != 2 && len(octets) != 3 {
		return netip.Prefix{}, false
	}
	var ip [4]byte
	for i, o := range octets {
		n, err := strconv.ParseUint(o, 10, 8)
		if err != nil {
			return netip.Prefix{}, false
		}
		ip[i] = byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom4(ip), 8*len(octets)), true
}

// Has reports whether the client's address or confirmed name is in the list.
func (l *GreylistClients) Has(addr netip.Addr, name string) bool {
	return l != nil && (l.list.Has(addr, name) || name != "" && l.patterns.match(name))
}

// GreylistRecipients is an allow list of addresses in postgrey's format. An
// entry is user@domain (with any extension), user@ for that user of every
// domain, a domain that includes all domains below it, or a /regular
// expression/ for addresses. A nil list is empty.
type GreylistRecipients struct {
	list     *allowlist.Recipients
	patterns patterns
}

// Len returns the number of entries.
func (l *GreylistRecipients) Len() int {
	if l == nil {
		return 0
	}
	return l.list.Len() + len(l.patterns)
}

// ReadGreylistRecipients reads files. The program contains no list of
// recipients. Errors contain file and line.
func ReadGreylistRecipients(paths []string) (*GreylistRecipients, error) {
	return readAddresses(paths, "")
}

// ReadGreylistSenders reads files. The word "default" is the list in the
// program.
func ReadGreylistSenders(paths []string) (*GreylistRecipients, error) {
	return readAddresses(paths, defaultGreylistSenders)
}

func readAddresses(paths []string, standard string) (*GreylistRecipients, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	l := &GreylistRecipients{list: allowlist.NewRecipients()}
	return l, readLists(paths, standard, l.addEntry)
}

func (l *GreylistRecipients) addEntry(entry string) error {
	if ok, err := l.patterns.addPattern(entry); ok {
		return err
	}
	return l.list.Add(entry)
}

// usualDelimiter is assumed for addresses of other sites, whose delimiter is
// unknown.
const usualDelimiter = "+"

// Has reports whether an address is in the list, with or without its extension.
func (l *GreylistRecipients) Has(a mailaddr.Address, delimiters string) bool {
	if l == nil || !a.IsValid() {
		return false
	}
	return l.list.Has(a, delimiters) || l.patterns.match(a.Key())
}
