package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// peerTurn is the number of mails that OpenDKIM signs in a turn.
const peerTurn = 160

// benchEngine builds a postern-milterd that is linked with OpenSSL. It compares it with
// Go's bare signature and with OpenDKIM, which is linked with OpenSSL too. OpenDKIM
// writes no log.
func benchEngine(ctx context.Context, e *env) ([]result, error) {
	program, err := buildOpenSSL(ctx, e)
	if err != nil {
		return nil, err
	}
	daemon, socket, err := startMilterd(ctx, e, program, "rsa", "--rsa-engine=openssl")
	if err != nil {
		return nil, err
	}
	defer daemon.Kill()
	peer, err := startSigningPeer(ctx, e)
	if err != nil {
		return nil, err
	}
	defer peer.Kill()

	instructions := tuning(daemon.PID())
	bareGo := bareSide(func(context.Context) (float64, error) { return bareRSA(bareTurn) })
	bare := bareSide(func(ctx context.Context) (float64, error) { return bareOpenSSL(ctx, instructions) })
	ours := serverSide(daemon.PID(), rsaTurn, signedLoad(socket, rsaTurn).turn)
	theirs := serverSide(peer.PID(), peerTurn, signedLoad(peer.Socket, peerTurn).turn)
	if err := takeTurns(ctx, bareGo, bare, ours, theirs); err != nil {
		return nil, err
	}
	whole, least, times := ratios(ours.micros, bareGo.micros), ratios(bare.micros, bareGo.micros), ratios(theirs.micros, ours.micros)
	return []result{
		{what: "CPU of a 10 KB mail with an RSA-2048 signature by OpenSSL", value: median(whole), unit: "signs", most: 0.5,
			detail: fmt.Sprintf("against %.0f µs of a bare signature by Go, %s", median(bareGo.micros), spread(whole))},
		{what: "CPU of a bare RSA-2048 signature by OpenSSL", value: median(least), unit: "signs", detail: "with the instructions that the daemon has chosen, which is the least that a mail can cost; " + spread(least)},
		{what: "signed mails of 10 KB per CPU second, against OpenDKIM", value: median(times), unit: "times", least: 3.5,
			detail: fmt.Sprintf("%.0f µs a mail against %.0f µs; %s", median(ours.micros), median(theirs.micros), spread(times))},
	}, errors.Join(daemon.Stop(), peer.Stop())
}

// buildOpenSSL builds a postern-milterd that is linked with OpenSSL.
func buildOpenSSL(ctx context.Context, e *env) (program string, err error) {
	root, err := postfixtest.ModuleRoot(ctx)
	if err != nil {
		return "", err
	}
	program = filepath.Join(e.dir, "milterd-openssl")
	if out, err := exec.CommandContext(ctx, filepath.Join(root, ".ci/openssl"), program).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with OpenSSL: %w\n%s", err, out)
	}
	return program, nil
}

// bareOpenSSL returns the microseconds of CPU for a bare RSA-2048 signature by OpenSSL,
// with as many at once as bareRSA makes. openssl's own -multi would count the time on the
// clock, in which other programs run too. tuning is added to the environment.
func bareOpenSSL(ctx context.Context, tuning []string) (float64, error) {
	workers := runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	costs, errs := make([]float64, workers), make([]error, workers)
	for i := range workers {
		wg.Go(func() { costs[i], errs[i] = opensslSpeed(ctx, tuning) })
	}
	wg.Wait()
	sum := 0.
	for _, cost := range costs {
		sum += cost
	}
	return sum / float64(workers), errors.Join(errs...)
}

// tuning returns the variables with which the daemon limits the instructions that
// libcrypto uses.
func tuning(pid int) (set []string) {
	environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for variable := range strings.SplitSeq(string(environ), "\x00") {
		if strings.HasPrefix(variable, "OPENSSL_ia32cap=") {
			set = append(set, variable)
		}
	}
	return set
}

// opensslSpeed returns the microseconds of CPU of a signature. openssl would go on with
// verifications: it is stopped when it has signed.
func opensslSpeed(ctx context.Context, tuning []string) (micros float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	speed := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-seconds", "1", "rsa2048")
	speed.Env = append(os.Environ(), tuning...)
	out, err := speed.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := speed.Start(); err != nil {
		return 0, fmt.Errorf("openssl speed: %w", err)
	}
	defer func() {
		stop()
		_ = speed.Wait() // it was killed
	}()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var signatures, bits int
		var seconds float64 // of CPU
		if n, _ := fmt.Sscanf(lines.Text(), "+R1:%d:%d:%f", &signatures, &bits, &seconds); n == 3 {
			return seconds * 1e6 / float64(signatures), nil
		}
	}
	return 0, errors.New("openssl speed printed no signatures (+R1)")
}

// startSigningPeer runs OpenDKIM with the daemon's key.
func startSigningPeer(ctx context.Context, e *env) (*postfixtest.Peer, error) {
	if err := postfixtest.Peers("opendkim"); err != nil {
		return nil, err
	}
	keys, err := signingKeys(ctx, e, "rsa")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.dir, "opendkim")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return postfixtest.StartOpenDKIMSigner(ctx, postfixtest.PeerConfig{Dir: dir, Nameserver: postfixtest.NameserverAddr().Addr()},
		"home.example", "s1", filepath.Join(keys, "home.example", "s1.private"), dmarcClient)
}

// signedLoad returns mails of 10 KB that must get one signature each.
func signedLoad(socket string, mails int) mailLoad {
	return mailLoad{sockets: []string{socket}, mails: mails, sender: "a@home.example",
		good: func(added string) bool { return strings.Count(added, "DKIM-Signature: ") == 1 },
		mail: "From: Alice <a@home.example>\r\nTo: Bob <b@away.example>\r\nSubject: a subject of quite usual length, not too short\r\n" +
			"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <20240101000000.4XQUEUEID@mail.home.example>\r\n" +
			strings.Repeat("X-Field: a value of quite usual length, not too short\r\n", 20) + "\r\n" +
			strings.Repeat("a line of the body that is as long as lines are\r\n", 200)}
}
