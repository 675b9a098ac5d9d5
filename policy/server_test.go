package policy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy/wire"
)

// bench is a server with one scripted check, whose records are kept.
type bench struct {
	Server
	check    funcCheck
	mu       sync.Mutex
	lines    strings.Builder
	counted  map[string]int
	inFlight atomic.Int64
	released atomic.Int64
}

type funcCheck func(ctx context.Context, r *Request) (Verdict, error)

func (funcCheck) Name() string { return "scripted" }

func (f funcCheck) Check(ctx context.Context, r *Request, _ Signals) (Verdict, error) {
	return f(ctx, r)
}

func newBench(check funcCheck) *bench {
	b := &bench{check: check, counted: map[string]int{}}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg", LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder}), b, zapcore.InfoLevel)
	b.Server = Server{Hooks: b, Report: Reporter{Records: record.Sinks{record.Log{Logger: zap.New(core)}, b}, Load: b}}
	return b
}

func (b *bench) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines.Write(p)
}
func (b *bench) Sync() error { return nil }

func (b *bench) RequestStarted() { b.inFlight.Add(1) }
func (b *bench) RequestDone()    { b.inFlight.Add(-1) }
func (b *bench) Record(r *record.Record, _ time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counted[fmt.Sprint(r.Check, " ", r.Verdict, " ", r.Reason, " ", r.Mode)]++
}

func (b *bench) Hook(context string, bound []string) (Hook, error) {
	chain := NewRouter(Chain{{Check: b.check, OnError: ErrorDefer}}, RouterOptions{}).Chain(context, bound)
	return Hook{Chain: chain, Deadline: 8 * time.Second, Release: func() { b.released.Add(1) }}, nil
}

func (b *bench) records(t *testing.T) []map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []map[string]any
	for line := range strings.Lines(b.lines.String()) {
		rec := map[string]any{}
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		out = append(out, rec)
	}
	return out
}

// alone is a connection that is never drained.
type alone struct{ net.Conn }

func (alone) Idle() bool { return true }
func (alone) Busy() bool { return true }

// dial serves one end of a pipe and returns the other. ended is closed when the
// server returns.
func (b *bench) dial(t *testing.T, bound ...string) (client net.Conn, ended chan struct{}) {
	t.Helper()
	client, server := net.Pipe()
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		defer server.Close()
		b.ServeConn(alone{server}, bound)
	}()
	t.Cleanup(func() { client.Close(); <-ended })
	return client, ended
}

func ask(t *testing.T, client net.Conn, request string) string {
	t.Helper()
	if _, err := io.WriteString(client, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(client)
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if end, err := r.ReadString('\n'); end != "\n" {
		t.Fatalf("reply ends in %q, %v", end, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func always(v Verdict, err error) funcCheck {
	return func(context.Context, *Request) (Verdict, error) { return v, err }
}

func TestServeManyRequests(t *testing.T) {
	b := newBench(func(_ context.Context, r *Request) (Verdict, error) {
		if r.Login == "you" {
			return Verdict{Kind: Reject, Reason: record.OwnerNotOwned, Code: CodeSenderPolicy, Text: "not owned by user you"}, nil
		}
		return Verdict{Kind: Pass, Reason: record.OwnerOwned}, nil
	})
	client, ended := b.dial(t, "scripted")
	passing := strings.Replace(full, "policy_context=submission", "policy_context=", 1)
	rejected := ask(t, client, passing+"\n")
	if rejected != "action=553 5.7.1 not owned by user you" {
		t.Errorf("got %q", rejected)
	}
	if got := ask(t, client, strings.Replace(passing, "sasl_username=you", "sasl_username=me", 1)+"\n"); got != "action=DUNNO" {
		t.Errorf("got %q", got)
	}
	if got := ask(t, client, full+"\n"); got != "action=DUNNO" { // policy_context=submission is no check
		t.Errorf("got %q", got)
	}
	client.Close()
	<-ended
	recs := b.records(t)
	if len(recs) != 3 {
		t.Fatalf("%d records", len(recs))
	}
	want := map[string]any{
		"level": "info", "msg": "decision", "daemon": "policyd", "check": "scripted", "verdict": "reject", "reason": "not_owned",
		"action": "553 5.7.1 not owned by user you", "mode": "enforce", "instance": "123.456.7", "client_address": "2001:db8::25",
		"client_port": "1234", "client_name": "mx.example.net", "helo": "mx.example.net", "sender": "Jürgen+news@bücher.example",
		"recipient": "bar@Example.ORG", "sasl_username": "you",
	}
	for key, value := range want {
		if recs[0][key] != value {
			t.Errorf("%s: %v, want %v", key, recs[0][key], value)
		}
	}
	if _, ok := recs[0]["duration_ms"]; !ok || len(recs[0]["steps"].([]any)) != 1 {
		t.Errorf("record %v", recs[0])
	}
	if recs[2]["level"] != "warn" || recs[2]["reason"] != "unknown_policy_context" || !strings.Contains(recs[2]["error"].(string), `"submission"`) {
		t.Errorf("an unknown context is recorded as %v", recs[2])
	}
	if b.counted["scripted reject not_owned enforce"] != 1 || b.counted["scripted pass owned enforce"] != 1 || len(b.counted) != 3 {
		t.Errorf("counted %v", b.counted)
	}
	if b.released.Load() != 3 || b.inFlight.Load() != 0 {
		t.Errorf("%d hooks released, %d requests in flight", b.released.Load(), b.inFlight.Load())
	}
}

// A broken request gets no reply, one record and a closed connection. Other
// connections are not affected.
func TestServeBroken(t *testing.T) {
	tests := map[string]struct{ in, problem string }{
		"junk":            {"hello\n\n", "not name=value"},
		"unknown type":    {"request=junk\n\n", "unknown request type"},
		"no request":      {"sender=x\n\n", "no request attribute"},
		"duplicate":       {"request=smtpd_access_policy\nsender=a\nsender=b\n\n", "sent twice"},
		"10,000 of them":  {"request=smtpd_access_policy\n" + strings.Repeat("a=b\n", 10000) + "\n", "more than"},
		"long line":       {"a=" + strings.Repeat("x", 1<<20), "request longer"},
		"CR LF":           {"request=smtpd_access_policy\r\n\r\n\n", "LF"},
		"without an end":  {"request=smtpd_access_policy\n", "closed within a request"},
		"empty":           {"\n", "empty request"},
		"size is no size": {"request=smtpd_access_policy\nsize=x\n\n", "not a number"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(always(Verdict{Kind: Pass}, nil))
			bystander, _ := b.dial(t)
			client, ended := b.dial(t)
			var reply []byte
			done := make(chan struct{})
			go func() {
				defer close(done)
				reply, _ = io.ReadAll(client)
			}()
			io.WriteString(client, tt.in) // fails when the server hangs up early
			if strings.HasSuffix(tt.in, "policy\n") {
				client.Close()
			}
			<-ended
			<-done
			recs := b.records(t)
			if len(reply) != 0 || len(recs) != 1 {
				t.Fatalf("reply %q, records %v", reply, recs)
			}
			if recs[0]["reason"] != "bad_request" || recs[0]["level"] != "warn" || !strings.Contains(recs[0]["error"].(string), tt.problem) {
				t.Errorf("record %v", recs[0])
			}
			if got := ask(t, bystander, "request=smtpd_access_policy\n\n"); got != "action=DUNNO" {
				t.Errorf("another client got %q", got)
			}
		})
	}
}

// Values that Postfix may pass on from the network are data.
func TestServeOddValues(t *testing.T) {
	b := newBench(always(Verdict{Kind: Reject, Reason: record.OwnerNotOwned, Text: "not owned by user \xff\r\nx"}, nil))
	client, ended := b.dial(t)
	for i, value := range []string{"unknown", "a\rb", "a\x00b", "\xff\xfe", strings.Repeat("x", 9000), ""} {
		for j, name := range []string{"client_address", "sender", "helo_name", "sasl_username", "unheard_of"} {
			if got := ask(t, client, "request=smtpd_access_policy\nprotocol_state=RCPT\n"+name+"="+value+"\n\n"); got != "action=550 5.7.1 not owned by user ???x" {
				t.Errorf("%d/%d: %q", i, j, got)
			}
		}
	}
	client.Close()
	<-ended
	if n := len(b.records(t)); n != 30 {
		t.Errorf("%d records", n)
	}
}

func TestServeNullSenderRecord(t *testing.T) {
	b := newBench(always(Verdict{Kind: Pass}, nil))
	client, ended := b.dial(t)
	ask(t, client, "request=smtpd_access_policy\nprotocol_state=RCPT\nsender=\n\n")
	ask(t, client, "request=smtpd_access_policy\nprotocol_state=CONNECT\nsender=\n\n")
	client.Close()
	<-ended
	recs := b.records(t)
	if _, there := recs[1]["sender"]; recs[0]["sender"] != "<>" || there {
		t.Errorf("records %v", recs)
	}
}

// A request that no check can judge passes, but its record is a warning.
func TestServeUnknownState(t *testing.T) {
	b := newBench(always(Verdict{Reason: record.NotApplicable}, nil))
	client, ended := b.dial(t)
	for _, state := range []string{"", "protocol_state=rcpt\n", "protocol_state=FUTURE\n", "protocol_state=CONNECT\n"} {
		if got := ask(t, client, "request=smtpd_access_policy\n"+state+"sasl_username=bob\n\n"); got != "action=DUNNO" {
			t.Errorf("%q: %q", state, got)
		}
	}
	client.Close()
	<-ended
	for i, want := range []string{"unknown_protocol_state warn", "unknown_protocol_state warn", "unknown_protocol_state warn", "not_applicable info"} {
		if rec := b.records(t)[i]; fmt.Sprint(rec["reason"], " ", rec["level"]) != want {
			t.Errorf("%d: %v, want %s", i, rec, want)
		}
	}
}

func TestServeError(t *testing.T) {
	b := newBench(always(Verdict{}, errors.New("password rejected by db.internal")))
	client, ended := b.dial(t)
	if got := ask(t, client, "request=smtpd_access_policy\n\n"); got != "action=451 4.3.0 Temporary lookup failure" {
		t.Errorf("got %q", got)
	}
	client.Close()
	<-ended
	if rec := b.records(t)[0]; rec["error"] != "scripted: password rejected by db.internal" || rec["level"] != "warn" {
		t.Errorf("record %v", rec)
	}
}

func TestServePanic(t *testing.T) {
	b := newBench(func(context.Context, *Request) (Verdict, error) { panic("a defect") })
	client, ended := b.dial(t)
	io.WriteString(client, "request=smtpd_access_policy\n\n")
	if reply, _ := io.ReadAll(client); len(reply) != 0 {
		t.Errorf("reply %q", reply)
	}
	<-ended
	rec := b.records(t)[0]
	if rec["reason"] != "panicked" || !strings.Contains(rec["error"].(string), "a defect") {
		t.Errorf("record %v", rec)
	}
	if b.released.Load() != 1 || b.inFlight.Load() != 0 {
		t.Error("the hook was not released")
	}
}

func TestServeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(func(ctx context.Context, _ *Request) (Verdict, error) {
			<-ctx.Done()
			return Verdict{}, ctx.Err()
		})
		client, _ := b.dial(t)
		start := time.Now()
		got := ask(t, client, "request=smtpd_access_policy\n\n")
		if took := time.Since(start); got != "action=451 4.3.0 Temporary lookup failure" || took != 8*time.Second {
			t.Errorf("%q after %s", got, took)
		}
		client.Close()
		synctest.Wait()
	})
}

// A client that sends an octet a second is disconnected in time and blocks no
// other.
func TestServeSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(always(Verdict{Kind: Pass}, nil))
		slow, ended := b.dial(t)
		quick, _ := b.dial(t)
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() {
			for {
				if _, err := slow.Write([]byte("a")); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		for range 20 {
			time.Sleep(time.Second)
			if got := ask(t, quick, "request=smtpd_access_policy\n\n"); got != "action=DUNNO" {
				t.Errorf("got %q", got)
			}
		}
		start := time.Now()
		<-ended
		if took := 20*time.Second + time.Since(start); took != wire.RequestTimeout {
			t.Errorf("closed after %s", took)
		}
		quick.Close()
		synctest.Wait()
	})
}

// leaving is a connection whose owner wants to close it.
type leaving struct {
	net.Conn
	idle, busy bool
}

func (l leaving) Idle() bool { return l.idle }
func (l leaving) Busy() bool { return l.busy }

func TestServeDraining(t *testing.T) {
	for _, l := range []leaving{{idle: false, busy: true}, {idle: true, busy: false}} {
		b := newBench(always(Verdict{Kind: Pass}, nil))
		client, server := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer server.Close()
			l.Conn = server
			b.ServeConn(l, nil)
		}()
		io.WriteString(client, "request=smtpd_access_policy\n\n")
		<-ended
		if recs := b.records(t); len(recs) != 0 {
			t.Errorf("records %v", recs)
		}
	}
}
