package policyd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/logging"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy"
)

// endlessConn sends requests of many senders and takes every reply.
type endlessConn struct {
	net.Conn
	requests [][]byte
	left     int
	mail     int // numbers the transactions
}

func (*endlessConn) Idle() bool                       { return true }
func (*endlessConn) Busy() bool                       { return true }
func (*endlessConn) SetReadDeadline(time.Time) error  { return nil }
func (*endlessConn) SetWriteDeadline(time.Time) error { return nil }
func (*endlessConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *endlessConn) Read(b []byte) (int, error) {
	if c.left--; c.left < 0 {
		return 0, io.EOF
	}
	n := copy(b, c.requests[c.left%len(c.requests)])
	at := bytes.Index(b[:n], instanceMark)
	if at < 0 {
		return n, nil
	}
	at += len(instanceMark)
	c.mail++ // each request is one of another mail
	for i, left := at+instanceDigits-1, c.mail; i >= at; i, left = i-1, left/10 {
		b[i] = byte('0' + left%10)
	}
	return n, nil
}

// instanceMark is what the number of a request's transaction is behind.
var instanceMark = []byte("\ninstance=7b.")

const instanceDigits = 9

// BenchmarkOwnership is a decision of the daemon as it runs, with its record
// and its count, but without the system calls of the connection.
func BenchmarkOwnership(b *testing.B) { benchmarkDecision(b, "--checks=ownership") }

// BenchmarkLimits is the same with two limits of a login, in a SQLite store.
func BenchmarkLimits(b *testing.B) {
	benchmarkDecision(b, "--checks=ownership,limit", "--limit=login=1G/1h", "--limit=login=2G/1d", "--limit-store=sqlite:"+filepath.Join(b.TempDir(), "limits.db"))
}

func benchmarkDecision(b *testing.B, flags ...string) {
	const senders = 10_000
	table, err := os.Create(filepath.Join(b.TempDir(), "owners"))
	if err != nil {
		b.Fatal(err)
	}
	conn := &endlessConn{left: b.N}
	for i := range senders {
		fmt.Fprintf(table, "sender%d@d%d.example login%d@d%d.example\n", i, i%997, i/3, i%997)
		conn.requests = append(conn.requests, fmt.Appendf(nil, "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"+
			"client_address=192.0.2.7\nclient_name=unknown\nclient_port=39284\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=587\n"+
			"helo_name=client.example\nsender=sender%d@d%d.example\nrecipient=rcpt@example.org\nrecipient_count=0\nqueue_id=\ninstance=7b.%09d\nsize=2048\n"+
			"etrn_domain=\nstress=\nsasl_method=PLAIN\nsasl_username=login%d@d%d.example\nsasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\n"+
			"ccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n",
			i, i%997, i, i/3, i%997))
	}
	if err := table.Close(); err != nil {
		b.Fatal(err)
	}
	log, err := logging.Open(logging.Options{Path: filepath.Join(b.TempDir(), "log"), Batch: 10 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	r := service.NewRuntime(log.Logger(), metrics.New(metrics.Options{}))
	c := newCurrent()
	s, err := loadInto(c, r, append([]string{"--config=", "--owners=hash:" + table.Name()}, flags...), nil)
	if err != nil {
		b.Fatal(err)
	}
	s.apply(c)
	server := &policy.Server{Hooks: c, Report: policy.Reporter{Records: r.Records, Load: r.Metrics}}
	b.ReportAllocs()
	b.ResetTimer()
	server.ServeConn(conn, nil)
}
