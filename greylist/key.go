package greylist

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
)

// maxPart bounds each part of a key, in octets. In a longer part, a hash replaces
// the end.
const maxPart = 320

// NullSender is the sender part of the key of a mail with the null sender (RFC 5321
// section 4.5.5).
const NullSender = "<>"

// Key identifies where a mail comes from, who sent it and to whom. Make it with
// Keyer.Key or NewKey.
type Key struct {
	// Domain is the domain that SPF authorised for the client, "" for none.
	Domain string
	// Claimed is the domain whose credit at this network counts: Domain, or
	// the sender's domain unless SPF denies it. It may be "".
	Claimed string
	// Pool is the organizational domain of the client's confirmed name. It is set
	// when the SPF record of Domain admits too many clients: then Domain and Pool
	// together are the source. Otherwise it is "".
	Pool string
	// PoolCredit means that all servers of the pool share the credit of Claimed.
	PoolCredit bool

	Network   string // of the client, as the function Network returns it
	Sender    string // as the function Sender returns it
	Recipient string
}

// NewKey returns a key with its parts in the form that stores use: printable,
// without blanks, bounded, in lower case.
func NewKey(domain, claimed, network, sender, recipient string) Key {
	return Key{Domain: part(domain), Claimed: part(claimed), Network: part(network), Sender: part(sender), Recipient: part(recipient)}
}

// Network returns the client part of a key that has no domain, such as
// 192.0.2.0/24. More bits than an address has mean the whole address.
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

// ID names one entry of a store. The ID of a triplet is "client sender recipient",
// where the client is a network, spf:domain or spf:domain/pool. The ID of a client
// that can earn credit is one word: a network, domain@network or domain@pool.
type ID string

// IsClient reports whether the ID is that of a client.
func (id ID) IsClient() bool { return strings.IndexByte(string(id), ' ') < 0 }

// Split returns the parts; sender and recipient are "" for a client.
func (id ID) Split() (client, sender, recipient string) {
	client, rest, _ := strings.Cut(string(id), " ")
	sender, recipient, _ = strings.Cut(rest, " ")
	return client, sender, recipient
}

// TripletID returns the ID of a triplet. The parts must have the form that NewKey
// gives them.
func TripletID(client, sender, recipient string) ID {
	return ID(client + " " + sender + " " + recipient)
}

// ByDomain returns the ID of the triplet with the SPF domain, "" without a domain.
func (k Key) ByDomain() ID {
	if k.Domain == "" {
		return ""
	}
	return TripletID(k.Client(), k.Sender, k.Recipient)
}

// ByNetwork returns the ID of the triplet with the network.
func (k Key) ByNetwork() ID { return TripletID(k.Network, k.Sender, k.Recipient) }

// DomainClient returns the client that earns credit for the domain at this network,
// "" when no domain is claimed.
func (k Key) DomainClient() ID {
	if k.Claimed == "" {
		return ""
	}
	return ClientID(k.Claimed, k.creditAt())
}

// creditAt returns the network or pool for which the credit of a domain counts.
func (k Key) creditAt() string {
	if k.PoolCredit {
		return k.Pool
	}
	return k.Network
}

// NetworkClient returns the network as a client.
func (k Key) NetworkClient() ID { return ID(k.Network) }

// ClientID returns the client of a domain at a network or pool; the domain may be "".
func ClientID(domain, network string) ID {
	if domain == "" {
		return ID(network)
	}
	return ID(domain + "@" + network)
}

// Creditor returns the client that earns the credit for a first pass. It is the
// domain at this network or pool if SPF authorised it, otherwise the network. In a
// pool that anyone may join it is the network, too.
func (k Key) Creditor() string {
	if k.Domain == "" || k.Pool != "" && !k.PoolCredit {
		return k.Network
	}
	return string(ClientID(k.Domain, k.creditAt()))
}

// Client returns the client part of the key: spf:domain, spf:domain/pool or a
// network.
func (k Key) Client() string {
	switch {
	case k.Domain == "":
		return k.Network
	case k.Pool == "":
		return DomainMark + k.Domain
	}
	return DomainMark + k.Domain + "/" + k.Pool
}

// Window returns the source whose new triplets are counted together. It is the
// domain that SPF authorised, so that its neighbours at a provider do not count, or
// the network.
func (k Key) Window() string { return k.Client() }

// part turns s into one word of printable characters.
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
