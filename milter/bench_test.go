package milter_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// nullHandler inserts one field into every message and does nothing else, so that the
// benchmark measures the protocol.
type nullHandler struct{}

func (nullHandler) Begin(context.Context, *milter.Session, *milter.Message) (milter.Work, milter.Answer, error) {
	return nullHandler{}, milter.Answer{}, nil
}
func (nullHandler) Headers(context.Context) (milter.Answer, error) { return milter.Answer{}, nil }
func (nullHandler) Body([]byte) error                              { return nil }
func (nullHandler) Close()                                         {}
func (nullHandler) Finish(context.Context) (milter.Decision, error) {
	return milter.Decision{Insert: []milter.Insertion{{Name: "X-Null", Value: "seen"}}}, nil
}

// exchange is what the MTA sends up to a reply, and that reply.
type exchange struct{ send, reply string }

// benchMail is a mail of 10 KB with 25 header fields as Postfix sends it, macros
// before every field included.
func benchMail() []exchange {
	frame := func(c byte, payload string) string { return string(wiretest.Frame(c, payload)) }
	const proceed = "\x00\x00\x00\x01c"
	id := "i\x004XQUEUEID\x00"
	var header strings.Builder
	for i := range 25 {
		header.WriteString(frame('D', "L"+id))
		header.WriteString(frame('L', fmt.Sprintf("X-Field-%d\x00 a value of quite usual length, not too short\x00", i)))
	}
	body := strings.Repeat("a line of the body that is as long as lines are\r\n", 200)
	inserted := string(wiretest.Frame('i', "\x00\x00\x00\x00X-Null\x00 seen\x00"))
	return []exchange{
		{frame('D', "M{auth_type}\x00\x00") + frame('M', "<a@example.org>\x00SIZE=10000\x00"), proceed},
		{frame('D', "R"+id) + frame('R', "<b@example.com>\x00"), proceed},
		{header.String() + frame('D', "N"+id) + frame('N', ""), proceed},
		{frame('D', "B"+id) + frame('B', body) + frame('D', "E"+id) + frame('E', ""), inserted + "\x00\x00\x00\x01a"},
	}
}

// BenchmarkNullHandler sends mails over 16 connections of a unix socket. The CPU
// time is that of the whole process, the client's part included.
func BenchmarkNullHandler(b *testing.B) {
	server := milter.New(milter.Options{}, milter.Settings{Verify: nullHandler{}})
	path := wiretest.Listen(b, func(ctx context.Context, conn net.Conn) { server.ServeConn(ctx, conn, milter.VerifyOnly) })
	mail := benchMail()
	b.ReportAllocs()
	before := cpuTime(b)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			b.Error(err)
			return
		}
		c := wiretest.New(b, conn)
		c.Open(wiretest.Session{Client: client, Helo: "client.example"})
		buf := make([]byte, 256)
		c.Flush()
		for pb.Next() {
			if err := converse(conn, mail, buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/mail")
}

func converse(conn net.Conn, mail []exchange, buf []byte) error {
	for _, e := range mail {
		if _, err := io.WriteString(conn, e.send); err != nil {
			return err
		}
		got := buf[:len(e.reply)]
		if _, err := io.ReadFull(conn, got); err != nil {
			return err
		}
		if string(got) != e.reply {
			return fmt.Errorf("reply %q, want %q", got, e.reply)
		}
	}
	return nil
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
