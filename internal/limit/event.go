package limit

import (
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Event is a step of a mail, as the mail server reports it.
type Event struct {
	Step Step
	Time time.Time
	// Transaction is the same for all steps of one mail, and different for other mails.
	// The zero Digest means that the mail server has sent none.
	Transaction Digest
	Service     string // of the mail server, such as its port; "" if it is unknown
	Login       string // as the client sent it; "" if there is none
	Sender      mailaddr.Address
	Client      netip.Addr // not valid if it is unknown
	Recipient   mailaddr.Address
	Recipients  int   // accepted recipients, at the End
	Size        int64 // octets, at the End
}

// Keyer makes the values of keys from events.
type Keyer struct {
	LoginDomain  string // for logins without a domain
	Bits4, Bits6 int    // prefix lengths of networks
	// Trusted reports whether the senders of a client that has not logged in count as
	// logins.
	Trusted func(netip.Addr) bool
}

// maxValue bounds a value in the ID of a counter.
const maxValue = 256

// bounded shortens a long value, and keeps different values different.
func bounded(value string) string {
	if len(value) <= maxValue {
		return value
	}
	return value[:maxValue-24] + "~" + DigestOf([]byte(value)).String()
}

// addressOf returns the normalized form of an address.
func addressOf(a mailaddr.Address) string {
	if a.IsPlain() {
		return bounded(a.Raw)
	}
	return bounded(mailaddr.FoldKey(a.Key()))
}

// LoginOf returns the normalized login: in lower case, with the domain for logins
// without one.
func (k *Keyer) LoginOf(login string) string {
	folded := mailaddr.FoldKey(strings.TrimSpace(login))
	if folded != "" && k.LoginDomain != "" && !strings.Contains(folded, "@") {
		folded += "@" + k.LoginDomain
	}
	return bounded(folded)
}

// login returns the event's login, or the sender that is used instead.
func (k *Keyer) login(e *Event) string {
	switch {
	case e.Login != "":
		return k.LoginOf(e.Login)
	case k.Trusted != nil && e.Client.IsValid() && !e.Sender.IsNull() && k.Trusted(e.Client):
		return k.LoginOf(addressOf(e.Sender))
	}
	return ""
}

// Network returns the network of a client, or "" if it is unknown.
func (k *Keyer) Network(client netip.Addr) string {
	if network := k.prefix(client); network.IsValid() {
		return network.String()
	}
	return ""
}

// prefix returns the network of a client. It is not valid if the client is unknown.
func (k *Keyer) prefix(client netip.Addr) netip.Prefix {
	bits := k.Bits6
	if client.Is4() {
		bits = k.Bits4
	}
	network, err := client.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

// domainOf returns the text after the last @.
func domainOf(address string) string {
	_, domain, _ := strings.Cut(address[max(strings.LastIndexByte(address, '@'), 0):], "@")
	return domain
}

// allValue is the value of the global key.
const allValue = "all"

// value returns the value of a key in an event, or "" if it has none.
func (k *Keyer) value(key Key, login string, e *Event) string {
	switch key {
	case Login:
		return login
	case LoginDomain:
		return domainOf(login)
	case Sender:
		if e.Sender.IsNull() {
			return ""
		}
		return addressOf(e.Sender)
	case SenderDomain:
		return bounded(e.Sender.Domain)
	case Client:
		if !e.Client.IsValid() {
			return ""
		}
		return e.Client.String()
	case Network:
		return k.Network(e.Client)
	case Recipient:
		if e.Step != Name {
			return ""
		}
		return addressOf(e.Recipient)
	}
	return allValue
}

// Normal converts what a person writes for a key to the value that counters use. It
// returns "" if the text has no value.
func (k *Keyer) Normal(key Key, text string) string {
	text = strings.TrimSpace(text)
	switch key {
	case Login:
		return k.LoginOf(text)
	case Sender, Recipient:
		return addressOf(mailaddr.Parse(text))
	case Client:
		if addr, err := netip.ParseAddr(text); err == nil {
			return addr.Unmap().String()
		}
		return ""
	case Network:
		if addr, err := netip.ParseAddr(text); err == nil {
			return k.Network(addr.Unmap())
		}
		if prefix, err := netip.ParsePrefix(text); err == nil {
			return k.Network(prefix.Addr().Unmap())
		}
		return ""
	case Global:
		return allValue
	}
	return bounded(mailaddr.FoldKey(text))
}
