package main

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	dmarcMails  = 3_200    // a round, of Postern
	peerMails   = 800      // a round, of the peers
	smallBody   = 1 << 20  // octets
	hugeBody    = 50 << 20 // octets
	smallMails  = 50       // together as many octets as one huge mail
	hugeMails   = 4        // one after the other
	dmarcDomain = "signed.example"
	dmarcClient = "192.0.2.1"
)

// dmarcZone holds all records that are queried for a mail of dmarcDomain; %s is its
// key.
const dmarcZone = `signed.example. 3600 TXT "v=spf1 ip4:192.0.2.1 -all"
_dmarc.signed.example. 3600 TXT "v=DMARC1; p=reject; rua=mailto:reports@signed.example"
s1._domainkey.signed.example. 3600 TXT %s
192.0.2.1.example. 3600 A 192.0.2.1
1.2.0.192.in-addr.arpa. 3600 PTR mx.signed.example.
mx.signed.example. 3600 A 192.0.2.1
`

// benchDMARC compares the verdict on a mail with that of the two filters that Postern
// replaces. All query the same name server, whose cost is not counted. Some things
// favour the peers: they write no log, OpenDKIM has its key in a file, and they check
// neither ARC nor the client's name.
func benchDMARC(ctx context.Context, e *env) ([]result, error) {
	at := postfixtest.NameserverAddr()
	key, record, err := newRSAKey()
	if err != nil {
		return nil, err
	}
	dns, err := resolvertest.StartAt(at.String(), fmt.Sprintf(dmarcZone, splitTXT(record)))
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	daemon, socket, err := startVerifier(ctx, e, dns.Addr())
	if err != nil {
		return nil, err
	}
	defer daemon.Kill()
	peers, err := startDMARCPeers(ctx, at, record)
	if err != nil {
		return nil, err
	}
	defer peers.stop()

	against, err := benchAgainstPeers(ctx, daemon.PID(), socket, peers, key)
	if err != nil {
		return nil, err
	}
	huge, err := benchHuge(ctx, daemon.PID(), socket, key)
	if err != nil {
		return nil, err
	}
	return append(against, huge...), daemon.Stop()
}

// dmarcPeers holds the two filters. The second trusts the results of the first.
type dmarcPeers struct {
	dir         string
	dkim, dmarc *postfixtest.Peer
}

func startDMARCPeers(ctx context.Context, at netip.AddrPort, record string) (p *dmarcPeers, err error) {
	p = new(dmarcPeers)
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if err := postfixtest.Peers("opendkim", "opendmarc"); err != nil {
		return p, err
	}
	if p.dir, err = postfixtest.MakeDir(); err != nil {
		return p, err
	}
	keys := filepath.Join(p.dir, "keys")
	if err := os.WriteFile(keys, []byte("s1._domainkey."+dmarcDomain+" "+record+"\n"), 0o600); err != nil {
		return p, err
	}
	config := postfixtest.PeerConfig{Dir: p.dir, Nameserver: at.Addr(), Keys: keys}
	if p.dkim, err = postfixtest.StartOpenDKIM(ctx, config); err != nil {
		return p, err
	}
	p.dmarc, err = postfixtest.StartOpenDMARC(ctx, config)
	return p, err
}

func (p *dmarcPeers) stop() {
	for _, peer := range []*postfixtest.Peer{p.dkim, p.dmarc} {
		if peer != nil {
			peer.Kill()
		}
	}
	_ = os.RemoveAll(p.dir)
}

// dmarcMail returns a signed mail with a body of that many octets.
func dmarcMail(key *rsa.PrivateKey, body int) (string, error) {
	const line = "a line of the body that is as long as lines are\r\n"
	var b strings.Builder
	b.WriteString("From: Alice <a@" + dmarcDomain + ">\r\nTo: Bob <b@home.example>\r\nSubject: a subject of quite usual length, not too short\r\n" +
		"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <20240101000000.4XQUEUEID@mail.signed.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n")
	for i := range 18 {
		fmt.Fprintf(&b, "X-Field-%d: a value of quite usual length, not too short\r\n", i)
	}
	b.WriteString("\r\n" + strings.Repeat(line, body/len(line)))
	return signWith(b.String(), dmarcDomain, "s1", key)
}

// benchAgainstPeers sends the same mail to both sides in turn.
func benchAgainstPeers(ctx context.Context, pid int, socket string, peers *dmarcPeers, key *rsa.PrivateKey) ([]result, error) {
	mail, err := dmarcMail(key, 10_000)
	if err != nil {
		return nil, err
	}
	var ratios, ours, first, second []float64
	for range rounds {
		one, err := loadVerify(ctx, pid, socket, mail)
		if err != nil {
			return nil, err
		}
		dkim, dmarc, err := peers.load(ctx, mail)
		if err != nil {
			return nil, fmt.Errorf("peers: %w", err)
		}
		ratios = append(ratios, (dkim+dmarc)/one)
		ours, first, second = append(ours, one), append(first, dkim), append(second, dmarc)
	}
	return []result{{what: "mails per CPU second with DMARC, against OpenDKIM and OpenDMARC", value: median(ratios), unit: "times", least: 4,
		detail: fmt.Sprintf("%.0f µs a mail of 10 KB against %.0f µs and %.0f µs; %s", median(ours), median(first), median(second), spread(ratios))}}, nil
}

// loadVerify returns the microseconds of CPU that a mail cost pid.
func loadVerify(ctx context.Context, pid int, socket, mail string) (float64, error) {
	l := mailLoad{sockets: []string{socket}, mails: dmarcMails, sender: "a@" + dmarcDomain, mail: mail, good: passed}
	return l.cost(ctx, pid)
}

// load is loadVerify for the two filters.
func (p *dmarcPeers) load(ctx context.Context, mail string) (dkim, dmarc float64, err error) {
	l := mailLoad{sockets: []string{p.dkim.Socket, p.dmarc.Socket}, mails: peerMails, sender: "a@" + dmarcDomain, mail: mail, good: passed}
	var dmarcSpent time.Duration
	dkimSpent, err := used(p.dkim.PID(), func() (err error) {
		dmarcSpent, err = used(p.dmarc.PID(), func() error { return l.deliver(ctx) })
		return err
	})
	return float64(dkimSpent.Microseconds()) / float64(peerMails), float64(dmarcSpent.Microseconds()) / float64(peerMails), err
}

// passed reports whether all checks in the results have passed.
func passed(results string) bool {
	return strings.Contains(results, "dkim=pass") && strings.Contains(results, "spf=pass") && strings.Contains(results, "dmarc=pass")
}

// benchHuge compares the memory for a huge mail with that for the same number of octets
// in small mails.
func benchHuge(ctx context.Context, pid int, socket string, key *rsa.PrivateKey) ([]result, error) {
	small, err := dmarcMail(key, smallBody)
	if err != nil {
		return nil, err
	}
	huge, err := dmarcMail(key, hugeBody)
	if err != nil {
		return nil, err
	}
	s, err := openVerify(ctx, socket, dmarcClient)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	highest := func(mail string, times int) (float64, error) {
		if err := resetPeak(pid); err != nil {
			return 0, err
		}
		for range times {
			if got, err := verified(s, "a@"+dmarcDomain, mail); err != nil || !passed(got) {
				return 0, fmt.Errorf("results %q, %w", got, err)
			}
		}
		return peak(pid)
	}
	before, err := highest(small, smallMails*hugeMails)
	if err != nil {
		return nil, err
	}
	after, err := highest(huge, hugeMails)
	return []result{{what: "memory for a mail of 50 MB, beyond that for 1 MB", value: after - before, unit: "MiB", most: 4,
		detail: fmt.Sprintf("at most %.1f and %.1f MiB resident while they pass", after, before)}}, err
}
