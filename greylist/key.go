package greylist

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
)

// maxPart bounds each part of a key, in octets. A longer one keeps its
// beginning and gets a hash for the rest.
const maxPart = 320

// NullSender is the sender part of the key of a mail from no one (RFC 5321
// section 4.5.5).
const NullSender = "<>"

// Key is where a mail comes from, who sends it and to whom. Make it with NewKey.
type Key struct {
	// Domain is the domain that SPF authorised for the client, "" for none.
	Domain string
	// Claimed is the domain whose credit at this network counts: Domain, or
	// the sender's domain as long as SPF does not contradict. It may be "".
	Claimed string
	// Pool is the organizational domain of the client's confirmed name, when
	// the SPF record of Domain admits so many that both together make the
	// source; "" otherwise.
	Pool string
	// PoolCredit is whether all servers of the pool share the credit of Claimed.
	PoolCredit bool

	Network   string // of the client, as Network spells it
	Sender    string // as Sender spells it
	Recipient string
}

// NewKey brings the parts into the form that stores use: printable, without
// blanks, bounded, in lower case.
func NewKey(domain, claimed, network, sender, recipient string) Key {
	return Key{Domain: part(domain), Claimed: part(claimed), Network: part(network), Sender: part(sender), Recipient: part(recipient)}
}

// Network is the client part of a key that has no domain, such as
// 192.0.2.0/24. Bits beyond the length of an address mean the whole address.
func Network(addr netip.Addr, bits4, bits6 int) string {
	addr = addr.Unmap().WithZone("")
	bits := bits6
	if addr.Is4() {
		bits = bits4
	}
	p, err := addr.Prefix(min(bits, addr.BitLen()))
	if err != nil {
		return addr.String()
	}
	return p.String()
}

// DomainMark distinguishes a domain from a network at the beginning of an ID, and of a Key's
// Client.
const DomainMark = "spf:"

// ID names one entry of a store: "client sender recipient" of a triplet, with
// a network, spf:domain or spf:domain/pool as the client, or the one word of a
// client that can earn credit: a network, domain@network or domain@pool.
type ID string

// IsClient recognises the ID of a client.
func (id ID) IsClient() bool { return strings.IndexByte(string(id), ' ') < 0 }

// Split gives the parts; sender and recipient are "" for a client.
func (id ID) Split() (client, sender, recipient string) {
	client, rest, _ := strings.Cut(string(id), " ")
	sender, recipient, _ = strings.Cut(rest, " ")
	return client, sender, recipient
}

// TripletID makes the ID of a triplet from parts as NewKey makes them.
func TripletID(client, sender, recipient string) ID {
	return ID(client + " " + sender + " " + recipient)
}

// ByDomain is the triplet of the SPF domain, "" when there is none.
func (k Key) ByDomain() ID {
	if k.Domain == "" {
		return ""
	}
	return TripletID(k.Client(), k.Sender, k.Recipient)
}

// ByNetwork is the triplet of the network.
func (k Key) ByNetwork() ID { return TripletID(k.Network, k.Sender, k.Recipient) }

// DomainClient is the client that earns credit for the domain at this network,
// "" when no domain is claimed.
func (k Key) DomainClient() ID {
	if k.Claimed == "" {
		return ""
	}
	return ClientID(k.Claimed, k.creditAt())
}

// creditAt is where the credit of a domain counts.
func (k Key) creditAt() string {
	if k.PoolCredit {
		return k.Pool
	}
	return k.Network
}

// NetworkClient is the network as a client.
func (k Key) NetworkClient() ID { return ID(k.Network) }

// ClientID is the client of a domain at a network or pool; the domain may be "".
func ClientID(domain, network string) ID {
	if domain == "" {
		return ID(network)
	}
	return ID(domain + "@" + network)
}

// Creditor is the client that earns the credit of a first pass: the domain at
// this network or pool if SPF authorised it, otherwise the network. In a pool that
// anyone may be part of the domain earns nothing.
func (k Key) Creditor() string {
	if k.Domain == "" || k.Pool != "" && !k.PoolCredit {
		return k.Network
	}
	return string(ClientID(k.Domain, k.creditAt()))
}

// Client is the client part by which the key is known: spf:domain,
// spf:domain/pool or network.
func (k Key) Client() string {
	switch {
	case k.Domain == "":
		return k.Network
	case k.Pool == "":
		return DomainMark + k.Domain
	}
	return DomainMark + k.Domain + "/" + k.Pool
}

// Window names what the new triplets of the key are counted by: the domain that SPF
// authorised, which has nothing to do with its neighbours at a provider, or the
// network.
func (k Key) Window() string { return k.Client() }

// part makes one word of printable characters out of s.
func part(s string) string {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || 'A' <= c && c <= 'Z' {
			s = strings.Map(wordByte, s)
			break
		}
	}
	if len(s) <= maxPart {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	tail := hex.EncodeToString(sum[:16])
	return strings.ToValidUTF8(s[:maxPart-len(tail)], "?") + tail
}

func wordByte(r rune) rune {
	switch {
	case r <= ' ' || r == 0x7f:
		return '_'
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A'
	}
	return r
}
