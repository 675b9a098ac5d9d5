package milterd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/dmarcreport"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/milter/sign"
)

// askReports calls a command as the admin socket does.
func askReports(t *testing.T, d *running, name string, args any, progress func(any)) (any, error) {
	t.Helper()
	raw, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	if progress == nil {
		progress = func(any) {}
	}
	return reportCommands(d.current)[name](t.Context(), raw, progress)
}

// TestReportCommands shows the way of a report from the mail that is counted to one
// that a server has, with a signature that verifies.
func TestReportCommands(t *testing.T) {
	dir := t.TempDir()
	keys := genkey(t, filepath.Join(dir, "keys"), "home.example", sign.RSA)
	zone := resolvertest.New(t, "_dmarc.away.example. IN TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@away.example,https://away.example\"\n")
	server := smtpServer(t)
	d, _, _ := start(t, "--resolver="+zone.Addr(), "--dkim-keys="+filepath.Join(dir, "keys"), "--report-store=sqlite:"+filepath.Join(dir, "reports.db"),
		"--report-from=reports@home.example", "--report-smtp=inet:"+server.addr)
	_ = sendOver(t, d, "--listen-verify", "From: <a@away.example>\r\n")
	var shown *api.DMARCReport
	var file bytes.Buffer
	done, err := askReports(t, d, api.DMARCReportPreview, api.DMARCReportArgs{}, func(v any) {
		piece := v.(api.DMARCReportFile)
		if piece.Report != nil {
			shown = piece.Report
		}
		file.Write(piece.Data)
	})
	if err != nil || done.(api.DMARCReportDone).Reports != 1 || shown.State != "open" || shown.Messages != 1 || len(shown.Deliveries) != 1 || len(shown.Refused) != 1 {
		t.Fatalf("%+v, %v, %+v", done, err, shown)
	}
	z, err := gzip.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(z); err != nil || !strings.Contains(string(text), "<source_ip>192.0.2.1</source_ip>") {
		t.Errorf("%s, %v", text, err)
	}
	tomorrow := time.Now().Add(25 * time.Hour)
	partOf[*reportPart](t, d.now()).sender.Now = func() time.Time { return tomorrow }
	var events []api.DMARCReportEvent
	if _, err := askReports(t, d, api.DMARCReportSend, api.DMARCReportArgs{Domain: "AWAY.example"}, func(v any) { events = append(events, v.(api.DMARCReportEvent)) }); err != nil || len(events) != 1 || events[0].State != dmarcreport.Sent {
		t.Fatalf("%+v, %v", events, err)
	}
	mail := <-server.mails
	_, from, _ := strings.Cut(mail, "MAIL FROM:<")
	from, _, _ = strings.Cut(from, ">")
	token := dmarcreport.TokenOf(from)
	if token == "" || !strings.Contains(mail, "RCPT TO:<dmarc@away.example>") {
		t.Error(mail)
	}
	_, message, _ := strings.Cut(mail, "DATA\r\n")
	verifies(t, keys, strings.TrimSuffix(message, ".\r\n"))
	if _, err := askReports(t, d, api.DMARCReportBounce, api.DMARCReportBounceArgs{Token: token, Failed: true, Why: "5.1.1"}, nil); err != nil {
		t.Error(err)
	}
	list, err := askReports(t, d, api.DMARCReportList, api.DMARCReportArgs{}, func(v any) { shown = v.(*api.DMARCReport) })
	if err != nil || len(list.(api.DMARCReportListResult).Dead) != 1 || len(shown.Deliveries) != 1 || shown.Deliveries[0].State != dmarcreport.Bounced {
		t.Errorf("%+v, %v, %+v", list, err, shown)
	}
}

// TestReportCommandsRefuse shows what cannot be done, and that the error says why.
func TestReportCommandsRefuse(t *testing.T) {
	d, _, _ := start(t)
	if _, err := askReports(t, d, api.DMARCReportList, api.DMARCReportArgs{}, nil); err == nil || !strings.Contains(err.Error(), "report-store") {
		t.Error(err)
	}
	store := "--report-store=sqlite:" + filepath.Join(t.TempDir(), "reports.db")
	d.reload(t, store)
	if _, err := askReports(t, d, api.DMARCReportSend, api.DMARCReportArgs{}, nil); err == nil || !strings.Contains(err.Error(), "report-from") {
		t.Error(err)
	}
	d.reload(t, store, "--report-from=reports@home.example")
	if _, err := askReports(t, d, api.DMARCReportSend, api.DMARCReportArgs{}, nil); err == nil || !strings.Contains(err.Error(), "postern dkim genkey home.example") {
		t.Error(err)
	}
	if _, err := askReports(t, d, api.DMARCReportList, api.DMARCReportArgs{Day: "yesterday"}, nil); err == nil || !strings.Contains(err.Error(), "2026-11-25") {
		t.Error(err)
	}
}

// Whether a report can be signed is judged as for the mail that it is: by the tables that are
// asked for each mail, and by the keys of parent domains.
func TestReportKeys(t *testing.T) {
	dir := t.TempDir()
	path := genkey(t, filepath.Join(dir, "keys"), "home.example", sign.RSA)[0].Key.Path
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	folder := []string{"--dkim-keys=" + filepath.Join(dir, "keys")}
	lookup := []string{"--dkim-key-table=texthash:" + write("lookup", "home.example home.example:postern:"+path+"\n")}
	openDKIM := func(author string) []string {
		return []string{"--dkim-key-table=" + write("KeyTable", "k home.example:postern:"+path+"\n"), "--dkim-signing-table=refile:" + write(author, author+" k\n")}
	}
	for _, c := range []struct {
		name  string
		flags []string
		from  string
		want  string // in the reason why nothing is sent
	}{
		{"a folder", folder, "reports@home.example", ""},
		{"a parent", folder, "reports@sub.home.example", "no DKIM key for sub.home.example"},
		{"a parent that signs", append(folder, "--dkim-subdomains"), "reports@sub.home.example", ""},
		{"a lookup table", lookup, "reports@home.example", ""},
		{"another domain in it", lookup, "reports@away.example", "no DKIM key for away.example"},
		{"a signing table", openDKIM("*@home.example"), "reports@home.example", ""},
		{"a line for another sender", openDKIM("news@home.example"), "reports@home.example", "no DKIM key for home.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, _ := start(t, append(slices.Clip(c.flags), "--report-store=sqlite:"+filepath.Join(t.TempDir(), "reports.db"), "--report-from="+c.from)...)
			list, err := askReports(t, d, api.DMARCReportList, api.DMARCReportArgs{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			missing := strings.Join(list.(api.DMARCReportListResult).Missing, "; ")
			if c.want == "" && missing != "" || !strings.Contains(missing, c.want) {
				t.Errorf("missing: %q, want %q", missing, c.want)
			}
		})
	}
}

// server is an SMTP server that takes one mail at a time.
type server struct {
	addr  string
	mails chan string // what the client has said
}

func smtpServer(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{l.Addr().String(), make(chan string, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mails <- talk(conn)
		}
	}()
	return s
}

// talk returns what a client says up to the end of its mail.
func talk(conn net.Conn) (said string) {
	defer conn.Close()
	in, data := bufio.NewReader(conn), false
	reply := "220 test"
	for {
		if reply != "" {
			_, _ = io.WriteString(conn, reply+"\r\n")
		}
		line, err := in.ReadString('\n')
		if err != nil {
			return said
		}
		said += line
		reply = "250 ok"
		switch {
		case data && line == ".\r\n":
			data = false
			_, _ = io.WriteString(conn, "250 ok\r\n")
			return said
		case data:
			reply = ""
		case strings.HasPrefix(line, "DATA"):
			data, reply = true, "354 go on"
		}
	}
}

// verifies fails the test unless a mail has a signature of one of the keys.
func verifies(t *testing.T, keys []sign.NewKey, message string) {
	t.Helper()
	verifications, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{LookupTXT: func(string) ([]string, error) {
		text, err := keys[0].Key.Record()
		return []string{text}, err
	}})
	if err != nil || len(verifications) != 1 || verifications[0].Err != nil || verifications[0].Domain != "home.example" {
		t.Errorf("%+v, %v", verifications, err)
	}
}
