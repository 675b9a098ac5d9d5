package limit

import (
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// Event is a step of a mail, as the mail server tells of it.
type Event struct {
	Step Step
	Time time.Time
	// Transaction is the same for all steps of one mail, and for no other; "" when the
	// mail server names none.
	Transaction string
	Login       string // as the client gave it; "" for none
	Sender      mailaddr.Address
	Client      netip.Addr // not valid when it is not known
	Recipient   mailaddr.Address
	Recipients  int   // that were accepted, at the End
	Size        int64 // octets, at the End
}

// Keyer makes the values of keys.
type Keyer struct {
	LoginDomain  string // of logins that have none
	Bits4, Bits6 int    // of a network
	// Trusted are clients whose senders count as logins when they have not logged in.
	Trusted func(netip.Addr) bool
}

// maxValue bounds a value in the ID of a counter.
const maxValue = 256

// bounded cuts what is too long, and keeps it distinct.
func bounded(value string) string {
	if len(value) <= maxValue {
		return value
	}
	return value[:maxValue-24] + "~" + digest(value)
}

// addressOf is an address in its one form.
func addressOf(a mailaddr.Address) string {
	if a.IsPlain() {
		return bounded(a.Raw)
	}
	return bounded(mailaddr.FoldKey(a.Key()))
}

// digest is a short name of a text that no one can make two texts have.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// LoginOf is the login in its one form: folded, with the domain of logins that have
// none.
func (k *Keyer) LoginOf(login string) string {
	folded := mailaddr.FoldKey(strings.TrimSpace(login))
	if folded != "" && k.LoginDomain != "" && !strings.Contains(folded, "@") {
		folded += "@" + k.LoginDomain
	}
	return bounded(folded)
}

// login is the event's login, or the sender that is used for it.
func (k *Keyer) login(e *Event) string {
	switch {
	case e.Login != "":
		return k.LoginOf(e.Login)
	case k.Trusted != nil && e.Client.IsValid() && !e.Sender.IsNull() && k.Trusted(e.Client):
		return addressOf(e.Sender)
	}
	return ""
}

// Network is the network of a client, "" when it is not known.
func (k *Keyer) Network(client netip.Addr) string {
	if network := k.prefix(client); network.IsValid() {
		return network.String()
	}
	return ""
}

// prefix is the network of a client; it is not valid when that is not known.
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

// domainOf is what follows the last @.
func domainOf(address string) string {
	_, domain, _ := strings.Cut(address[max(strings.LastIndexByte(address, '@'), 0):], "@")
	return domain
}

// allValue is the value of the global key.
const allValue = "all"

// value is what a key has in an event; "" when it has nothing.
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

// Normal is what a person writes for a key, as counters have it; "" when it is nothing.
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
