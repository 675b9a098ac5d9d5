package postfixtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Bounds on what a Client reads.
const (
	maxReplyLine  = 16 << 10
	maxReplyLines = 512
)

// defaultTimeout bounds one command if Client.Timeout is zero.
const defaultTimeout = time.Minute

// Reply is the server's answer to one command.
type Reply struct {
	Code  int      // three digits
	Lines []string // without the code; at least one
}

// OK reports whether the server accepted (2xx or 3xx).
func (r Reply) OK() bool { return r.Code >= 200 && r.Code < 400 }

// String returns the reply in one line with one code.
func (r Reply) String() string {
	return strings.TrimSpace(strconv.Itoa(r.Code) + " " + strings.Join(r.Lines, " / "))
}

// Client is an SMTP client that sends exactly what the caller asks for.
type Client struct {
	Timeout  time.Duration // for one command and its reply; zero means one minute
	Greeting Reply

	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to addr and reads the greeting. ctx bounds only this. A greeting other
// than 220 is an error that wraps a *ReplyError.
func Dial(ctx context.Context, addr string) (*Client, error) { return dial(ctx, addr, "") }

// dial sends hello before the greeting.
func dial(ctx context.Context, addr, hello string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, maxReplyLine)}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if _, err = io.WriteString(conn, hello); err == nil {
		c.Greeting, err = c.Read()
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil && c.Greeting.Code != 220 {
		err = &ReplyError{Command: "greeting", Reply: c.Greeting}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("smtp: %w", err), conn.Close())
	}
	return c, nil
}

// ReplyError is a refusal after which the caller cannot continue.
type ReplyError struct {
	Command string
	Reply   Reply
}

func (e *ReplyError) Error() string { return e.Command + " answered: " + e.Reply.String() }

// Close closes the connection without a QUIT.
func (c *Client) Close() error { return c.conn.Close() }

// Port returns the client's port, as Postfix reports it.
func (c *Client) Port() string {
	_, port, _ := net.SplitHostPort(c.conn.LocalAddr().String())
	return port
}

// Write sends b unchanged, for pipelining and for input that no client should send. The
// caller adds CRLF.
func (c *Client) Write(b []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	return c.conn.Write(b)
}

// Read reads one reply with all its lines.
func (c *Client) Read() (Reply, error) {
	if err := c.extend(); err != nil {
		return Reply{}, err
	}
	var r Reply
	for range maxReplyLines {
		line, err := c.readLine()
		if err != nil {
			return r, err
		}
		code, err := strconv.Atoi(line[:min(3, len(line))])
		if err != nil || code < 100 || (len(r.Lines) > 0 && code != r.Code) {
			return r, fmt.Errorf("smtp: not a reply line: %q", line)
		}
		more := len(line) > 3 && line[3] == '-'
		r.Code = code
		r.Lines = append(r.Lines, line[min(4, len(line)):])
		if !more {
			return r, nil
		}
	}
	return r, fmt.Errorf("smtp: a reply of more than %d lines", maxReplyLines)
}

func (c *Client) readLine() (string, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return "", fmt.Errorf("smtp: read a reply: %w", err)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func (c *Client) extend() error {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return c.conn.SetDeadline(time.Now().Add(timeout))
}

// Cmd sends one command line and reads its reply. A refusal is a Reply, not an
// error.
func (c *Client) Cmd(format string, args ...any) (Reply, error) {
	if _, err := c.Write(fmt.Appendf(nil, format+"\r\n", args...)); err != nil {
		return Reply{}, fmt.Errorf("smtp: %w", err)
	}
	return c.Read()
}

// must is Cmd for the steps before a transaction, where a refusal is an error.
func (c *Client) must(command string) error {
	r, err := c.Cmd("%s", command)
	if err == nil && !r.OK() {
		verb, _ := cutVerb(command)
		err = &ReplyError{Command: verb, Reply: r}
	}
	return err
}

// Pipeline sends all commands in one write and reads one reply to each.
func (c *Client) Pipeline(commands ...string) ([]Reply, error) {
	if _, err := c.Write([]byte(strings.Join(commands, "\r\n") + "\r\n")); err != nil {
		return nil, fmt.Errorf("smtp: %w", err)
	}
	var replies []Reply
	for range commands {
		r, err := c.Read()
		if err != nil {
			return replies, err
		}
		replies = append(replies, r)
	}
	return replies, nil
}

// Hello sends EHLO.
func (c *Client) Hello(name string) error { return c.must("EHLO " + name) }

// XClient presents another client to Postfix with attributes such as "ADDR=192.0.2.1",
// "NAME=mx.example", "HELO=mx.example". The caller must encode values as xtext. Postfix
// starts the session anew, so call Hello again.
func (c *Client) XClient(attributes ...string) error {
	return c.must("XCLIENT " + strings.Join(attributes, " "))
}

// StartTLS changes to TLS. Call Hello again after it.
func (c *Client) StartTLS(config *tls.Config) error {
	if err := c.must("STARTTLS"); err != nil {
		return err
	}
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		return fmt.Errorf("smtp: starttls: %w", err)
	}
	c.conn = conn
	c.r = bufio.NewReaderSize(conn, maxReplyLine)
	return nil
}

// Login logs in with AUTH PLAIN. An error does not contain the password.
func (c *Client) Login(user, password string) error {
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	return c.must("AUTH PLAIN " + secret)
}

// Mail sends MAIL FROM:<from>, with parameters such as "SMTPUTF8".
func (c *Client) Mail(from string, parameters ...string) (Reply, error) {
	return c.Cmd("%s", strings.Join(append([]string{"MAIL FROM:<" + from + ">"}, parameters...), " "))
}

// Rcpt sends RCPT TO:<to>.
func (c *Client) Rcpt(to string) (Reply, error) { return c.Cmd("RCPT TO:<%s>", to) }

// Data sends message, whose lines end in CRLF or LF. It returns the reply to the final
// dot, or to DATA if that was refused.
func (c *Client) Data(message string) (Reply, error) {
	r, err := c.Cmd("DATA")
	if err != nil || r.Code != 354 {
		return r, err
	}
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(message, "\r\n", "\n"), "\n"), "\n")
	var b strings.Builder
	for _, line := range lines {
		if strings.HasPrefix(line, ".") {
			b.WriteByte('.')
		}
		b.WriteString(line + "\r\n")
	}
	b.WriteString(".\r\n")
	if _, err := c.Write([]byte(b.String())); err != nil {
		return Reply{}, fmt.Errorf("smtp: %w", err)
	}
	return c.Read()
}

// Reset sends RSET.
func (c *Client) Reset() error { return c.must("RSET") }

// Quit sends QUIT and closes the connection.
func (c *Client) Quit() error {
	return errors.Join(c.must("QUIT"), c.Close())
}
