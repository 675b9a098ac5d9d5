package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

const (
	bigMails       = 60      // a round
	bigBody        = 1 << 20 // octets
	bigSignatures  = 3
	bareVerifies   = 200
	verifyConns    = 16
	verifySessions = 60 // of each connection, one mail each
	verifyDelay    = 20 * time.Millisecond
)

// benchVerify measures the CPU time of a large signed mail, and the delay of a small
// one with a slow DNS and an empty cache.
func benchVerify(ctx context.Context, e *env) ([]result, error) {
	dns, err := resolvertest.Start("")
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	daemon, socket, err := startVerifier(ctx, e, dns.Addr())
	if err != nil {
		return nil, err
	}
	defer daemon.Kill()
	big, err := benchBig(ctx, dns, daemon.PID(), socket)
	if err != nil {
		return nil, err
	}
	late, err := benchLate(ctx, dns, socket)
	if err != nil {
		return nil, err
	}
	return append(big, late...), daemon.Stop()
}

// verifier is the name of the daemon that verifies.
const verifier = "verify"

// startVerifier runs postern-milterd on a unix socket for mail of others.
func startVerifier(ctx context.Context, e *env, dns string, more ...string) (*postfixtest.Daemon, string, error) {
	binary, err := e.binaries.Path(ctx, "postern-milterd")
	if err != nil {
		return nil, "", err
	}
	socket := filepath.Join(e.dir, verifier+".sock")
	daemon, err := postfixtest.StartDaemon(ctx, postfixtest.DaemonConfig{Path: binary, Args: append([]string{
		"--listen-verify=unix:" + socket, "--resolver=" + dns, "--dkim-keys=",
	}, append(e.daemonArgs(verifier), more...)...)})
	return daemon, socket, err
}

// benchBig compares mails of 1 MB with three signatures with the minimum: one hash of
// the body and three RSA checks. The same mails without signatures show the cost of the
// protocol and of SPF.
func benchBig(ctx context.Context, dns *resolvertest.Server, pid int, socket string) ([]result, error) {
	key, record, err := newRSAKey()
	if err != nil {
		return nil, err
	}
	record = splitTXT(record)
	plain := "From: <a@big.example>\r\nTo: <b@home.example>\r\nSubject: a large mail\r\n\r\n" +
		strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", bigBody/70)
	signed := plain
	for i := range bigSignatures {
		selector := fmt.Sprintf("s%d", i)
		if signed, err = signWith(signed, "big.example", selector, key); err != nil {
			return nil, err
		}
		if err := dns.Add(selector + "._domainkey.big.example. TXT " + record + "\n"); err != nil {
			return nil, err
		}
	}
	var ratios, costs, floors []float64
	for range rounds {
		floor, err := bareVerification(key, plain)
		if err != nil {
			return nil, err
		}
		without, err := loadBig(ctx, pid, socket, plain, "dkim=none", 1)
		if err != nil {
			return nil, err
		}
		with, err := loadBig(ctx, pid, socket, signed, "dkim=pass", bigSignatures)
		if err != nil {
			return nil, err
		}
		ratios, costs, floors = append(ratios, (with-without)/floor), append(costs, with), append(floors, floor)
	}
	return []result{{what: "CPU of 3 signatures on a mail of 1 MB", value: median(ratios), unit: "floors", most: 2,
		detail: fmt.Sprintf("%.2f ms with the protocol; one SHA-256 pass and 3 RSA checks %.2f ms; %s", median(costs), median(floors), spread(ratios))}}, nil
}

// newRSAKey creates a key of 2048 bits and its record.
func newRSAKey() (key *rsa.PrivateKey, record string, err error) {
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	return key, "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
}

// splitTXT returns the text of a TXT record in the form of a zone file.
func splitTXT(text string) string {
	var parts []string
	for chunk := range slices.Chunk([]byte(text), 200) {
		parts = append(parts, `"`+string(chunk)+`"`)
	}
	return strings.Join(parts, " ")
}

func signWith(mail, domain, selector string, key crypto.Signer) (string, error) {
	var out bytes.Buffer
	err := msgauth.Sign(&out, strings.NewReader(mail), &msgauth.SignOptions{
		Domain: domain, Selector: selector, Signer: key,
		HeaderCanonicalization: msgauth.CanonicalizationRelaxed, BodyCanonicalization: msgauth.CanonicalizationRelaxed,
		HeaderKeys: []string{"From", "To", "Subject"},
	})
	return out.String(), err
}

// bareVerification returns the minimum, in milliseconds of CPU.
func bareVerification(key *rsa.PrivateKey, mail string) (float64, error) {
	body := []byte(mail)
	digest := sha256.Sum256([]byte("a header"))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return 0, err
	}
	spent, err := used(os.Getpid(), func() error {
		for range bareVerifies {
			sha256.Sum256(body)
			for range bigSignatures {
				if err := rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return ms(spent) / bareVerifies, err
}

// loadBig sends one mail repeatedly, and returns the milliseconds of CPU that it cost
// pid. The results must contain want that many times.
func loadBig(ctx context.Context, pid int, socket, mail, want string, times int) (float64, error) {
	spent, err := used(pid, func() error {
		s, err := openVerify(ctx, socket, "192.0.2.1")
		if err != nil {
			return err
		}
		defer s.Close()
		for range bigMails {
			got, err := verified(s, "a@big.example", mail)
			if err != nil {
				return err
			}
			if n := strings.Count(got, want); n != times {
				return fmt.Errorf("%d times %s in %q", n, want, got)
			}
		}
		return nil
	})
	return ms(spent) / bigMails, err
}

// lateZone gives every domain below mail.example an SPF record in two parts and a key,
// and every client a name.
const lateZone = `*.mail.example. TXT "v=spf1 include:%%{d}.spf.example -all"
*.mail.example. TXT "v=DKIM1; k=ed25519; p=%s"
*.spf.example. TXT "v=spf1 mx:%%{d} -all"
*.spf.example. MX 10 out.example.
*.out.example. A 192.0.2.1
out.example. A 192.0.2.1
*.in-addr.arpa. PTR out.example.
`

// benchLate sends mails that each have their own domain and client.
func benchLate(ctx context.Context, dns *resolvertest.Server, socket string) ([]result, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := dns.Add(fmt.Sprintf(lateZone, base64.StdEncoding.EncodeToString(public))); err != nil {
		return nil, err
	}
	dns.SetDelay("*", verifyDelay)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		all  latencies
		errs []error
	)
	for c := range verifyConns {
		wg.Go(func() {
			took, err := lateSessions(ctx, socket, c, private)
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, took...), append(errs, err)
		})
	}
	wg.Wait()
	slices.Sort(all)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return []result{{what: fmt.Sprintf("p99 of a mail, %d connections, DNS of %v, nothing cached", verifyConns, verifyDelay), value: ms(all.quantile(0.99)), unit: "ms", most: 150,
		detail: fmt.Sprintf("median %.0f ms; SPF over 4 questions in a row, a key, the client's name", ms(all.quantile(0.5)))}}, nil
}

func lateSessions(ctx context.Context, socket string, c int, key ed25519.PrivateKey) (latencies, error) {
	var took latencies
	for i := range verifySessions {
		domain := fmt.Sprintf("n%d-%d.mail.example", c, i)
		mail, err := signWith("From: <a@"+domain+">\r\nTo: <b@home.example>\r\nSubject: a mail\r\n\r\nHello.\r\n", domain, "s1", key)
		if err != nil {
			return took, err
		}
		start := time.Now()
		s, err := openVerify(ctx, socket, fmt.Sprintf("10.%d.%d.1", c, i))
		if err != nil {
			return took, err
		}
		got, err := verified(s, "a@"+domain, mail)
		took = append(took, time.Since(start))
		s.Close()
		if err == nil && (!strings.Contains(got, "dkim=pass") || !strings.Contains(got, "spf=fail")) {
			err = fmt.Errorf("results %q", got)
		}
		if err != nil {
			return took, err
		}
	}
	return took, nil
}

func openVerify(ctx context.Context, socket, client string) (*postfixtest.MilterClient, error) {
	return postfixtest.DialMilter(ctx, socket, postfixtest.MilterSession{Client: client, Name: "client.example", Helo: client + ".example", MTA: benchHost})
}

// benchHost is our host name.
const benchHost = "mail.home.example"

// verified sends a mail that must pass, and returns the fields that it got.
func verified(s *postfixtest.MilterClient, sender, mail string) (fields string, err error) {
	return delivered(s, postfixtest.MilterMail{Sender: sender, Message: mail})
}

// delivered is verified for a mail with more than a sender.
func delivered(s *postfixtest.MilterClient, m postfixtest.MilterMail) (fields string, err error) {
	m.Recipient = "b@home.example"
	v, err := s.Send(m)
	if err == nil && v.Code != 'a' && v.Code != 'c' {
		err = fmt.Errorf("reply %q %q", v.Code, v.Reply)
	}
	return strings.Join(v.Fields, "\n"), err
}
