package milter_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/postern-mail/postern/milter"
	"github.com/postern-mail/postern/milter/mark"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

const largeBody = 1 << 20

// largeBodies are bodies of a mebibyte as mails have them.
func largeBodies() map[string]string {
	return map[string]string{
		"text":   strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", largeBody/70),
		"base64": strings.Repeat(strings.Repeat("QUJD", 19)+"\r\n", largeBody/78),
	}
}

// BenchmarkSignLarge signs a mail of a mebibyte with Ed25519, whose own cost is
// small. The CPU time is that of the server and the client.
func BenchmarkSignLarge(b *testing.B) {
	for name, body := range largeBodies() {
		b.Run(name, func(b *testing.B) { benchLarge(b, body) })
		b.Run(name+"-null", func(b *testing.B) { benchLargeWith(b, nullHandler{}, body) })
		b.Run(name+"-sha256", func(b *testing.B) {
			data := []byte(body)
			before := cpuTime(b)
			for b.Loop() {
				sha256.Sum256(data)
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/mail")
		})
	}
}

func benchLarge(b *testing.B, body string) {
	dir := b.TempDir()
	if _, err := sign.Generate(sign.NewKeys{Dir: dir, Domain: "home.example", Type: sign.Ed25519}); err != nil {
		b.Fatal(err)
	}
	keys, err := sign.LoadKeys(sign.KeySource{Dir: dir, Group: -1})
	if err != nil {
		b.Fatal(err)
	}
	benchLargeWith(b, milter.NewSigning(sign.New(sign.Options{}, keys), mark.Random(), nil), body)
}

func benchLargeWith(b *testing.B, h milter.Handler, body string) {
	server := milter.New(milter.Options{}, milter.Settings{Sign: h})
	path := wiretest.Listen(b, func(ctx context.Context, conn net.Conn) { server.ServeConn(ctx, conn, milter.SignOnly) })
	conn, err := net.Dial("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	c := wiretest.New(b, conn)
	c.Open(wiretest.Session{Client: client, Helo: "client.example"})
	c.Flush()
	var mail strings.Builder
	id := "i\x004XQUEUEID\x00"
	frame := func(c byte, payload string) { mail.Write(wiretest.Frame(c, payload)) }
	frame('D', "M{auth_type}\x00\x00")
	frame('M', "<a@home.example>\x00SIZE=10000\x00")
	frame('D', "R"+id)
	frame('R', "<b@example.com>\x00")
	frame('L', "From\x00 a@home.example\x00")
	frame('D', "N"+id)
	frame('N', "")
	const chunk = 65535
	for rest := body; len(rest) > 0; {
		n := min(len(rest), chunk)
		frame('B', rest[:n])
		rest = rest[n:]
	}
	frame('D', "E"+id)
	frame('E', "")
	sent, buf := []byte(mail.String()), make([]byte, 4096)
	before := cpuTime(b)
	for b.Loop() {
		if _, err := conn.Write(sent); err != nil {
			b.Fatal(err)
		}
		for code := byte(0); code != 'a'; code = buf[0] {
			if _, err := io.ReadFull(conn, buf[:4]); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(conn, buf[:binary.BigEndian.Uint32(buf)]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/mail")
	_ = conn.Close()
}
