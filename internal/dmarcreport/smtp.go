package dmarcreport

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"strconv"
	"time"
)

// deliverTimeout bounds one mail.
const deliverTimeout = 5 * time.Minute

// Envelope is the SMTP envelope of a mail.
type Envelope struct {
	From, To string
	Size     int64 // approximately
}

// SMTP sends mails to one server.
type SMTP struct {
	Server string // host:port
	Hello  string // our name
}

// Deliver sends one mail. It returns nil when the server has accepted it.
func (s SMTP) Deliver(ctx context.Context, e Envelope, write func(io.Writer) error) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c, err := smtp.NewClient(conn, s.Hello)
	if err != nil {
		return err
	}
	if err := c.Hello(s.Hello); err != nil {
		return err
	}
	if ok, most := c.Extension("SIZE"); ok {
		if n, err := strconv.ParseInt(most, 10, 64); err == nil && n > 0 && e.Size > n {
			return fmt.Errorf("the report has %d octets and the server takes %d; raise its message_size_limit", e.Size, n)
		}
	}
	if err := c.Mail(e.From); err != nil {
		return err
	}
	if err := c.Rcpt(e.To); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if err := write(w); err != nil {
		return err // the connection is closed before the mail is complete
	}
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // the server has already accepted the mail
	return nil
}
