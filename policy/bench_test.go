package policy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/record"
)

// endlessConn sends one request again and again and accepts every reply.
type endlessConn struct {
	net.Conn
	request string
	left    int
}

func (c *endlessConn) Idle() bool                       { return true }
func (c *endlessConn) Busy() bool                       { return true }
func (c *endlessConn) SetReadDeadline(time.Time) error  { return nil }
func (c *endlessConn) SetWriteDeadline(time.Time) error { return nil }
func (c *endlessConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *endlessConn) Read(b []byte) (int, error) {
	if c.left--; c.left < 0 {
		return 0, io.EOF
	}
	return copy(b, c.request), nil
}

// BenchmarkRequest measures a request without system calls: parsing, an instant
// check, the reply, the record and the counter.
func BenchmarkRequest(b *testing.B) {
	s := newBench(always(Verdict{Kind: Pass, Reason: record.OwnerOwned, Detail: "map=hash:/etc/postfix/owners key=a@b.example"}, nil))
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zapcore.InfoLevel))
	s.Report.Records = record.Sinks{record.Log{Logger: log}, s}
	conn := &endlessConn{request: strings.Replace(full, "policy_context=submission", "policy_context=", 1) + "\n", left: b.N}
	b.ReportAllocs()
	b.ResetTimer()
	s.ServeConn(conn, nil)
}
