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
	// Authenticated says that the client has logged in. Its mail is judged for
	// the header alone: nothing is refused or marked.
	Authenticated bool
	// Relayed says that one of our own relays handed the mail over: Client and
	// Helo are those of the relay's client. Such mail is never refused, since the
	// relay would have to return it to a sender who may be forged; it is marked.
	Relayed bool
}

// senderOf is the identity of SPF. A reverse path that names no mailbox is not
// the null one: its domain, whatever it is, is what SPF judges.
func senderOf(a mailaddr.Address) spf.Sender {
	if a.IsNull() || a.Local != "" {
		return spf.Sender{Local: a.Local, Domain: a.Domain}
	}
	raw := strings.Trim(a.Raw, "<>")
	at := strings.LastIndexByte(raw, '@')
	if at < 0 {
		return spf.Sender{Local: raw + " "} // not empty, and still no mailbox
	}
	return spf.Sender{Local: raw[:at], Domain: raw[at+1:]}
}

// spfArgs is the question to SPF.
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
