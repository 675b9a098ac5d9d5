package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/wire"
)

// requestType is the only type of request that Postfix sends.
const requestType = "smtpd_access_policy"

// State is the SMTP protocol state in which Postfix asks. With
// smtpd_delay_reject = yes (the default) the client, helo and sender
// restrictions are asked at RCPT too.
type State uint8

// The states of SMTPD_POLICY_README; BDAT arrives as DATA. After XCLIENT, as from
// a mail proxy, Postfix asks about the client anew and calls that state XCLIENT
// (smtpd_delay_reject = no). StateOther is a state that this version does not
// know. No check applies to it.
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

// parseState parses a state as Postfix spells it.
func parseState(name string) State {
	switch name {
	case "CONNECT", "XCLIENT":
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

// HasSender reports whether MAIL FROM is known in this state. Only then does an
// empty sender mean the null sender.
func (s State) HasSender() bool {
	return s == StateMail || s == StateRcpt || s == StateData || s == StateEndOfMessage
}

// Client is the SMTP client.
type Client struct {
	// Address is not valid if Postfix sent "unknown" or text that is not an IP
	// address.
	Address netip.Addr
	Port    string
	// Name is the forward-confirmed host name, "" when there is none. Allow
	// lists must use this name and not ReverseName.
	Name string
	// ReverseName is the unconfirmed name, "" when there is none.
	ReverseName string
}

// Request is one policy request, with the attributes that the checks use. In
// this protocol an absent attribute, an empty one and "0" mean the same: not
// available.
type Request struct {
	Received time.Time // when its last octet was read

	State          State
	Context        string // policy_context (Postfix 3.1)
	Instance       string // one per message transaction, unique on this host only
	QueueID        string // empty at the first RCPT
	Client         Client
	Helo           string
	Sender         mailaddr.Address // the null sender when !State.HasSender()
	Recipient      mailaddr.Address
	RecipientCount int    // DATA and END-OF-MESSAGE only
	Size           int64  // octets, as announced; the real size at END-OF-MESSAGE
	Login          string // who logged in, "" for no one
	ServerPort     string // of Postfix (Postfix 3.2)

	// As sent, for the record.
	rawClientAddress string
}

// Authenticated reports whether the client logged in.
func (r *Request) Authenticated() bool { return r.Login != "" }

// attribute is a known attribute. Some are not used, but must be known so that
// a request with two of them is refused.
type attribute uint8

const (
	attrUnknown attribute = iota // sent by a newer Postfix, ignored
	attrRequest
	attrState
	attrProtocolName
	attrContext
	attrInstance
	attrQueueID
	attrClientAddress
	attrClientPort
	attrClientName
	attrReverseClientName
	attrHelo
	attrSender
	attrRecipient
	attrRecipientCount
	attrSize
	attrStress
	attrETRNDomain
	attrServerAddress
	attrServerPort
	attrCompatibility
	attrMailVersion
	attrSASLMethod
	attrSASLUsername
	attrSASLSender
	attrTLSProtocol
	attrTLSCipher
	attrTLSKeysize
	attrCertSubject
	attrCertIssuer
	attrCertFingerprint
	attrCertPubkeyFingerprint
	attrSNI
)

// attributeNames are the names in SMTPD_POLICY_README.
var attributeNames = [...]string{
	attrRequest:               "request",
	attrState:                 "protocol_state",
	attrProtocolName:          "protocol_name",
	attrContext:               "policy_context",
	attrInstance:              "instance",
	attrQueueID:               "queue_id",
	attrClientAddress:         "client_address",
	attrClientPort:            "client_port",
	attrClientName:            "client_name",
	attrReverseClientName:     "reverse_client_name",
	attrHelo:                  "helo_name",
	attrSender:                "sender",
	attrRecipient:             "recipient",
	attrRecipientCount:        "recipient_count",
	attrSize:                  "size",
	attrStress:                "stress",
	attrETRNDomain:            "etrn_domain",
	attrServerAddress:         "server_address",
	attrServerPort:            "server_port",
	attrCompatibility:         "compatibility_level",
	attrMailVersion:           "mail_version",
	attrSASLMethod:            "sasl_method",
	attrSASLUsername:          "sasl_username",
	attrSASLSender:            "sasl_sender",
	attrTLSProtocol:           "encryption_protocol",
	attrTLSCipher:             "encryption_cipher",
	attrTLSKeysize:            "encryption_keysize",
	attrCertSubject:           "ccert_subject",
	attrCertIssuer:            "ccert_issuer",
	attrCertFingerprint:       "ccert_fingerprint",
	attrCertPubkeyFingerprint: "ccert_pubkey_fingerprint",
	attrSNI:                   "tls_sni",
}

// vocabulary returns the names for a wire.Reader, in an order in which
// Attr.Word is an attribute.
func vocabulary() []string { return attributeNames[attrUnknown+1:] }

// requestParser parses the attributes of one request.
type requestParser struct {
	seen                       uint64 // a bit for each attribute
	problem                    string
	request, sender, recipient string
	state                      string
}

// parseRequest parses the attributes into r. It never fails on what Postfix
// sends. An error means that the client is not Postfix or that the stream is
// corrupt. Unknown attributes come from a newer Postfix and are ignored.
func parseRequest(r *Request, attrs []wire.Attr, received time.Time) error {
	*r = Request{Received: received}
	var p requestParser
	for i := range attrs {
		if a := attribute(attrs[i].Word); a != attrUnknown {
			p.take(r, a, attrs[i].Value)
		}
	}
	if p.problem != "" {
		return &wire.ProtocolError{Problem: p.problem}
	}
	switch p.request {
	case requestType:
	case "":
		return &wire.ProtocolError{Problem: "no request attribute"}
	default:
		return &wire.ProtocolError{Problem: fmt.Sprintf("unknown request type %q", p.request)}
	}
	r.State = parseState(p.state)
	r.Sender = parseSender(p.sender)
	r.Recipient = mailaddr.ParseInternal(p.recipient)
	return nil
}

// parseSender parses a sender as Postfix sends it. The null sender is empty. "<>" is the
// local part of MAIL FROM:<"<>">, which Postfix completes like any other.
func parseSender(text string) mailaddr.Address {
	if text == "<>" {
		return mailaddr.Parse(`"<>"`)
	}
	return mailaddr.ParseInternal(text)
}

// once refuses an attribute that is sent twice. Otherwise a request could have
// two logins, and the answer would depend on which of them is read.
func (p *requestParser) once(a attribute) {
	if p.seen&(1<<a) != 0 && p.problem == "" {
		p.problem = "attribute " + attributeNames[a] + " sent twice"
	}
	p.seen |= 1 << a
}

func (p *requestParser) take(r *Request, a attribute, value string) {
	p.once(a)
	if value == "" {
		return // the same as absent
	}
	switch a {
	case attrRequest:
		p.request = value
	case attrState:
		p.state = value
	case attrContext:
		r.Context = value
	case attrInstance:
		r.Instance = value
	case attrQueueID:
		r.QueueID = value
	case attrClientAddress:
		r.rawClientAddress = value
		r.Client.Address = parseAddr(value)
	case attrClientPort:
		r.Client.Port = known(value)
	case attrClientName:
		r.Client.Name = known(value)
	case attrReverseClientName:
		r.Client.ReverseName = known(value)
	case attrHelo:
		r.Helo = value
	case attrSender:
		p.sender = value
	case attrRecipient:
		p.recipient = value
	case attrRecipientCount:
		r.RecipientCount = int(p.number(a, value))
	case attrSize:
		r.Size = p.number(a, value)
	case attrSASLUsername:
		r.Login = value
	case attrServerPort:
		r.ServerPort = value
	}
}

func (p *requestParser) number(a attribute, value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if (err != nil || n < 0) && p.problem == "" {
		p.problem = fmt.Sprintf("attribute %s=%.40q is not a number", attributeNames[a], value)
	}
	return n
}

// parseAddr returns the zero Addr for "unknown" and for text that is not an
// address. It is not an error: no check can look such a client up, and the
// connection goes on.
func parseAddr(s string) netip.Addr {
	if s == "unknown" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// known returns "" for "unknown", which Postfix writes when it has no value.
func known(s string) string {
	if s == "unknown" {
		return ""
	}
	return s
}
