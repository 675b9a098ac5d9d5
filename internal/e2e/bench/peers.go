package main

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/postern-mail/postern/internal/manual"
)

// peersArg is the verb of make bench-peers.
const peersArg = "peers"

// field is what all contests share.
type field struct {
	at     netip.AddrPort // of the name server
	key    *rsa.PrivateKey
	record string // of the key
}

// benchPeers measures Postern and the programs that do parts of its work, and publishes
// the figures in deploy/PEERS.md.
func benchPeers(ctx context.Context, args []string) error {
	p, flags := newPublication(peersArg)
	short := flags.Bool("short", false, "a tenth of the load, for a quick look")
	if err := flags.Parse(args); err != nil {
		return err
	}
	p.command = "make bench-peers"
	if *short {
		p.share, p.command = 10, "SHORT=1 "+p.command
	}
	if p.rounds != usualRounds {
		p.command = fmt.Sprintf("ROUNDS=%d %s", p.rounds, p.command)
	}
	return p.run(ctx, func(f field) []contest {
		return []contest{f.greylists(), f.limits(), f.signers(), f.verifiers(), f.postfixes(), f.floors()}
	}, func([]manual.FigureGroup) []manual.FigureGroup { return nil })
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
