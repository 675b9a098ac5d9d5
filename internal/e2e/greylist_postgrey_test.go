package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/greylist/memstore"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/store/redistest/tied"
	"github.com/postern-mail/postern/policy"
	"github.com/postern-mail/postern/policy/checks"
)

// step is one request to both greylisters. words are the first word of the
// action of each; they differ only with a reason.
type step struct {
	after             time.Duration // since the beginning of the sequence
	client            string
	name              string
	sender, recipient string
	instance          string
	postgrey, ours    string
	why               string // they differ
}

const (
	wait   = "DEFER_IF_PERMIT"
	header = "PREPEND"
	take   = "DUNNO"
)

// sequences are asked of postgrey and of our check with postgrey's settings
// (delay 300 s, keys of networks). Each has senders of its own.
var sequences = map[string][]step{
	"delay, pass with header, known": {
		{0, "192.0.2.1", "unknown", "a@one.example", "bob@home.example", "1", wait, wait, ""},
		{299 * time.Second, "192.0.2.1", "unknown", "a@one.example", "bob@home.example", "2", wait, wait, ""},
		{300 * time.Second, "192.0.2.99", "unknown", "a@one.example", "bob@home.example", "3", header, header, ""},
		{301 * time.Second, "192.0.2.1", "unknown", "a@one.example", "bob@home.example", "4", take, take, ""},
	},
	"header once a message": {
		{0, "192.0.3.1", "unknown", "b@one.example", "x@home.example", "5", wait, wait, ""},
		{0, "192.0.3.1", "unknown", "b@one.example", "y@home.example", "5", wait, wait, ""},
		{400 * time.Second, "192.0.3.1", "unknown", "b@one.example", "x@home.example", "6", header, header, ""},
		{400 * time.Second, "192.0.3.1", "unknown", "b@one.example", "y@home.example", "6", take, take, ""},
	},
	"retry window": {
		{0, "192.0.4.1", "unknown", "c@one.example", "bob@home.example", "7", wait, wait, ""},
		{49 * time.Hour, "192.0.4.1", "unknown", "c@one.example", "bob@home.example", "8", wait, wait, ""},
		{49*time.Hour + 300*time.Second, "192.0.4.1", "unknown", "c@one.example", "bob@home.example", "9", header, header, ""},
	},
	"another network": {
		{0, "192.0.5.1", "unknown", "d@one.example", "bob@home.example", "10", wait, wait, ""},
		{400 * time.Second, "192.0.6.1", "unknown", "d@one.example", "bob@home.example", "11", wait, wait, ""},
	},
	"numbers and extensions": {
		{0, "192.0.7.1", "unknown", "e+1@one.example", "bob@home.example", "12", wait, wait, ""},
		{400 * time.Second, "192.0.7.1", "unknown", "e+2@one.example", "bob@home.example", "13", header, header, ""},
		{0, "192.0.7.1", "unknown", "f-1@one.example", "bob@home.example", "14", wait, wait, ""},
		{400 * time.Second, "192.0.7.1", "unknown", "f-2@one.example", "bob@home.example", "15", header, header, ""},
	},
	"null sender": {
		{0, "192.0.8.1", "unknown", "", "bob@home.example", "16", wait, wait, ""},
		{400 * time.Second, "192.0.8.1", "unknown", "", "bob@home.example", "17", header, header, ""},
	},
	"identifiers": {
		{0, "192.0.9.1", "unknown", "0100018f2a3b4c5d-aa@ses.example", "bob@home.example", "18", wait, wait, ""},
		{400 * time.Second, "192.0.9.1", "unknown", "0100018f99999999-aa@ses.example", "bob@home.example", "19", wait, header,
			"postgrey masks decimal numbers only: Amazon's senders wait with every mail"},
	},
	"forwarded": {
		{0, "192.0.10.1", "unknown", "SRS0=aB1c=T4=one.example=g@fwd.example", "bob@home.example", "20", wait, wait, ""},
		{400 * time.Second, "192.0.10.1", "unknown", "SRS0=Zz9y=T5=one.example=g@fwd.example", "bob@home.example", "21", wait, header,
			"postgrey keeps the hash and the day of SRS: forwarded mail waits every day"},
	},
	"allowed clients": {
		{0, "198.51.100.1", "mail.listed.example", "h@one.example", "bob@home.example", "22", take, take, ""},
		{0, "100.64.200.1", "unknown", "h@one.example", "bob@home.example", "24", wait, take,
			"postgrey takes a network of two octets for a /24"},
	},
	"private addresses": {
		{0, "10.9.8.7", "unknown", "i@one.example", "bob@home.example", "25", wait, take,
			"no stranger has a private address: ours never delays one"},
	},
	"duty mailboxes": {
		{0, "192.0.11.1", "unknown", "j@one.example", "abuse@home.example", "26", take, take, ""},
		{0, "192.0.11.1", "unknown", "j@one.example", "postmaster@home.example", "27", take, take, ""},
		{0, "192.0.11.1", "unknown", "j@one.example", "vip+x@home.example", "28", take, take, ""},
	},
	"clock set back": {
		{time.Hour, "192.0.12.1", "unknown", "k@one.example", "bob@home.example", "29", wait, wait, ""},
		{0, "192.0.12.1", "unknown", "k@one.example", "bob@home.example", "30", wait, wait, ""},
		{300 * time.Second, "192.0.12.1", "unknown", "k@one.example", "bob@home.example", "31", header, header, ""},
	},
}

const (
	listedClients    = "listed.example\n100.64\n"
	listedRecipients = "abuse@\npostmaster@\nvip@home.example\n"
)

// TestAsPostgrey asks both the same, under the same fake time.
func TestAsPostgrey(t *testing.T) {
	t.Parallel()
	clients, recipients := listFile(t, listedClients), listFile(t, listedRecipients)
	reference := startPostgrey(t, clients, recipients)
	start := time.Date(2026, 2, 3, 12, 0, 0, 0, time.UTC)
	for name, steps := range sequences {
		t.Run(name, func(t *testing.T) {
			ours := postgreysCheck(t, clients, recipients)
			for i, s := range steps {
				now := start.Add(s.after)
				if got := reference.ask(t, s, now); got != s.postgrey {
					t.Errorf("step %d: postgrey says %s, want %s", i+1, got, s.postgrey)
				}
				if got := askCheck(t, ours, s, now); got != s.ours {
					t.Errorf("step %d: we say %s, want %s", i+1, got, s.ours)
				}
				if (s.postgrey != s.ours) != (s.why != "") {
					t.Errorf("step %d: a difference without a reason, or the other way round", i+1)
				}
			}
		})
	}
}

func listFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// postgrey is a running one.
type postgrey struct {
	conn    net.Conn
	replies *bufio.Reader
}

func startPostgrey(t *testing.T, clients, recipients string) *postgrey {
	t.Helper()
	path, err := exec.LookPath("postgrey")
	if err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatalf("postgrey, as root: %v", err)
		}
		t.Skipf("needs postgrey and root: %v", err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command(path, "--unix="+socket, "--dbdir="+dir, "--user=root", "--group=root", "--delay=300",
		"--whitelist-clients="+clients, "--whitelist-recipients="+recipients)
	if err := tied.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return &postgrey{conn, bufio.NewReader(conn)}
		}
		if t.Context().Err() != nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

func (p *postgrey) ask(t *testing.T, s step, now time.Time) string {
	t.Helper()
	_, err := fmt.Fprintf(p.conn, "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=%s\nclient_name=%s\nsender=%s\nrecipient=%s\ninstance=%s\npolicy_test_time=%d\n\n",
		s.client, s.name, s.sender, s.recipient, s.instance, now.Unix())
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.replies.ReadString('\n')
	if err == nil {
		_, err = p.replies.ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	word, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "action=")), " ")
	return word
}

// postgreysCheck is ours with postgrey's settings.
func postgreysCheck(t *testing.T, clients, recipients string) *checks.Greylist {
	t.Helper()
	g := &checks.Greylist{
		Delimiters: "+",
		Store:      memstore.New(memstore.Options{}), Flood: greylist.NewFlood(0),
		Limits: greylist.Limits{Delay: 300 * time.Second, RetryWindow: 48 * time.Hour, PassTTL: 35 * 24 * time.Hour, AllowAfter: 5, AllowTTL: 35 * 24 * time.Hour},
		Keyer:  greylist.Keyer{Bits4: 24, Bits6: 64, NetworkKey: true}, Header: true, Instances: new(checks.Instances), Hostname: "mx.home.example",
	}
	var err error
	if g.AllowClients, err = checks.ReadGreylistClients([]string{clients}); err != nil {
		t.Fatal(err)
	}
	if g.AllowRecipients, err = checks.ReadGreylistRecipients([]string{recipients}); err != nil {
		t.Fatal(err)
	}
	return g
}

func askCheck(t *testing.T, g *checks.Greylist, s step, now time.Time) string {
	t.Helper()
	r := &policy.Request{
		Received: now, State: policy.StateRcpt, Instance: s.instance, Client: policy.Client{Address: netip.MustParseAddr(s.client)},
		Sender: mailaddr.ParseInternal(s.sender), Recipient: mailaddr.ParseInternal(s.recipient),
	}
	if s.name != "unknown" {
		r.Client.Name = s.name
	}
	v, err := g.Check(t.Context(), r, nil)
	switch {
	case err != nil:
		t.Fatal(err)
	case v.Kind == policy.Defer:
		return wait
	case v.Header != "":
		return header
	}
	return take
}
