package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/wire"
)

// requestType is the only request that Postfix makes.
const requestType = "smtpd_access_policy"

// State is the SMTP protocol state in which Postfix asks. With
// smtpd_delay_reject = yes (the default) the client, helo and sender
// restrictions are asked at RCPT too.
type State uint8

// The states of SMTPD_POLICY_README; BDAT arrives as DATA. StateOther is one
// that this version does not know: no check applies to it.
const (
	StateOther State = iota
	StateConnect
	StateEHLO
	StateHELO
	StateMail
	StateRcpt
	StateData
	StateEndOfMessage
	StateVRFY
	StateETRN
)

// parseState takes a state as Postfix spells it.
func parseState(name string) State {
	switch name {
	case "CONNECT":
		return StateConnect
	case "EHLO":
		return StateEHLO
	case "HELO":
		return StateHELO
	case "MAIL":
		return StateMail
	case "RCPT":
		return StateRcpt
	case "DATA":
		return StateData
	case "END-OF-MESSAGE":
		return StateEndOfMessage
	case "VRFY":
		return StateVRFY
	case "ETRN":
		return StateETRN
	}
	return StateOther
}

// HasSender tells whether MAIL FROM is known in this state. Only then does an
// empty sender mean the null sender.
func (s State) HasSender() bool {
	return s == StateMail || s == StateRcpt || s == StateData || s == StateEndOfMessage
}

// Client is the SMTP client.
type Client struct {
	// Address is not valid when Postfix sent "unknown" or something that is
	// no IP address.
	Address netip.Addr
	Port    string
	// Name is the forward-confirmed host name, "" when there is none. Only
	// this one may be looked up in allow lists.
	Name string
	// ReverseName is the unconfirmed name, "" when there is none.
	ReverseName string
}

// SASL is who logged in; Username is "" when nobody did.
type SASL struct{ Method, Username, Sender string }

// TLS is the encryption of the session and the client's certificate.
// Subject and Issuer are xtext-encoded by Postfix and kept so.
type TLS struct {
	Protocol, Cipher, Keysize                       string
	Subject, Issuer, Fingerprint, PubkeyFingerprint string
	SNI                                             string
}

// Request is one policy request, typed once. Absent, empty and "0" mean the
// same in this protocol: not available.
type Request struct {
	Received time.Time // when its last octet was read

	State          State
	StateName      string // as sent
	ProtocolName   string // SMTP or ESMTP
	Context        string // policy_context (Postfix 3.1)
	Instance       string // one per message transaction, unique on this host only
	QueueID        string // empty at the first RCPT
	Client         Client
	Helo           string
	Sender         mailaddr.Address // the null sender when !State.HasSender()
	Recipient      mailaddr.Address
	RecipientCount int   // DATA and END-OF-MESSAGE only
	Size           int64 // octets: announced; the real size at END-OF-MESSAGE
	SASL           SASL
	TLS            TLS
	ETRNDomain     string
	Stress         bool
	ServerAddress  netip.Addr // Postfix 3.2
	ServerPort     string
	Compatibility  string // compatibility_level (3.8)
	MailVersion    string // mail_version (3.8)

	// As sent, for the record.
	rawClientAddress string
}

// Authenticated tells whether the client logged in.
func (r *Request) Authenticated() bool { return r.SASL.Username != "" }

// parseRequest types the attributes. What Postfix itself can send never fails;
// an error means that the peer is not Postfix or that the stream is corrupt.
// Unknown attributes are those of a newer Postfix and are left alone.
func parseRequest(attrs []wire.Attr, received time.Time) (*Request, error) {
	r := &Request{Received: received}
	var p requestParser
	for _, a := range attrs {
		p.take(r, a.Name, a.Value)
	}
	if p.problem != "" {
		return nil, &wire.ProtocolError{Problem: p.problem}
	}
	switch p.request {
	case requestType:
	case "":
		return nil, &wire.ProtocolError{Problem: "no request attribute"}
	default:
		return nil, &wire.ProtocolError{Problem: fmt.Sprintf("unknown request type %q", p.request)}
	}
	r.State = parseState(r.StateName)
	r.Sender = mailaddr.ParseInternal(p.sender)
	r.Recipient = mailaddr.ParseInternal(p.recipient)
	return r, nil
}

type requestParser struct {
	seen                       uint64
	problem                    string
	request, sender, recipient string
}

// once refuses an attribute that comes a second time: two different logins in
// one request must not depend on which of them a reader believes.
func (p *requestParser) once(bit int, name string) {
	if p.seen&(1<<bit) != 0 && p.problem == "" {
		p.problem = "attribute " + name + " sent twice"
	}
	p.seen |= 1 << bit
}

func (p *requestParser) take(r *Request, name, value string) {
	switch name {
	case "request":
		p.once(0, name)
		p.request = value
	case "protocol_state":
		p.once(1, name)
		r.StateName = value
	case "protocol_name":
		p.once(2, name)
		r.ProtocolName = value
	case "policy_context":
		p.once(3, name)
		r.Context = value
	case "instance":
		p.once(4, name)
		r.Instance = value
	case "queue_id":
		p.once(5, name)
		r.QueueID = value
	case "client_address":
		p.once(6, name)
		r.rawClientAddress = value
		r.Client.Address = parseAddr(value)
	case "client_port":
		p.once(7, name)
		r.Client.Port = known(value)
	case "client_name":
		p.once(8, name)
		r.Client.Name = known(value)
	case "reverse_client_name":
		p.once(9, name)
		r.Client.ReverseName = known(value)
	case "helo_name":
		p.once(10, name)
		r.Helo = value
	case "sender":
		p.once(11, name)
		p.sender = value
	case "recipient":
		p.once(12, name)
		p.recipient = value
	case "recipient_count":
		p.once(13, name)
		r.RecipientCount = int(p.number(name, value))
	case "size":
		p.once(14, name)
		r.Size = p.number(name, value)
	case "stress":
		p.once(15, name)
		r.Stress = value == "yes"
	case "etrn_domain":
		p.once(16, name)
		r.ETRNDomain = value
	case "server_address":
		p.once(17, name)
		r.ServerAddress = parseAddr(value)
	case "server_port":
		p.once(18, name)
		r.ServerPort = value
	case "compatibility_level":
		p.once(19, name)
		r.Compatibility = value
	case "mail_version":
		p.once(20, name)
		r.MailVersion = value
	default:
		p.takeSession(r, name, value)
	}
}

// takeSession takes the attributes of the login and of TLS.
func (p *requestParser) takeSession(r *Request, name, value string) {
	switch name {
	case "sasl_method":
		p.once(30, name)
		r.SASL.Method = value
	case "sasl_username":
		p.once(31, name)
		r.SASL.Username = value
	case "sasl_sender":
		p.once(32, name)
		r.SASL.Sender = value
	case "encryption_protocol":
		p.once(33, name)
		r.TLS.Protocol = value
	case "encryption_cipher":
		p.once(34, name)
		r.TLS.Cipher = value
	case "encryption_keysize":
		p.once(35, name)
		r.TLS.Keysize = value
	case "ccert_subject":
		p.once(36, name)
		r.TLS.Subject = value
	case "ccert_issuer":
		p.once(37, name)
		r.TLS.Issuer = value
	case "ccert_fingerprint":
		p.once(38, name)
		r.TLS.Fingerprint = value
	case "ccert_pubkey_fingerprint":
		p.once(39, name)
		r.TLS.PubkeyFingerprint = value
	case "tls_sni":
		p.once(40, name)
		r.TLS.SNI = value
	}
}

func (p *requestParser) number(name, value string) int64 {
	if value == "" {
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if (err != nil || n < 0) && p.problem == "" {
		p.problem = fmt.Sprintf("attribute %s=%.40q is not a number", name, value)
	}
	return n
}

// parseAddr gives the zero Addr for "unknown" and for what is no address: that
// must not end a daemon, and no check can look such a client up.
func parseAddr(s string) netip.Addr {
	if s == "" || s == "unknown" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// known gives "" for the word that Postfix writes when it knows no value.
func known(s string) string {
	if s == "unknown" {
		return ""
	}
	return s
}
