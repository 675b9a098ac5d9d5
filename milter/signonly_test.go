package milter_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// signOptions are the protocol options that a listener asks for that only signs.
const signOptions = 0x1c3380 | 1<<15 // no replies to RCPT

func TestSignOnlyNegotiation(t *testing.T) {
	path, _ := start(t, new(spy), milter.SignOnly)
	if n := wiretest.Dial(t, "unix", path).Negotiate(); n.Protocol != signOptions {
		t.Errorf("negotiated %#x, want %#x", n.Protocol, signOptions)
	}
	for version, offer := range oldOffers {
		n := wiretest.Dial(t, "unix", path).NegotiateWith(offer[0], offer[1], offer[2])
		if n.Protocol&^offer[2] != 0 {
			t.Errorf("version %s: negotiated %#x of %#x", version, n.Protocol, offer[2])
		}
	}
}

// A listener that only signs replies to MAIL and to the end of a message. An answer that
// settled the message between them is the reply to its end.
func TestSignOnlyReplies(t *testing.T) {
	refuse := milter.Answer{Verdict: milter.Reject, Reply: milter.Reply{Text: "no"}}
	accept := milter.Answer{Verdict: milter.Accept}
	early := func(a milter.Answer) *spy {
		return &spy{begin: func(*milter.Session, *milter.Message) (milter.Answer, error) { return a, nil }}
	}
	header := func(a milter.Answer, err error) *spy {
		return &spy{headers: func(context.Context, *milter.Message) (milter.Answer, error) { return a, err }}
	}
	tests := []struct {
		name, mail, reply string
		h                 *spy
		told              []string
	}{
		{"signed", "continue", "accept", new(spy), []string{"headers 1", "finish 4XQUEUEID to=1 body=7", "close"}},
		{"accept at MAIL", "accept", "accept", early(accept), []string{"close"}},
		{"refuse at MAIL", "550 5.7.1 no", "550 5.7.1 no", early(refuse), []string{"close"}},
		{"accept after the header", "continue", "accept", header(accept, nil), []string{"headers 1", "close"}},
		{"refuse after the header", "continue", "550 5.7.1 no", header(refuse, nil), []string{"headers 1", "close"}},
		{"fail after the header", "continue", "accept", header(milter.Answer{}, errBoom), []string{"headers 1", "close"}},
		// No one waits for the reply to a recipient, so it is not asked for.
		{"refuse a recipient", "continue", "accept", &spy{recipient: func(string) (milter.Answer, error) { return refuse, errors.New("asked") }},
			[]string{"headers 1", "finish 4XQUEUEID to=1 body=7", "close"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, books := start(t, tt.h, milter.SignOnly)
			c := open(t, path)
			for range 2 {
				wantReply(t, "MAIL", c.Mail("<a@example.org>"), tt.mail)
				c.Macros('R', "i", "4XQUEUEID")
				wantReply(t, "RCPT", c.Rcpt("<b@example.com>"), "none")
				wantReply(t, "header", c.Header("From", " <a@example.org>"), "none")
				c.Macros('N', "i", "4XQUEUEID")
				wantReply(t, "end of header", c.EndOfHeader(), "none")
				wantReply(t, "body", c.Body("Hello\r\n"), "none")
				c.Macros('E', "i", "4XQUEUEID")
				wantReply(t, "end", c.EndOfMessage(), tt.reply)
				want(t, tt.name, tt.h.take()[1:], tt.told)
				if r := books.next(); r.Action != tt.reply {
					t.Errorf("record %+v", r)
				}
			}
			books.none(t)
			c.Quit()
		})
	}
}

// drained is a connection whose server begins to drain when the channel is closed.
type drained struct {
	net.Conn
	begin chan struct{}
}

func (d drained) Draining() <-chan struct{} { return d.begin }

// While the MTA waits for the final reply, the message is not over, although it was
// settled before: a server that drains still sends the reply.
func TestDrainingWaitsForTheReplyAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &spy{headers: func(context.Context, *milter.Message) (milter.Answer, error) {
			return milter.Answer{Verdict: milter.Accept}, nil
		}}
		near, far := net.Pipe()
		conn := drained{near, make(chan struct{})}
		server := milter.New(milter.Options{DrainTimeout: time.Minute}, milter.Settings{Sign: h})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			server.ServeConn(t.Context(), conn, milter.SignOnly)
		}()
		c := wiretest.New(t, far)
		c.Open(wiretest.Session{Client: client, Helo: "h"})
		c.Mail("<a@example.org>")
		c.Rcpt("<b@example.com>")
		c.Header("From", " <a@example.org>")
		c.EndOfHeader()
		c.Flush()
		synctest.Wait()
		close(conn.begin)
		time.Sleep(time.Hour)
		wantReply(t, "the message", c.EndOfMessage(), "accept")
		<-ended
	})
}
