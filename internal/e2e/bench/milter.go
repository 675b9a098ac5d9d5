package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/milter"
)

const (
	milterConns   = 16
	rsaMails      = 1_600 // a round of the peers
	bareSigns     = 800   // of a floor of the peers
	nullMilterArg = "-null-milter"
)

// Mails and signatures of a turn.
const (
	rsaTurn     = 320
	ed25519Turn = 800
	nullTurn    = 800
	largeTurn   = 48
	bareTurn    = 200
)

// benchSigning signs by Go. Large mails have a daemon of their own, because all CPU time
// of a daemon counts.
func benchSigning(ctx context.Context, e *env) ([]result, error) {
	rsaDaemon, rsaSocket, err := startMilterd(ctx, e, "postern-milterd", "rsa")
	if err != nil {
		return nil, err
	}
	defer rsaDaemon.Kill()
	largeDaemon, largeSocket, err := startMilterd(ctx, e, "postern-milterd", "rsa")
	if err != nil {
		return nil, err
	}
	defer largeDaemon.Kill()
	edDaemon, edSocket, err := startMilterd(ctx, e, "postern-milterd", "ed25519")
	if err != nil {
		return nil, err
	}
	defer edDaemon.Kill()
	nullPID, nullSocket, stopNull, err := startServer(ctx, nullMilterArg)
	if err != nil {
		return nil, err
	}
	defer stopNull()

	nullLoad := signedLoad(nullSocket, nullTurn)
	nullLoad.good = func(added string) bool { return strings.HasPrefix(added, "X-Null: ") }
	bare := bareSide(func(context.Context) (float64, error) { return bareRSA(bareTurn) })
	signed := serverSide(rsaDaemon.PID(), rsaTurn, signedLoad(rsaSocket, rsaTurn).turn)
	large := serverSide(largeDaemon.PID(), largeTurn, func(ctx context.Context, _ int) error { return signedMails(ctx, largeSocket, largeTurn) })
	hash := bareSide(func(context.Context) (float64, error) { return bareHash(bigBody, largeTurn) })
	ed := serverSide(edDaemon.PID(), ed25519Turn, signedLoad(edSocket, ed25519Turn).turn)
	null := serverSide(nullPID, nullTurn, nullLoad.turn)
	if err := takeTurns(ctx, bare, signed, large, hash, ed, null); err != nil {
		return nil, err
	}
	whole := ratios(signed.micros, bare.micros)
	passes, seconds := make([]float64, rounds), make([]float64, rounds)
	for i := range rounds {
		passes[i] = (large.micros[i] - bare.micros[i]) / hash.micros[i]
		seconds[i] = ed.micros[i] * 10_000 / 1e6
	}
	return []result{
		{what: "CPU of a 10 KB mail with an RSA-2048 signature and its record", value: median(whole), unit: "signs", most: 1.35,
			detail: fmt.Sprintf("%.0f µs against %.0f µs of a bare signature (%s), %s", median(signed.micros), median(bare.micros), spread(bare.micros), spread(whole))},
		{what: "CPU of a 1 MB mail with an RSA-2048 signature, beyond that of RSA", value: median(passes), unit: "hashes", most: 1.5,
			detail: fmt.Sprintf("a hash is one SHA-256 pass over the body, %.0f µs; %s", median(hash.micros), spread(passes))},
		{what: "CPU of 10,000 mails of 10 KB with an Ed25519 signature", value: median(seconds), unit: "s", most: 2.2, detail: spread(seconds)},
		{what: "CPU of a 10 KB mail with a handler that does nothing", value: median(null.micros), unit: "µs", detail: spread(null.micros)},
	}, errors.Join(rsaDaemon.Stop(), largeDaemon.Stop(), edDaemon.Stop())
}

// startMilterd runs a postern-milterd on a unix socket with one key of a kind for
// home.example. Its records go to a file.
func startMilterd(ctx context.Context, e *env, program, kind string, more ...string) (*postfixtest.Daemon, string, error) {
	keys, err := signingKeys(ctx, e, kind)
	if err != nil {
		return nil, "", err
	}
	binary := program
	if !filepath.IsAbs(program) {
		if binary, err = e.binaries.Path(ctx, program); err != nil {
			return nil, "", err
		}
	}
	e.signers++
	name := fmt.Sprintf("sign-%s-%s-%d", filepath.Base(program), kind, e.signers)
	socket := filepath.Join(e.dir, name+".sock")
	daemon, err := postfixtest.StartDaemon(ctx, postfixtest.DaemonConfig{Path: binary, Args: append([]string{
		"--listen-sign=unix:" + socket, "--resolver=127.0.0.1", "--dkim-keys=" + keys,
	}, append(e.daemonArgs(name), more...)...)})
	return daemon, socket, err
}

// signingKeys makes a folder with one key of a kind for home.example, or returns the
// existing one.
func signingKeys(ctx context.Context, e *env, kind string) (string, error) {
	keys := filepath.Join(e.dir, "dkim-"+kind)
	if _, err := os.Stat(keys); err == nil {
		return keys, nil
	}
	postern, err := e.binaries.Path(ctx, "postern")
	if err != nil {
		return "", err
	}
	if out, err := exec.CommandContext(ctx, postern, "dkim", "genkey", "home.example", "--type", kind, "--dir", keys, "--selector", "s1").CombinedOutput(); err != nil {
		return "", fmt.Errorf("postern dkim genkey: %w\n%s", err, out)
	}
	return keys, nil
}

// signedMails sends a mail of 1 MB several times over one connection. It must get one
// signature each time.
func signedMails(ctx context.Context, socket string, times int) error {
	mail := "From: <a@home.example>\r\nTo: <b@away.example>\r\nSubject: a large mail\r\n\r\n" +
		strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", bigBody/70)
	s, err := openVerify(ctx, socket, "192.0.2.1")
	if err != nil {
		return err
	}
	defer s.Close()
	for range times {
		got, err := verified(s, "a@home.example", mail)
		if err != nil || strings.Count(got, "DKIM-Signature: ") != 1 {
			return fmt.Errorf("added %q, %w", got, err)
		}
	}
	return nil
}

// bareKey returns the key of bareRSA.
var bareKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// bareRSA returns the CPU time of one of some RSA-2048 signatures in Go, in
// microseconds, with as many goroutines as a daemon has processors.
func bareRSA(signs int) (float64, error) {
	key, err := bareKey()
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("a header"))
	workers := runtime.GOMAXPROCS(0)
	spent, err := used(os.Getpid(), func() error {
		return together(workers, func(int) error {
			for range signs / workers {
				if _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return float64(spent.Microseconds()) / float64(signs/workers*workers), err
}

// nullHandler inserts one field into every message and looks at nothing. It shows the
// cost of the protocol alone.
type nullHandler struct{}

func (nullHandler) Begin(context.Context, *milter.Session, *milter.Message) (milter.Work, milter.Answer, error) {
	return nullHandler{}, milter.Answer{}, nil
}
func (nullHandler) Headers(context.Context) (milter.Answer, error) { return milter.Answer{}, nil }
func (nullHandler) Body([]byte) error                              { return nil }
func (nullHandler) Close()                                         {}
func (nullHandler) Finish(context.Context) (milter.Decision, error) {
	return milter.Decision{Insert: []milter.Insertion{{Name: "X-Null", Value: "seen"}}}, nil
}

// serveNullMilter writes no records.
func serveNullMilter(ready func(string), done io.Reader) error {
	dir, err := os.MkdirTemp("", "postern-null-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "milter.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := milter.New(milter.Options{}, milter.Settings{Sign: nullHandler{}})
	ready(path)
	return serveUntil(done, listener, func(conn net.Conn) error {
		server.ServeConn(context.Background(), conn, milter.SignOnly)
		return nil
	})
}
