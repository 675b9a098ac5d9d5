package greylist

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Scheme is the version of what keys are made of. Stores keep it with their
// entries: what was written under an older one is brought to this one by Migrate.
// Version 1 masked fewer tokens.
const Scheme = 2

// Keyer makes every key of a greylist: of a request, of what an administrator
// asks for, and of what another program has remembered.
type Keyer struct {
	NetworkKey   bool // the client is its network, whatever SPF says
	Bits4, Bits6 int  // of a network
}

// Mail is what a key is made of.
type Mail struct {
	Client            netip.Addr
	Sender, Recipient mailaddr.Address
	Source            Source
}

// Source is what is known of a client beside its address.
type Source struct {
	Domain string // that SPF authorised; "" for none
	// Pool and PoolCredit are as in Key.
	Pool       string
	PoolCredit bool
	Denied     bool // SPF says that the sender's domain does not send from here
}

// Key makes the key of a mail.
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

// Network is the network of an address.
func (k Keyer) Network(addr netip.Addr) string { return Network(addr, k.Bits4, k.Bits6) }

// SenderPart is the sender part of a key. An address that does not parse is
// taken as it is.
func SenderPart(a mailaddr.Address) string {
	if a.IsValid() || a.IsNull() {
		return part(Sender(a.Local, a.Domain))
	}
	return part(a.Raw)
}

// RecipientPart is the recipient part of a key, likewise.
func RecipientPart(a mailaddr.Address) string {
	if a.IsValid() {
		return part(a.Key())
	}
	return part(a.Raw)
}

// ClientID reads what a person calls a client: an address or network, of the size
// that keys have here, or domain@ in front of an address, of a network or of the
// organizational domain of a pool.
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

// Migrate brings an entry of an older scheme to this one. A sender of today's
// form stays as it is.
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
