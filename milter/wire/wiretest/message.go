package wiretest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Change is one modification that the milter asked for.
type Change struct {
	Kind  byte // 'i' insert, 'm' change or, with an empty value, delete, 'h' append
	Index int  // of 'i' and 'm'
	Name  string
	Value string // with its leading space, folds are LF
}

func (c Change) String() string {
	return fmt.Sprintf("%c %d %s:%s", c.Kind, c.Index, c.Name, c.Value)
}

// EndReply is the milter's answer to the end of a message.
type EndReply struct {
	Reply
	Changes    []Change
	Quarantine string
	Progress   int // how many times the milter asked for patience
}

// EndOfMessage ends the message and collects modifications up to the reply.
func (c *Client) EndOfMessage() EndReply {
	c.Packet('E', "")
	var r EndReply
	for c.err == nil {
		code, text, err := c.read()
		if c.fail("read the end of a message", err) {
			break
		}
		if r.take(code, text) {
			break
		}
	}
	return r
}

// take reports whether the frame was the final reply.
func (r *EndReply) take(code byte, text string) bool {
	text = strings.TrimSuffix(text, "\x00")
	switch code {
	case 'p':
		r.Progress++
	case 'q':
		r.Quarantine = text
	case 'i', 'm':
		index := int(binary.BigEndian.Uint32([]byte(text + "\x00\x00\x00\x00")))
		name, value, _ := strings.Cut(text[min(4, len(text)):], "\x00")
		r.Changes = append(r.Changes, Change{code, index, name, value})
	case 'h':
		name, value, _ := strings.Cut(text, "\x00")
		r.Changes = append(r.Changes, Change{Kind: code, Name: name, Value: value})
	default:
		r.Reply = Reply{code, text}
		return true
	}
	return false
}

// Apply returns the message (CRLF line ends) as Postfix would deliver it after the
// changes of r.
func (r EndReply) Apply(message string) string {
	fields, body := split(message)
	for _, c := range r.Changes {
		fields = c.apply(fields)
	}
	return strings.Join(fields, "") + body
}

func (c Change) apply(fields []string) []string {
	line := c.Name + ":" + strings.ReplaceAll(c.Value, "\n", "\r\n") + "\r\n"
	switch c.Kind {
	case 'h':
		return append(fields, line)
	case 'i':
		// Index 0 is above the MTA's own Received field, 1 below it; neither the
		// milter nor this message has that field.
		at := min(max(c.Index-1, 0), len(fields))
		return append(fields[:at:at], append([]string{line}, fields[at:]...)...)
	}
	for i, seen := 0, 0; i < len(fields); i++ {
		name, _, _ := strings.Cut(fields[i], ":")
		if !strings.EqualFold(name, c.Name) {
			continue
		}
		if seen++; seen != c.Index {
			continue
		}
		if c.Value == "" {
			return append(fields[:i:i], fields[i+1:]...)
		}
		fields[i] = line
	}
	return fields
}

// split returns the header fields, each with its CRLF, and the rest from the empty
// line on.
func split(message string) (fields []string, rest string) {
	for message != "" && !strings.HasPrefix(message, "\r\n") {
		end := strings.Index(message, "\r\n") + 2
		if end < 2 {
			end = len(message)
		}
		line := message[:end]
		if len(fields) > 0 && (line[0] == ' ' || line[0] == '\t') {
			fields[len(fields)-1] += line
		} else {
			fields = append(fields, line)
		}
		message = message[end:]
	}
	return fields, message
}

// Session is what comes before the first message.
type Session struct {
	Name   string // host name of the client; "" gives "[address]"
	Client netip.AddrPort
	Helo   string
	Macros []string // that come with CONNECT
}

// Open negotiates and sends the client and its HELO.
func (c *Client) Open(s Session) Negotiated {
	n := c.Negotiate()
	if s.Name == "" {
		s.Name = "[" + s.Client.Addr().String() + "]"
	}
	if len(s.Macros) > 0 {
		c.Macros('C', s.Macros...)
	}
	c.Connect(s.Name, s.Client)
	c.Helo(s.Helo)
	return n
}

// Mail is one message with its envelope.
type Mail struct {
	From    string // in angle brackets; "" is "<>"
	Params  []string
	To      []string // in angle brackets
	Macros  []string // that come with MAIL, such as "{auth_authen}", "alice"
	QueueID string   // "" is 4XQUEUEID
	Message string   // with CRLF line ends
}

// Send sends a whole message as Postfix does: with macros before every command,
// header field and chunk. It stops at the first final reply; a rejected recipient
// is not final.
func (c *Client) Send(m Mail) EndReply {
	if m.From == "" {
		m.From = "<>"
	}
	if m.QueueID == "" {
		m.QueueID = "4XQUEUEID"
	}
	c.Macros('M', m.Macros...)
	if r := c.Mail(m.From, m.Params...); !r.Continues() {
		return EndReply{Reply: r}
	}
	for _, to := range m.To {
		c.Macros('R', "i", m.QueueID)
		if r := c.Rcpt(to); r.Code == 'a' {
			return EndReply{Reply: r}
		}
	}
	return c.content(m)
}

func (c *Client) content(m Mail) EndReply {
	fields, rest := split(m.Message)
	for _, field := range fields {
		name, value, _ := strings.Cut(strings.TrimSuffix(field, "\r\n"), ":")
		c.Macros('L', "i", m.QueueID)
		if r := c.Header(name, strings.ReplaceAll(value, "\r\n", "\n")); !r.Continues() {
			return EndReply{Reply: r}
		}
	}
	c.Macros('N', "i", m.QueueID)
	if r := c.EndOfHeader(); !r.Continues() {
		return EndReply{Reply: r}
	}
	for body := strings.TrimPrefix(rest, "\r\n"); body != ""; {
		n := min(len(body), 65535)
		c.Macros('B', "i", m.QueueID)
		if r := c.Body(body[:n]); !r.Continues() {
			return EndReply{Reply: r}
		}
		body = body[n:]
	}
	c.Macros('E', "i", m.QueueID)
	return c.EndOfMessage()
}
