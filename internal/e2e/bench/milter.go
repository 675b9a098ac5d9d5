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
	rsaMails      = 1_600 // a round
	ed25519Mails  = 4_800 // a round
	nullMails     = 4_800 // a round
	bareSigns     = 800
	nullMilterArg = "-null-milter"
)

func benchSigning(ctx context.Context, e *env) ([]result, error) {
	rsaDaemon, rsaSocket, err := startMilterd(ctx, e, "postern-milterd", "rsa")
	if err != nil {
		return nil, err
	}
	defer rsaDaemon.Kill()
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

	var ratios, rsaCost, floors, edCost, nullCost, passes []float64
	for range rounds {
		before, err := bareRSA()
		if err != nil {
			return nil, err
		}
		signed, err := signedLoad(rsaSocket, rsaMails).cost(ctx, rsaDaemon.PID())
		if err != nil {
			return nil, err
		}
		after, err := bareRSA()
		if err != nil {
			return nil, err
		}
		floor := (before + after) / 2
		ratios, rsaCost, floors = append(ratios, signed/floor), append(rsaCost, signed), append(floors, before, after)
		ed, err := signedLoad(edSocket, ed25519Mails).cost(ctx, edDaemon.PID())
		if err != nil {
			return nil, err
		}
		l := signedLoad(nullSocket, nullMails)
		l.good = func(added string) bool { return strings.HasPrefix(added, "X-Null: ") }
		null, err := l.cost(ctx, nullPID)
		if err != nil {
			return nil, err
		}
		large, err := largePasses(ctx, rsaDaemon.PID(), rsaSocket, floor)
		if err != nil {
			return nil, err
		}
		passes = append(passes, large)
		edCost, nullCost = append(edCost, ed*10_000/1e6), append(nullCost, null)
	}
	return []result{
		{what: "CPU of a 10 KB mail with an RSA-2048 signature and its record", value: median(ratios), unit: "signs", most: 1.35,
			detail: fmt.Sprintf("%.0f µs against %.0f µs of a bare signature (%s), %s", median(rsaCost), median(floors), spread(floors), spread(ratios))},
		{what: "CPU of a 1 MB mail with an RSA-2048 signature, beyond that of RSA", value: median(passes), unit: "hashes", most: 1.5,
			detail: "a hash is one SHA-256 pass over the body; " + spread(passes)},
		{what: "CPU of 10,000 mails of 10 KB with an Ed25519 signature", value: median(edCost), unit: "s", most: 2.2, detail: spread(edCost)},
		{what: "CPU of a 10 KB mail with a handler that does nothing", value: median(nullCost), unit: "µs", detail: spread(nullCost)},
	}, errors.Join(rsaDaemon.Stop(), edDaemon.Stop())
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

// largeSigned is the number of large mails that are signed in a round.
const largeSigned = 100

// largePasses returns the CPU time of pid for a mail of 1 MB, without the rsa
// microseconds. The unit is a pass of SHA-256 over the body.
func largePasses(ctx context.Context, pid int, socket string, rsa float64) (float64, error) {
	mail := "From: <a@home.example>\r\nTo: <b@away.example>\r\nSubject: a large mail\r\n\r\n" +
		strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", bigBody/70)
	body := []byte(mail)
	hashed, err := used(os.Getpid(), func() error {
		for range largeSigned {
			sha256.Sum256(body)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	spent, err := used(pid, func() error { return signedMails(ctx, socket, mail, largeSigned) })
	return (float64(spent.Microseconds()) - largeSigned*rsa) / float64(hashed.Microseconds()), err
}

// signedMails sends a mail several times over one connection. It must get one signature
// each time.
func signedMails(ctx context.Context, socket, mail string, times int) error {
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

// bareRSA returns the CPU time of one RSA-2048 signature in Go, in microseconds, with
// as many goroutines as a daemon has processors.
func bareRSA() (float64, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("a header"))
	workers := runtime.GOMAXPROCS(0)
	spent, err := used(os.Getpid(), func() error {
		var wg sync.WaitGroup
		errs := make([]error, workers)
		for i := range workers {
			wg.Go(func() {
				for range bareSigns / workers {
					if _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]); err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	return float64(spent.Microseconds()) / float64(bareSigns/workers*workers), err
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
