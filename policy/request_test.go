package policy

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/policy/wire"
)

// full is a request with every attribute up to Postfix 3.12.
const full = `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
helo_name=mx.example.net
queue_id=
sender=Jürgen+news@bücher.example
recipient=bar@Example.ORG
recipient_count=0
client_address=2001:db8::25
client_name=mx.example.net
reverse_client_name=mx.example.net
instance=123.456.7
sasl_method=plain
sasl_username=you
sasl_sender=other@example.net
size=12345
ccert_subject=solaris9+2Eporcupine+2Eorg
ccert_issuer=Wietse+20Venema
ccert_fingerprint=C2:9D:F4:87
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
etrn_domain=etrn.example
stress=yes
ccert_pubkey_fingerprint=68:B3:29:DA
client_port=1234
policy_context=submission
server_address=192.0.2.1
server_port=587
compatibility_level=3.6
mail_version=3.12.0
tls_sni=mail.example.org
something_new=x
`

func attrs(text string) []wire.Attr {
	var out []wire.Attr
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		out = append(out, wire.Attr{Name: name, Value: value, Word: slices.Index(vocabulary(), name) + 1})
	}
	return out
}

func parse(attrs []wire.Attr, received time.Time) (*Request, error) {
	r := &Request{Helo: "of the request before"}
	return r, parseRequest(r, attrs, received)
}

func TestParseRequest(t *testing.T) {
	now := time.Unix(1000, 0)
	got, err := parse(attrs(full), now)
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{
		Received: now, State: StateRcpt, Context: "submission",
		Instance: "123.456.7", Helo: "mx.example.net",
		Client: Client{Address: netip.MustParseAddr("2001:db8::25"), Port: "1234", Name: "mx.example.net", ReverseName: "mx.example.net"},
		Sender: mailaddr.ParseInternal("Jürgen+news@bücher.example"), Recipient: mailaddr.ParseInternal("bar@Example.ORG"),
		Size: 12345, Login: "you", ServerPort: "587", rawClientAddress: "2001:db8::25",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Sender.Domain != "xn--bcher-kva.example" || got.Recipient.Domain != "example.org" {
		t.Errorf("domains %q, %q", got.Sender.Domain, got.Recipient.Domain)
	}
}

func TestParseRequestClients(t *testing.T) {
	for value, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
		"unknown": "invalid IP", "": "invalid IP", "300.1.1.1": "invalid IP", "\x00": "invalid IP", strings.Repeat("1", 9000): "invalid IP",
	} {
		r, err := parse(attrs("request=smtpd_access_policy\nclient_address="+value+"\nclient_name=unknown\n"), time.Now())
		if err != nil || r.Client.Address.String() != want || r.Client.Name != "" {
			t.Errorf("%.20q: %v, %q, %v", value, r.Client.Address, r.Client.Name, err)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"sender=a\n":                             "no request attribute",
		"request=junk\n":                         `unknown request type "junk"`,
		full + "sender=b@c\n":                    "attribute sender sent twice",
		full + "tls_sni=b\n":                     "attribute tls_sni sent twice",
		full + "size=\n":                         "attribute size sent twice",
		"request=smtpd_access_policy\nsize=-1\n": "attribute size=\"-1\" is not a number",
		"request=smtpd_access_policy\nrecipient_count=many\n":         "attribute recipient_count=\"many\" is not a number",
		"request=smtpd_access_policy\nsize=99999999999999999999999\n": "is not a number",
	} {
		_, err := parse(attrs(in), time.Now())
		var broken *wire.ProtocolError
		if !errors.As(err, &broken) || !strings.Contains(broken.Problem, want) {
			t.Errorf("%.60q: %v, want %q", in, err, want)
		}
	}
	for _, name := range strings.Fields("request protocol_state sasl_username client_address ccert_issuer") {
		_, err := parse(attrs(full+name+"=x\n"), time.Now())
		if err == nil {
			t.Errorf("%s twice was taken", name)
		}
	}
}

// The null sender is empty. MAIL FROM:<"<>"> is a user's, and must not pass as it.
func TestNullSender(t *testing.T) {
	for value, want := range map[string]string{"": "", "<>": `"<>"`, "<a>": `"<a>"`} {
		r, err := parse(attrs("request=smtpd_access_policy\nprotocol_state=RCPT\nsender="+value+"\n"), time.Now())
		if err != nil || r.Sender.String() != want || r.Sender.IsNull() != (value == "") || r.Sender.IsBare() == (value == "") {
			t.Errorf("%q: %+v, %v", value, r.Sender, err)
		}
	}
}

func TestStates(t *testing.T) {
	for name, sender := range map[string]bool{
		"CONNECT": false, "XCLIENT": false, "EHLO": false, "HELO": false, "MAIL": true, "RCPT": true,
		"DATA": true, "END-OF-MESSAGE": true, "VRFY": false, "ETRN": false, "FUTURE": false,
	} {
		r, err := parse(attrs("request=smtpd_access_policy\nprotocol_state="+name+"\n"), time.Now())
		if err != nil || r.State.HasSender() != sender || (r.State == StateOther) != (name == "FUTURE") {
			t.Errorf("%s: state %d, %v", name, r.State, err)
		}
	}
}
