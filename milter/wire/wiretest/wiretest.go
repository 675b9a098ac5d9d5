// Package wiretest is a scripted milter client: it speaks to a milter as Postfix does
// and returns what the milter replied, so that tests can write a session line by
// line.
//
// A [Client] keeps its first error: every later call does nothing and returns zero
// values, and the error is reported to the test once. Only one goroutine at a time
// may call its methods.
package wiretest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// Patience is how long the client waits for a reply before the test fails.
const Patience = 20 * time.Second

// maxReply bounds one frame from the milter.
const maxReply = 16 << 20

// Actions and Options of Postfix with milter_protocol = 6: what a milter may do, and
// which parts of the protocol it may change.
const (
	Actions  = 0x1ff
	Protocol = 0x1fffff
)

// Options that make the milter send no reply (SMFIP_NR_*).
const (
	noHeaderReply  = 1 << 7
	noConnectReply = 1 << 12
	noHeloReply    = 1 << 13
	noMailReply    = 1 << 14
	noRcptReply    = 1 << 15
	noEOHReply     = 1 << 18
	noBodyReply    = 1 << 19
)

// Client is one milter connection.
type Client struct {
	tb    testing.TB
	conn  net.Conn
	out   []byte // frames that wait for the next read, as Postfix keeps them
	flags uint32 // the protocol options that the milter chose
	err   error
}

// Reply is a milter's answer. The zero value is "no answer was due".
type Reply struct {
	Code byte   // 'c' continue, 'a' accept, 'r' reject, 't' tempfail, 'y' reply code, 'd' discard
	Text string // of 'y': code and text, still with doubled percent signs
}

// Continues reports whether the MTA goes on with this message.
func (r Reply) Continues() bool { return r.Code == 0 || r.Code == 'c' }

func (r Reply) String() string {
	switch r.Code {
	case 0:
		return "none"
	case 'c':
		return "continue"
	case 'a':
		return "accept"
	case 'r':
		return "reject"
	case 't':
		return "tempfail"
	case 'y':
		return r.Text
	}
	return fmt.Sprintf("%q %q", r.Code, r.Text)
}

// Negotiated is the milter's answer to the option negotiation.
type Negotiated struct {
	Version, Actions, Protocol uint32
	Macros                     map[uint32]string // stage (SMFIM_*) to the list asked for
}

// Dial connects and closes the connection when the test ends.
func Dial(tb testing.TB, network, address string) *Client {
	conn, err := net.Dial(network, address)
	c := New(tb, conn)
	c.fail("dial", err)
	return c
}

// New speaks over conn and closes it when the test ends.
func New(tb testing.TB, conn net.Conn) *Client {
	if conn != nil {
		tb.Cleanup(func() { _ = conn.Close() })
	}
	return &Client{tb: tb, conn: conn}
}

// Err returns the first error.
func (c *Client) Err() error { return c.err }

// fail keeps and reports the first error.
func (c *Client) fail(what string, err error) bool {
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("%s: %w", what, err)
		c.tb.Errorf("milter client: %v", c.err)
	}
	return c.err != nil
}

// Frame builds one frame.
func Frame(command byte, payload string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1))
	b = append(b, command)
	return append(b, payload...)
}

// Raw sends octets as they are, at once.
func (c *Client) Raw(b []byte) {
	c.out = append(c.out, b...)
	c.Flush()
}

// Packet queues one frame. As in Postfix, queued frames are sent when a reply is
// waited for, or when they have 4 KiB.
func (c *Client) Packet(command byte, payload string) {
	c.out = append(c.out, Frame(command, payload)...)
	if len(c.out) >= 4096 {
		c.Flush()
	}
}

// Flush sends the frames that wait.
func (c *Client) Flush() {
	if c.err != nil || len(c.out) == 0 {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(Patience))
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	c.fail("write", err)
}

func (c *Client) read() (byte, string, error) {
	if c.Flush(); c.err != nil {
		return 0, "", c.err
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(Patience))
	var head [5]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, "", err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxReply {
		return 0, "", fmt.Errorf("frame of %d octets from the milter", n)
	}
	payload := make([]byte, n-1)
	_, err := io.ReadFull(c.conn, payload)
	return head[4], string(payload), err
}

// Reply reads one frame.
func (c *Client) Reply() Reply {
	if c.err != nil {
		return Reply{}
	}
	code, text, err := c.read()
	if c.fail("read reply", err) {
		return Reply{}
	}
	return Reply{code, strings.TrimSuffix(text, "\x00")}
}

// ask sends a frame, and reads the reply unless the milter chose to send none.
func (c *Client) ask(command byte, payload string, optOut uint32) Reply {
	c.Packet(command, payload)
	if c.flags&optOut != 0 {
		return Reply{}
	}
	return c.Reply()
}

// Closed waits until the milter closes the connection. A reply is an error; then
// Closed may be called again. After it, the client cannot be used.
func (c *Client) Closed() error {
	if c.err != nil {
		return c.err
	}
	code, text, err := c.read()
	if err == nil {
		return fmt.Errorf("reply %q %q instead of a closed connection", code, text)
	}
	c.err = net.ErrClosed
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the connection stayed open")
	}
	return nil
}

// Close sends what waits and closes the client's end.
func (c *Client) Close() {
	c.Flush()
	if c.conn != nil {
		_ = c.conn.Close()
	}
	if c.err == nil {
		c.err = net.ErrClosed
	}
}

// Negotiate offers everything that Postfix offers.
func (c *Client) Negotiate() Negotiated { return c.NegotiateWith(6, Actions, Protocol) }

// NegotiateWith offers something else.
func (c *Client) NegotiateWith(version, actions, protocol uint32) Negotiated {
	var payload []byte
	for _, v := range []uint32{version, actions, protocol} {
		payload = binary.BigEndian.AppendUint32(payload, v)
	}
	c.Packet('O', string(payload))
	if c.err != nil {
		return Negotiated{}
	}
	code, text, err := c.read()
	if err == nil && (code != 'O' || len(text) < 12) {
		err = fmt.Errorf("answer %q %q", code, text)
	}
	if c.fail("negotiate", err) {
		return Negotiated{}
	}
	n := parseNegotiated([]byte(text))
	c.flags = n.Protocol
	return n
}

func parseNegotiated(b []byte) Negotiated {
	n := Negotiated{
		Version:  binary.BigEndian.Uint32(b),
		Actions:  binary.BigEndian.Uint32(b[4:]),
		Protocol: binary.BigEndian.Uint32(b[8:]),
		Macros:   map[uint32]string{},
	}
	for b = b[12:]; len(b) > 4; {
		list, rest, _ := strings.Cut(string(b[4:]), "\x00")
		n.Macros[binary.BigEndian.Uint32(b)] = list
		b = []byte(rest)
	}
	return n
}

// Macros sends macros (name, value, name, value, …) for the command that follows.
func (c *Client) Macros(command byte, pairs ...string) {
	payload := string(command)
	for _, s := range pairs {
		payload += s + "\x00"
	}
	c.Packet('D', payload)
}

// Connect sends the SMTP client; an invalid address is sent as family unknown.
func (c *Client) Connect(name string, client netip.AddrPort) Reply {
	payload := name + "\x00U"
	if client.IsValid() {
		family := "4"
		if client.Addr().Is6() {
			family = "6"
		}
		port := string(binary.BigEndian.AppendUint16(nil, client.Port()))
		payload = name + "\x00" + family + port + client.Addr().String() + "\x00"
	}
	return c.ask('C', payload, noConnectReply)
}

// Helo sends HELO or EHLO.
func (c *Client) Helo(name string) Reply { return c.ask('H', name+"\x00", noHeloReply) }

// Mail sends the sender, in angle brackets, and ESMTP parameters.
func (c *Client) Mail(from string, params ...string) Reply {
	return c.ask('M', from+"\x00"+zeroEnded(params), noMailReply)
}

// Rcpt sends a recipient, in angle brackets, and ESMTP parameters.
func (c *Client) Rcpt(to string, params ...string) Reply {
	return c.ask('R', to+"\x00"+zeroEnded(params), noRcptReply)
}

// zeroEnded ends every string in NUL.
func zeroEnded(list []string) string {
	var b strings.Builder
	for _, s := range list {
		b.WriteString(s)
		b.WriteByte(0)
	}
	return b.String()
}

// Header sends one field; value begins with its space, and folds are LF.
func (c *Client) Header(name, value string) Reply {
	return c.ask('L', name+"\x00"+value+"\x00", noHeaderReply)
}

// EndOfHeader ends the header.
func (c *Client) EndOfHeader() Reply { return c.ask('N', "", noEOHReply) }

// Body sends a chunk of the body, at most 65,535 octets.
func (c *Client) Body(chunk string) Reply { return c.ask('B', chunk, noBodyReply) }

// Abort gives up the current message.
func (c *Client) Abort() { c.Packet('A', "") }

// Quit ends the session and waits until the milter has closed it.
func (c *Client) Quit() {
	c.Packet('Q', "")
	if c.err == nil {
		if err := c.Closed(); err != nil {
			c.tb.Errorf("milter client: quit: %v", err)
		}
	}
}
