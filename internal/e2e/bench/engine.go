package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// peerSigned is the number of mails that OpenDKIM signs in a round of the comparison.
const peerSigned = 800

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

	var floors, ratios, times, ours, theirs, bare []float64
	for range rounds {
		floor, err := bareRSA()
		if err != nil {
			return nil, err
		}
		least, err := bareOpenSSL(ctx, tuning(daemon.PID()))
		if err != nil {
			return nil, err
		}
		signed, err := signedLoad(socket, rsaMails).cost(ctx, daemon.PID())
		if err != nil {
			return nil, err
		}
		other, err := signedLoad(peer.Socket, peerSigned).cost(ctx, peer.PID())
		if err != nil {
			return nil, fmt.Errorf("opendkim: %w", err)
		}
		floors, ratios, bare = append(floors, floor), append(ratios, signed/floor), append(bare, least/floor)
		ours, theirs, times = append(ours, signed), append(theirs, other), append(times, other/signed)
	}
	return []result{
		{what: "CPU of a 10 KB mail with an RSA-2048 signature by OpenSSL", value: median(ratios), unit: "signs", most: 0.5,
			detail: fmt.Sprintf("against %.0f µs of a bare signature by Go, %s", median(floors), spread(ratios))},
		{what: "CPU of a bare RSA-2048 signature by OpenSSL", value: median(bare), unit: "signs", detail: "with the instructions that the daemon has chosen, which is the least that a mail can cost; " + spread(bare)},
		{what: "signed mails of 10 KB per CPU second, against OpenDKIM", value: median(times), unit: "times", least: 3.5,
			detail: fmt.Sprintf("%.0f µs a mail against %.0f µs; %s", median(ours), median(theirs), spread(times))},
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

func opensslSpeed(ctx context.Context, tuning []string) (micros float64, err error) {
	speed := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-seconds", "1", "rsa2048")
	speed.Env = append(os.Environ(), tuning...)
	out, err := speed.Output()
	if err != nil {
		return 0, fmt.Errorf("openssl speed: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		// This line has the signatures in a second of CPU time.
		if fields := strings.Split(strings.TrimSpace(line), ":"); fields[0] == "+F2" && len(fields) == 5 {
			rate, err := strconv.ParseFloat(fields[3], 64)
			return 1e6 / rate, err
		}
	}
	return 0, fmt.Errorf("openssl speed printed no rate: %q", out)
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
