package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
)

// maxArgs bounds the ESMTP parameters of one MAIL or RCPT, the address included.
const maxArgs = 64

// Peer is the payload of CONNECT: the SMTP client as the MTA sees it.
type Peer struct {
	Name   string     // host name, or "[address]" when it has none
	Family byte       // 'U' unknown, 'L' local, '4', '6'
	Port   uint16     // 0 unless Family is '4' or '6'
	Addr   netip.Addr // invalid unless Family is '4' or '6' and the text is an address
}

func checkConnect(payload []byte) error {
	_, err := ParseConnect(payload)
	return err
}

// ParseConnect reads a CONNECT payload: host NUL family [port address NUL]. An
// "IPv6:" prefix, which some MTAs send, is dropped. An address that does not parse
// leaves Addr invalid and is no error, so that the session goes on.
func ParseConnect(payload []byte) (Peer, error) {
	host, rest, ok := bytes.Cut(payload, []byte{0})
	if !ok || len(rest) == 0 {
		return Peer{}, protocolError("truncated CONNECT")
	}
	p := Peer{Name: string(host), Family: rest[0]}
	rest = rest[1:]
	switch p.Family {
	case 'U':
		return p, nil
	case 'L', '4', '6':
	default:
		return Peer{}, protocolError("CONNECT of unknown family %q", p.Family)
	}
	if len(rest) < 3 || bytes.IndexByte(rest[2:], 0) != len(rest)-3 {
		return Peer{}, protocolError("truncated CONNECT")
	}
	if p.Family != 'L' {
		p.Port = binary.BigEndian.Uint16(rest)
		p.Addr = ParseAddr(string(rest[2 : len(rest)-1]))
	}
	return p, nil
}

// ParseAddr reads an IP address as MTAs write it, with or without "IPv6:". It returns
// an IPv4 address mapped into IPv6 as IPv4. The result is invalid when the text is
// not an address.
func ParseAddr(text string) netip.Addr {
	const prefix = "IPv6:"
	if len(text) > len(prefix) && strings.EqualFold(text[:len(prefix)], prefix) {
		text = text[len(prefix):]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap()
}

func checkHelo(payload []byte) error {
	if bytes.IndexByte(payload, 0) != len(payload)-1 {
		return protocolError("HELO is not one string")
	}
	return nil
}

// HeloName returns the name in a HELO payload.
func HeloName(payload []byte) string {
	return string(bytes.TrimSuffix(payload, []byte{0}))
}

func checkArgs(payload []byte) error {
	if payload[len(payload)-1] != 0 {
		return protocolError("envelope command does not end in NUL")
	}
	if n := bytes.Count(payload, []byte{0}); n > maxArgs {
		return protocolError("envelope command with %d arguments", n)
	}
	return nil
}

// Args returns the strings of a MAIL or RCPT payload: the address as the client
// wrote it, then the ESMTP parameters. The null reverse path is "<>" from smtpd(8)
// and an empty string from cleanup(8).
func Args(payload []byte) []string {
	payload = bytes.TrimSuffix(payload, []byte{0})
	return strings.Split(string(payload), "\x00")
}

// checkHeader requires a name and a value and nothing more. The library would reply
// to a third string too. The MTA does not wait for that reply, and would take it for
// the reply to its next command.
func checkHeader(payload []byte) error {
	end := bytes.IndexByte(payload, 0)
	if end <= 0 {
		return protocolError("header without a name")
	}
	value := payload[end+1:]
	if len(value) == 0 || bytes.IndexByte(value, 0) != len(value)-1 {
		return protocolError("header is not two strings")
	}
	return nil
}
