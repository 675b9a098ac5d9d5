package greylist

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Scheme is the version of the rules by which keys are made. Stores keep it with
// their entries, and Migrate converts the entries of an older one. Version 1 masked
// fewer tokens.
const Scheme = 2

// Keyer makes every key of a greylist: for requests, for the commands of an
// administrator, and for entries that are imported from another program.
type Keyer struct {
	NetworkKey   bool // the client is always its network, whatever the SPF result
	Bits4, Bits6 int  // of a network
}

// Mail is what a key is made of.
type Mail struct {
	Client            netip.Addr
	Sender, Recipient mailaddr.Address
	Source            Source
}

// Source is what is known about a client besides its address.
type Source struct {
	Domain string // the domain that SPF authorised; "" for none
	// Pool and PoolCredit are as in Key.
	Pool       string
	PoolCredit bool
	Denied     bool // by SPF, the sender's domain does not send from this client
}

// Key returns the key of a mail.
func (k Keyer) Key(m Mail) Key {
	source := m.Source
	claimed := m.Sender.Domain
	switch {
	case k.NetworkKey:
		source.Domain = ""
	case source.Domain != "":
		claimed = source.Domain
	}
	if source.Denied {
		claimed = ""
	}
	key := NewKey(source.Domain, claimed, k.Network(m.Client), SenderPart(m.Sender), RecipientPart(m.Recipient))
	if key.Domain != "" {
		key.Pool, key.PoolCredit = part(source.Pool), source.PoolCredit && source.Pool != ""
	}
	return key
}

// Network returns the network of an address.
func (k Keyer) Network(addr netip.Addr) string { return Network(addr, k.Bits4, k.Bits6) }

// SenderPart returns the sender part of a key. An address that does not parse is
// used unchanged.
func SenderPart(a mailaddr.Address) string {
	if a.IsValid() || a.IsNull() {
		return part(Sender(a.Local, a.Domain))
	}
	return part(a.Raw)
}

// RecipientPart returns the recipient part of a key, likewise.
func RecipientPart(a mailaddr.Address) string {
	if a.IsValid() {
		return part(a.Key())
	}
	return part(a.Raw)
}

// ClientID parses a client as a person writes it. That is an address, or a network
// of the size that keys have here. It may also be domain@ before an address, a
// network or the organizational domain of a pool.
func (k Keyer) ClientID(text string) (ID, error) {
	domain, client := "", text
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		var err error
		if domain, err = mailaddr.ParseDomain(text[:at]); err != nil {
			return "", fmt.Errorf("%.60q: %w", text[:at], err)
		}
		client = text[at+1:]
	}
	address, bits, isNetwork := strings.Cut(client, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		if pool, nameErr := mailaddr.ParseDomain(client); domain != "" && nameErr == nil {
			return ClientID(domain, pool), nil
		}
		return "", fmt.Errorf("%.60q is no IP address", address)
	}
	network := k.Network(addr)
	if isNetwork && !strings.HasSuffix(network, "/"+bits) {
		return "", fmt.Errorf("/%.10s is not the size of a network here: that of %s is %s", bits, address, network)
	}
	return ClientID(domain, network), nil
}

// Migrate converts an entry of an older scheme to this one. A sender that has the
// current form does not change.
func Migrate(e Entry) Entry {
	if e.ID.IsClient() {
		return e
	}
	client, sender, recipient := e.ID.Split()
	if at := strings.LastIndexByte(sender, '@'); at >= 0 {
		sender = maskTokens(maskBase64(sender[:at])) + sender[at:]
	} else if sender != NullSender {
		sender = maskTokens(maskBase64(sender))
	}
	e.ID = TripletID(client, sender, recipient)
	return e
}
