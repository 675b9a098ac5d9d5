package postfixtest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// MilterClient is an SMTP session as a milter sees it. It replaces Postfix in tests and
// benchmarks that need only the filter. It respects what the filter negotiates, and
// sends a macro before every event as Postfix does. Events without a reply are written
// together with the next one. It is not safe for concurrent use.
type MilterClient struct {
	conn    net.Conn
	in      *bufio.Reader
	out     *bufio.Writer
	session MilterSession
	flags   uint32
	stop    func() bool
}

// MilterSession is what a filter learns before any mail.
type MilterSession struct {
	Client string // IPv4 address
	Name   string // of the client; "" for the address in brackets
	Helo   string
	MTA    string // our name, the macro j
}

// MilterMail is one mail.
type MilterMail struct {
	Sender    string // without brackets
	Recipient string
	Login     string // of the client; "" for none
	Message   string // with CRLF
}

// MilterVerdict is a filter's verdict on a mail.
type MilterVerdict struct {
	// Code is the last reply: 'c' or 'a' to continue, 'y' with a text, 'r', 't', 'd'.
	Code  byte
	Reply string // of a Code 'y': "550 5.7.1 …"
	// Fields are the added fields, "Name: value" with LF in folds, in the filter's
	// order.
	Fields     []string
	Quarantine string // the reason to hold the mail; "" for none
}

// Steps that a filter can skip, and replies that it can omit.
const (
	noConnect, noHelo, noMail, noRecipient, noBody, noHeader, noEnd = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6
	noData                                                          = 1 << 9
	quietHeader, quietConnect, quietHelo, quietMail, quietRecipient = 1 << 7, 1 << 12, 1 << 13, 1 << 14, 1 << 15
	quietData, quietEnd, quietBody                                  = 1 << 16, 1 << 18, 1 << 19
	leadingSpace                                                    = 1 << 20
	allFlags                                                        = 1<<21 - 1
)

const (
	milterVersion = 6
	allActions    = 0x1ff
	maxMilterBody = 65535
	// maxMilterReply bounds the size of one reply.
	maxMilterReply = 1 << 20
	queueID        = "i\x004XQUEUEID\x00"
)

// DialMilter negotiates and sends the client. The end of ctx or Close ends the session.
func DialMilter(ctx context.Context, socket string, s MilterSession) (*MilterClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &MilterClient{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), out: bufio.NewWriterSize(conn, 128<<10), session: s,
		stop: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if err := c.open(); err != nil {
		c.Close()
		return nil, fmt.Errorf("milter at %s: %w", socket, err)
	}
	return c, nil
}

// Close ends the session.
func (c *MilterClient) Close() {
	c.stop()
	c.packet('Q', "")
	_ = errors.Join(c.out.Flush(), c.conn.Close()) // QUIT has no reply
}

func (c *MilterClient) open() error {
	offer := binary.BigEndian.AppendUint32(nil, milterVersion)
	offer = binary.BigEndian.AppendUint32(offer, allActions)
	offer = binary.BigEndian.AppendUint32(offer, allFlags)
	c.packet('O', string(offer))
	code, answer, err := c.reply()
	switch {
	case err != nil:
		return err
	case code != 'O' || len(answer) < len(offer):
		return fmt.Errorf("negotiation: %q %q", code, answer)
	}
	c.flags = binary.BigEndian.Uint32([]byte(answer[8:]))
	name := c.session.Name
	if name == "" {
		name = "[" + c.session.Client + "]"
	}
	connect := milterEvent{code: 'C', none: noConnect, quiet: quietConnect, macros: "j\x00" + c.session.MTA + "\x00",
		text: name + "\x004\x27\x10" + c.session.Client + "\x00"}
	helo := milterEvent{code: 'H', none: noHelo, quiet: quietHelo, text: c.session.Helo + "\x00"}
	for _, e := range []milterEvent{connect, helo} {
		if code, text, err := c.send(e); err != nil || code != 'c' {
			return errors.Join(fmt.Errorf("%q: reply %q %q", e.code, code, text), err)
		}
	}
	return nil
}

// Send sends a mail up to its end, or up to the first reply that ends it.
func (c *MilterClient) Send(m MilterMail) (v MilterVerdict, err error) {
	head, body, _ := strings.Cut(m.Message, "\r\n\r\n")
	login := "{auth_type}\x00\x00"
	if m.Login != "" {
		login = "{auth_type}\x00PLAIN\x00{auth_authen}\x00" + m.Login + "\x00"
	}
	events := []milterEvent{
		{code: 'M', none: noMail, quiet: quietMail, macros: login, text: "<" + m.Sender + ">\x00"},
		{code: 'R', none: noRecipient, quiet: quietRecipient, macros: queueID, text: "<" + m.Recipient + ">\x00"},
		{code: 'T', none: noData, quiet: quietData, macros: queueID},
	}
	events = append(events, c.header(head)...)
	events = append(events, milterEvent{code: 'N', none: noEnd, quiet: quietEnd, macros: queueID})
	for len(body) > 0 {
		n := min(len(body), maxMilterBody)
		events = append(events, milterEvent{code: 'B', none: noBody, quiet: quietBody, macros: queueID, text: body[:n]})
		body = body[n:]
	}
	skip := false
	for _, e := range events {
		if skip && e.code == 'B' {
			continue
		}
		v.Code, v.Reply, err = c.send(e)
		switch {
		case err != nil:
			return v, err
		case v.Code == 's':
			skip = true
		case v.Code != 'c':
			c.packet('A', "")
			return v, nil
		}
	}
	c.packet('D', "E"+queueID)
	c.packet('E', "")
	return c.end()
}

// header returns an event for each field.
func (c *MilterClient) header(head string) []milterEvent {
	var events []milterEvent
	for field := range strings.SplitSeq(strings.NewReplacer("\r\n ", "\n ", "\r\n\t", "\n\t").Replace(head), "\r\n") {
		name, value, _ := strings.Cut(field, ":")
		if c.flags&leadingSpace == 0 {
			value = strings.TrimPrefix(value, " ")
		}
		events = append(events, milterEvent{code: 'L', none: noHeader, quiet: quietHeader, macros: queueID,
			text: strings.TrimRight(name, " \t") + "\x00" + value + "\x00"})
	}
	return events
}

// end reads the changes of the mail and the last reply.
func (c *MilterClient) end() (v MilterVerdict, err error) {
	for {
		code, text, err := c.reply()
		if err != nil {
			return v, err
		}
		switch code {
		case 'i':
			text = text[min(4, len(text)):] // the index
			fallthrough
		case 'h':
			name, value, _ := strings.Cut(strings.TrimSuffix(text, "\x00"), "\x00")
			v.Fields = append(v.Fields, name+": "+strings.TrimPrefix(value, " "))
		case 'q':
			v.Quarantine = strings.TrimSuffix(text, "\x00")
		case 'm', 'p': // a field to change, progress
		default:
			v.Code, v.Reply = code, strings.TrimSuffix(text, "\x00")
			return v, nil
		}
	}
}

// milterEvent is one step, with the flags of filters that skip it or do not reply to
// it.
type milterEvent struct {
	code         byte
	none, quiet  uint32
	macros, text string
}

// send sends an event and returns the reply, or 'c' if there is none.
func (c *MilterClient) send(e milterEvent) (code byte, text string, err error) {
	if c.flags&e.none != 0 {
		return 'c', "", nil
	}
	if e.macros != "" {
		c.packet('D', string(e.code)+e.macros)
	}
	c.packet(e.code, e.text)
	if c.flags&e.quiet != 0 {
		return 'c', "", nil
	}
	code, text, err = c.reply()
	return code, strings.TrimSuffix(text, "\x00"), err
}

// packet writes to the buffer. The next reply returns its error.
func (c *MilterClient) packet(code byte, text string) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(text)+1))
	_, _ = c.out.Write(append(head, code))
	_, _ = c.out.WriteString(text)
}

// reply reads one packet.
func (c *MilterClient) reply() (code byte, text string, err error) {
	if err := c.out.Flush(); err != nil {
		return 0, "", err
	}
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, "", err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 1 || size > maxMilterReply {
		return 0, "", fmt.Errorf("a reply of %d bytes", size)
	}
	packet := make([]byte, size)
	_, err = io.ReadFull(c.in, packet)
	return packet[0], string(packet[1:]), err
}
