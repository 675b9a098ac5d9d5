package e2e

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// relayHost is the address that the Postfix of newRelay has for the site.
const relayHost = "192.0.2.200"

// Two Postfix, one behind the other: the first may remove all Received fields, as some
// do to hide their networks, and then no one knows who wrote a field in our name.
func TestRelayRemovesReceived(t *testing.T) {
	t.Parallel()
	const lost = "fail, 0 marked, 1 sealed" // nothing is known of the client, and DMARC fails without SPF
	for _, c := range []struct {
		name       string
		strips     bool
		milter     string // of the relay
		spoof, own string
	}{
		{"keeps them", false, "", spoofed, genuine},
		{"keeps them, with a key of its own", false, "other", "fail+fail, 1 marked, 1 sealed", "pass+pass, 0 marked, 1 sealed"},
		{"removes them", true, "", lost, lost},
		{"removes them, with the same key", true, "same", spoofed, genuine},
		{"removes them, with a key of its own", true, "other", lost, lost},
		{"removes them, with OpenDMARC", true, "opendmarc", lost, lost},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newMarkingSite(t, func(p *postfixtest.Config) {
				p.More = append(p.More, postfixtest.Service{Name: "relayed", Proxied: true})
			}, "--trusted-relays="+relayHost, "--authserv-id=mail.home.example")
			var main []string
			if c.strips {
				main = append(main, "header_checks = regexp:"+writeFile(t, openDir(t), "strip", "/^Received:/ IGNORE\n"))
			}
			if c.milter != "" {
				main = append(main, "smtpd_milters = "+relayMilter(t, s, c.milter))
			}
			relay := newRelay(t, s, main...)
			spoof := forgery(Banker)
			spoof.Message = "X-Postern-Mark: v=1; t=1; x=99999999999; dmarc=pass; dis=none; f=; r=; bh=; b=AAAA\n" +
				"Authentication-Results: mail.home.example; spf=pass smtp.mailfrom=bank.example;\n" +
				"\tdmarc=pass (p=reject dis=none)\n\theader.from=bank.example\n" +
				"Received: from mx.bank.example (mx.bank.example [192.0.2.40]) by mx2.home.example (Postfix) with ESMTP id 1; Thu, 26 Nov 2026 12:00:00 +0000\n" +
				"Authentication-Results: mail.home.example 1; dmarc=pass header.from=bank.example\n" +
				"Received: from mx2.home.example (mx2.home.example [" + relayHost + "]) by mail.home.example (Postfix) with ESMTP id 2; Thu, 26 Nov 2026 12:00:00 +0000\n" +
				"Authentication-Results: mail.home.example; none\n" + spoof.Message
			for _, way := range []struct {
				mail postfixtest.Mail
				want string
			}{{spoof, c.spoof}, {authored(client("192.0.2.40", "mx.bank.example", Banker, Dora), ""), c.own}} {
				r, err := relay.Send(t.Context(), postfixtest.MX, way.mail)
				if err != nil || r.Final().Code != 250 {
					t.Fatal(r, err)
				}
				d := toDora(t, s)
				if got := markings(d); got != way.want {
					t.Errorf("%s, want %s\n%s", got, way.want, d.Data)
				}
				if kept := len(d.Headers("Received")) > 1; kept == c.strips {
					t.Errorf("Received fields of the relay: %v\n%s", kept, d.Data)
				}
			}
		})
	}
}

// newRelay starts a second Postfix, which hands the mail for home.example to the service
// "relayed" of the site.
func newRelay(t *testing.T, s *Site, main ...string) *postfixtest.Postfix {
	t.Helper()
	host, port, err := net.SplitHostPort(asHost(t, s.Postfix.Addr("relayed"), relayHost))
	if err != nil {
		t.Fatal(err)
	}
	return postfixtest.New(t, postfixtest.Config{
		Hostname: "mx2.home.example",
		Main:     append([]string{"virtual_transport = smtp:[" + host + "]:" + port, "local_header_rewrite_clients ="}, main...),
	})
}

// relayMilter starts a milter for the relay and returns its endpoint.
func relayMilter(t *testing.T, s *Site, kind string) string {
	t.Helper()
	if kind == "opendmarc" {
		if err := postfixtest.Peers("opendmarc"); err != nil {
			t.Fatal(err)
		}
		dns := newResolverAt53(t, ourZone+awayZone+bankZone)
		peer, err := postfixtest.StartOpenDMARC(t.Context(), postfixtest.PeerConfig{
			Dir: openDir(t), Nameserver: netip.MustParseAddrPort(dns.Addr()).Addr(), Suffixes: []string{"example"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(peer.Kill)
		return "unix:" + peer.Socket
	}
	addr, err := postfixtest.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	startBackup(t, s, addr, kind == "same")
	return "inet:" + addr
}

// asHost returns an address whose connections reach a Proxied service as those of a client.
func asHost(t *testing.T, service, client string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	forward(t, l, service, postfixtest.ProxyLine(netip.AddrPortFrom(netip.MustParseAddr(client), 40000)))
	return l.Addr().String()
}

// forward joins each connection of a listener with one to a server, after a text to the
// latter.
func forward(t *testing.T, l net.Listener, server, hello string) {
	t.Helper()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // the test has ended
			}
			running.Go(func() { passThrough(in, server, hello) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
}

// passThrough joins a connection with one to a server, after a text to the latter.
func passThrough(in net.Conn, server, hello string) {
	defer in.Close()
	out, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer out.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(in, out)
		_ = in.Close()
	})
	_, _ = io.Copy(out, io.MultiReader(strings.NewReader(hello), in))
	_ = out.Close()
	back.Wait()
}
