package main

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-mail/postern/internal/manual"
	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// peersArg is the verb of make bench-peers.
const peersArg = "peers"

// field is what all contests share.
type field struct {
	at     netip.AddrPort // of the name server
	key    *rsa.PrivateKey
	record string // of the key
	share  int    // a load is divided by it: 1, or 10 for a short run
}

// sized returns a load for this run. It is a multiple of the connections.
func (f field) sized(load int) int {
	const conns = milterConns // policy clients have as many
	return max(load/f.share/conns, 1) * conns
}

// benchPeers measures Postern and the programs that do parts of its work, and publishes
// the figures in deploy/PEERS.md.
func benchPeers(ctx context.Context, args []string) (err error) {
	flags := pflag.NewFlagSet(peersArg, pflag.ContinueOnError)
	rounds := flags.Int("rounds", 3, "how often each server is measured")
	short := flags.Bool("short", false, "a tenth of the load, for a quick look")
	publish := flags.Bool("publish", true, "write the figures to deploy/")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("--rounds is %d; at least 1 is needed", *rounds)
	}
	if err := postfixtest.Check(); err != nil {
		return err
	}
	e, stop, err := newDiskEnv()
	if err != nil {
		return err
	}
	defer stop()
	f := field{at: postfixtest.NameserverAddr(), share: 1}
	if *short {
		f.share = 10
	}
	if f.key, f.record, err = newRSAKey(); err != nil {
		return err
	}
	dns, err := resolvertest.StartAt(f.at.String(), f.zone())
	if err != nil {
		return err
	}
	defer dns.Close()
	figures := manual.Figures{Measured: time.Now().UTC().Format(time.DateOnly), Machine: machine(), Command: "make bench-peers", Rounds: *rounds, Short: *short}
	for _, c := range []contest{f.greylists(), f.limits(), f.signers(), f.verifiers(), f.postfixes(), f.floors()} {
		fmt.Fprintln(os.Stderr, "bench:", c.name)
		g, err := c.run(ctx, e, *rounds)
		if err != nil {
			return err
		}
		figures.Groups = append(figures.Groups, g)
	}
	return show(ctx, figures, peersArg, *publish)
}

// show prints figures, and publishes them if that is wanted.
func show(ctx context.Context, f manual.Figures, base string, publish bool) error {
	fmt.Print(f.Markdown())
	if !publish {
		return nil
	}
	root, err := postfixtest.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	return f.Publish(root, base)
}

// newDiskEnv returns an environment with a directory that is not in memory and that the
// users of other programs can enter.
func newDiskEnv() (e *env, stop func(), err error) {
	e = &env{}
	if e.binaries, err = postfixtest.NewBinaries(); err != nil {
		return nil, nil, err
	}
	if e.dir, err = os.MkdirTemp("/var/tmp", "postern-bench-"); err == nil {
		err = os.Chmod(e.dir, 0o755)
	}
	if err != nil {
		e.binaries.Close()
		return nil, nil, err
	}
	return e, func() {
		_ = os.RemoveAll(e.dir) // a temporary directory
		e.binaries.Close()
	}, nil
}

// below returns an environment with a directory of its own in that of e.
func (e *env) below(name string) (*env, error) {
	dir, err := os.MkdirTemp(e.dir, name)
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	return &env{binaries: e.binaries, dir: dir}, nil
}

// zone returns all records that any contender asks for.
func (f field) zone() string {
	zone := fmt.Sprintf(rateZone, splitTXT(f.record)) + dnsblWorld +
		"greylist.example. 3600 IN TXT \"v=spf1 ip4:198.18.0.0/16 ip4:198.19.0.0/16 -all\"\n" +
		"client.example.example. 3600 A " + dmarcClient + "\n" + rateHelo + ". 3600 A " + dmarcClient + "\n"
	for i := range rateClients {
		zone += rateHelo + ". 3600 A " + rateClient(i) + "\n"
	}
	return zone
}

// machine describes where the figures were measured.
func machine() string {
	model := "an unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	system := runtime.GOOS
	if out, err := exec.Command("lsb_release", "-ds").Output(); err == nil {
		system = strings.TrimSpace(string(out))
	} else if text, err := os.ReadFile("/etc/debian_version"); err == nil {
		system = "Debian " + strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%d × %s, %s, %s", runtime.NumCPU(), model, system, runtime.Version())
}
