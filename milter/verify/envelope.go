package verify

import (
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/spf"
)

// Envelope is what is known of a message before its header.
type Envelope struct {
	Client netip.Addr
	Helo   string           // as the client said it
	Sender mailaddr.Address // the reverse path
	MTA    string           // the name of the MTA that has the message
	// Authenticated is set when the client has logged in. The results of its mail are
	// written to the header only: nothing is refused or marked.
	Authenticated bool
	// Relayed is set when the mail came from one of our own relays. Client and Helo
	// are then those of the relay's client. Such mail is marked and never refused,
	// because the relay would return it to a sender that may be forged.
	Relayed bool
}

// senderOf returns the sender for SPF. A reverse path that is not a mailbox is not
// the null sender: SPF judges its domain, whatever that is.
func senderOf(a mailaddr.Address) spf.Sender {
	if a.IsNull() || a.Local != "" {
		return spf.Sender{Local: a.Local, Domain: a.Domain}
	}
	raw := strings.Trim(a.Raw, "<>")
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return spf.Sender{Local: raw + " "} // not empty, and not a mailbox
	}
	return spf.Sender{Local: raw[:at], Domain: raw[at+1:]}
}

// spfArgs returns the arguments of an SPF check.
func (v *Verifier) spfArgs(e Envelope, host string) spf.Args {
	o := &v.options
	return spf.Args{
		IP:            e.Client,
		Helo:          e.Helo,
		Sender:        senderOf(e.Sender),
		Receiver:      host,
		Now:           o.Now(),
		NoExplanation: !o.SPFReject,
	}
}
