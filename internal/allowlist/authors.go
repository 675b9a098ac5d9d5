package allowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Authors is a set of author domains, each with the clients that may send its
// mail. A nil set is empty.
type Authors struct{ clients map[string]*Clients }

// ReadAuthors reads a file with one author domain a line. The clients that may
// send its mail follow it: addresses, networks, host names. Without clients,
// every client may. # begins a comment. Errors contain file and line.
func ReadAuthors(path string) (*Authors, error) {
	a := &Authors{clients: map[string]*Clients{}}
	if err := Read(path, a.addEntry); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Authors) addEntry(entry string) error {
	if err := never(entry); err != nil {
		return err
	}
	words := strings.Fields(entry)
	domain, err := mailaddr.ParseDomain(words[0])
	if err != nil || isNoName(domain) {
		return errDomain
	}
	list, before := a.clients[domain]
	if len(words) == 1 {
		a.clients[domain] = nil
		return nil
	}
	if before && list == nil {
		return nil // every client may already
	}
	if list == nil {
		list = NewClients()
	}
	for _, client := range words[1:] {
		if isAction(client) {
			return errAction
		}
		if err := list.Add(client); err != nil {
			return fmt.Errorf("client %q: %w", client, err)
		}
	}
	a.clients[domain] = list
	return nil
}

var errAction = errors.New("actions of Postfix's access tables are not supported, since every domain in this file is allowed; remove the line or the action")

// isAction reports whether a word is an action of access(5). No client has such
// a name.
func isAction(word string) bool {
	switch strings.ToUpper(word) {
	case "OK", "PERMIT", "RELAY", "REJECT", "DUNNO", "DISCARD", "DEFER", "HOLD", "DEFER_IF_PERMIT", "DEFER_IF_REJECT":
		return true
	}
	return false
}

// Len returns the number of author domains.
func (a *Authors) Len() int {
	if a == nil {
		return 0
	}
	return len(a.clients)
}

// Has reports whether a client, by its address or its confirmed name, may send
// mail of an author domain, which is given as A-labels in lower case.
func (a *Authors) Has(domain string, addr netip.Addr, name string) bool {
	if a == nil {
		return false
	}
	clients, ok := a.clients[domain]
	return ok && (clients == nil || clients.Has(addr, name))
}
