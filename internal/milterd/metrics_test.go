package milterd

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/manual/manualtest"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter/sign"
	"github.com/postern-mail/postern/milter/wire/wiretest"
)

// With every role at work and strangers who send what they like, metrics follow the
// conventions, and their number depends on the settings only.
func TestMetricsOfHostileMail(t *testing.T) {
	dir := t.TempDir()
	genkey(t, filepath.Join(dir, "keys"), "home.example", sign.Ed25519)
	showq(t, dir)
	zone := resolvertest.New(t, "_dmarc.away.example. IN TXT \"v=DMARC1; p=quarantine\"\naway.example. IN TXT \"v=spf1 -all\"\n2.0.0.127.zen.example. IN A 127.0.0.2\n")
	d := &running{
		current: newCurrent(),
		Runtime: service.NewRuntime(zap.NewNop(), metrics.New(manualtest.Options(daemonName))),
	}
	d.reload(t, "--dkim-keys="+filepath.Join(dir, "keys"), "--dkim-require-dns", "--resolver="+zone.Addr(), "--dnsbl=zen.example", "--dmarc-enforce=evidence",
		"--dmarc-quarantine=hold", "--queue-directory="+dir, "--authserv-id=mx.example", "--shadow=spf", "--dkim-options-table="+manualtest.Table(t), "--report-store=sqlite:"+filepath.Join(dir, "reports.db"))
	d.traffic = app{}.Start(d.Runtime, d.Current)
	t.Cleanup(d.Close)
	d.Metrics.StoreRequests("greylist")                     // policyd's
	d.Metrics.StoreClockSteps("greylist")                   // likewise
	d.Metrics.StoreLosses("greylist")                       // likewise
	d.Metrics.PrepareErrors("greylist", record.CheckFailed) // likewise
	partOf[*dmarcPart](t, d.now()).held.look(t.Context())
	send := func(round int) {
		for _, text := range manualtest.Hostile() {
			hostile := strings.NewReplacer("\x00", "0", "\n", "n").Replace(fmt.Sprint(text, round))
			sendHostile(t, d, "--listen-verify", hostile)
			sendHostile(t, d, "--listen-sign", hostile)
		}
		_ = sendOver(t, d, "--listen-verify", "From: <a@away.example>\r\nARC-Seal: i=1; cv=none; a=rsa-sha256; d=x.example; s=s; b=AAAA\r\n")
	}
	send(0)
	before := manualtest.Exported(t, d.Metrics)
	for round := range 10 {
		send(round + 1)
	}
	if after := manualtest.Exported(t, d.Metrics); after != before {
		t.Errorf("%d series became %d", before, after)
	}
}

// sendHostile sends a mail in which every text is a stranger's, over an MTA of a
// version that there is not.
func sendHostile(t *testing.T, d *running, flag, text string) {
	t.Helper()
	for _, version := range []uint32{6, 4, 1 << 20} {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.traffic.Handler(t.Context(), &daemon.Conn{Conn: theirs, Socket: daemon.Socket{Flag: flag}})
		}()
		c := wiretest.New(t, ours)
		c.NegotiateWith(version, wiretest.Actions, wiretest.Protocol)
		if version == 6 {
			c.Macros('C', "j", text, "v", text, "{daemon_name}", text)
			c.Packet('C', text+"\x004\x04\xd2192.0.2.9\x00")
			_ = c.Helo(text)
			_ = c.Send(wiretest.Mail{From: text, To: []string{text}, QueueID: text, Message: "From: " + text + "\r\n" + "ARC-Seal: " + text + "\r\n" + "DKIM-Signature: " + text + "\r\n\r\nbody\r\n"})
		}
		_ = ours.Close()
		<-done
	}
}

// showq answers once about the queues below dir.
func showq(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "public"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "public/showq"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			_, _ = io.WriteString(conn, showqAnswer)
			conn.Close()
		}
	}()
}

// Tables of From owners, of exemptions and of keys have a series each.
func TestTablesHaveAMetric(t *testing.T) {
	const server = "socketmap:inet:127.0.0.1:7:"
	c, m := newCurrent(), metrics.New(manualtest.Options(daemonName))
	defer c.Close()
	c.register(m)
	s, err := loadInto(c, service.NewRuntime(zap.NewNop(), m), "--from-ownership=shadow", "--owners="+server+"owners", "--from-exempt="+server+"exempt",
		"--dkim-keys=", "--dkim-key-table="+server+"keys", "--dkim-signing-table="+server+"senders", "--dkim-options-table="+server+"options")
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(s.state, s.life)
	want := "# HELP postern_table_up 1 while the servers of a table (mysql, pgsql, ldap, sqlite or socketmap) answer, 0 while its breaker is open.\n# TYPE postern_table_up gauge\n"
	for _, name := range []string{"exempt", "keys", "options", "owners", "senders"} {
		want += "postern_table_up{table=\"" + server + name + "\"} 1\n"
	}
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), "postern_table_up"); err != nil {
		t.Error(err)
	}
}
