package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
	"github.com/postern-mail/postern/internal/spf/spftest"
)

// TestSPFSuite has the real daemon judge every case of the public test suite of
// RFC 7208 by what a real DNS server answers.
func TestSPFSuite(t *testing.T) {
	t.Parallel()
	scenarios, err := spftest.Load()
	if err != nil {
		t.Fatal(err)
	}
	path, err := binaries.Path(t.Context(), "postern-milterd")
	if err != nil {
		t.Fatal(err)
	}
	var right atomic.Int32
	t.Run("scenarios", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.Name, func(t *testing.T) {
				t.Parallel()
				addr := startVerifier(t, path, suiteServer(t, s).Addr())
				for _, c := range s.Cases {
					if got := suiteResult(t, addr, c); slices.Contains(c.Results, got) {
						right.Add(1)
					} else {
						t.Errorf("%s: spf=%s, want one of %v", c.Name, got, c.Results)
					}
				}
			})
		}
	})
	if n := right.Load(); n != spftest.Cases {
		t.Errorf("%d cases are right, want %d", n, spftest.Cases)
	}
}

// suiteServer serves the records of a scenario. A time-out and an error code are
// the same to SPF; the code costs no time.
func suiteServer(t *testing.T, s spftest.Scenario) *resolvertest.Server {
	t.Helper()
	dns := resolvertest.New(t, "")
	for _, r := range s.Records {
		switch {
		case r.Type == spftest.Timeout:
			dns.FailMissing(r.Name, resolvertest.ServFail)
			continue
		case r.Type == spftest.CNAMELoop:
			dns.Fail(r.Name, resolvertest.CNAMELoop)
			continue
		case r.Type == "MX":
			r.Value = absolute(r.Value)
		case r.Type == "PTR", r.Type == "CNAME":
			r.Value = absolute(r.Value)
		}
		if err := dns.AddRecord(r.Name, r.Type, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return dns
}

// absolute gives the name at the end of a record its last dot.
func absolute(value string) string { return strings.TrimSuffix(value, ".") + "." }

// startVerifier starts a daemon that verifies, and returns where it listens.
func startVerifier(t *testing.T, path, dns string) string {
	t.Helper()
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	postfixtest.NewDaemon(t, postfixtest.DaemonConfig{Path: path, Args: []string{
		"--config=", "--admin=", "--metrics-listen", "inet:" + metrics, "--resolver", dns, "--listen-verify", "inet:" + addr,
	}})
	return addr
}

var spfPart = regexp.MustCompile(`Authentication-Results\x00[^\x00]*?\bspf=(\w+)`)

// suiteResult sends the message of a case and returns what Authentication-Results
// says of SPF.
func suiteResult(t *testing.T, addr string, c spftest.Case) string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	family := "4"
	if netip.MustParseAddr(c.IP).Is6() {
		family = "6"
	}
	const offer = "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff" // version 6, and all that Postfix offers
	var out []byte
	for _, packet := range []string{
		"O" + offer, "Cunknown\x00" + family + "\x00\x19" + c.IP + "\x00", "H" + c.Helo + "\x00", "M<" + c.MailFrom + ">\x00",
		"R<dora@home.example>\x00", "LFrom\x00 <x@from.example>\x00", "N", "E",
	} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(packet)))
		out = append(out, packet...)
	}
	if _, err := conn.Write(out); err != nil {
		t.Fatal(err)
	}
	for found := ""; ; {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		packet := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, packet); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		switch m := spfPart.FindSubmatch(packet); {
		case packet[0] == 'i' && m != nil:
			found = string(m[1])
		case packet[0] == 'a', found != "" && packet[0] == 'c':
			return found
		}
	}
}
