// Package bindtest runs a private BIND: a real authoritative server for one zone,
// which accepts dynamic updates signed with a TSIG key (RFC 2136, RFC 8945).
//
// It listens on a free port of 127.0.0.1 only, and ends with its context.
package bindtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/store/redistest/tied"
)

// Program is the server.
const Program = "/usr/sbin/named"

// zoneText is the content of a zone at the start. The TTLs are those of a usual
// zone.
const zoneText = `$TTL 3600
@ IN SOA ns hostmaster 1 7200 3600 1209600 1800
@ IN NS ns
ns IN A 127.0.0.1
`

// Keys as tsig-keygen prints them. The first may update the zone. The server also
// knows the second, which may not.
const (
	goodKey  = "key \"postern\" {\n\talgorithm hmac-sha256;\n\tsecret \"c3VmZmljaWVudGx5IGxvbmcgc2VjcmV0IG9mIHRlc3Q=\";\n};\n"
	otherKey = "key \"other\" {\n\talgorithm hmac-sha512;\n\tsecret \"YW5vdGhlciBzZWNyZXQgdGhhdCBtYXkgbm90IHVwZGF0ZQ==\";\n};\n"
)

// Server is a running server.
type Server struct {
	Addr netip.AddrPort
	// Key and OtherKey are files of keys; only the first may update the zone.
	Key, OtherKey string

	cmd  *exec.Cmd
	done chan error
}

// Start runs a server for a zone, with its files in dir. records are lines that are
// added to the zone.
func Start(ctx context.Context, dir, zone, records string) (*Server, error) {
	var failed error
	for range 5 { // another program may take the port first
		s, err := start(ctx, dir, zone, records)
		if err == nil {
			return s, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func start(ctx context.Context, dir, zone, records string) (*Server, error) {
	addr, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: addr, Key: filepath.Join(dir, "postern.key"), OtherKey: filepath.Join(dir, "other.key"), done: make(chan error, 1)}
	for name, text := range map[string]string{
		"postern.key": goodKey,
		"other.key":   otherKey,
		"zone":        zoneText + records,
		"named.conf":  s.config(dir, zone),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	_ = os.Remove(filepath.Join(dir, "zone.jnl")) // of an earlier try
	s.cmd = exec.CommandContext(ctx, Program, "-g", "-n", "1", "-c", filepath.Join(dir, "named.conf"))
	s.cmd.WaitDelay = time.Second
	return s, s.run()
}

func (s *Server) config(dir, zone string) string {
	port := s.Addr.Port()
	return fmt.Sprintf(`options {
	directory %q;
	listen-on port %d { 127.0.0.1; };
	listen-on-v6 { none; };
	pid-file none;
	session-keyfile none;
	lock-file none;
	managed-keys-directory %q;
	recursion no;
	dnssec-validation no;
	notify no;
	version none;
};
controls { };
include %q;
include %q;
zone %q {
	type primary;
	file %q;
	update-policy { grant postern subdomain %s. TXT; };
};
`, dir, port, dir, s.Key, s.OtherKey, zone, filepath.Join(dir, "zone"), zone)
}

// run starts the program and returns when it is ready to answer.
func (s *Server) run() error {
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := tied.Start(s.cmd); err != nil {
		return err
	}
	lines := bufio.NewScanner(log)
	var all []string
	for lines.Scan() {
		all = append(all, lines.Text())
		if strings.HasSuffix(lines.Text(), " running") && strings.Contains(strings.Join(all, "\n"), fmt.Sprintf("127.0.0.1#%d", s.Addr.Port())) {
			go func() {
				for lines.Scan() {
				}
				s.done <- s.cmd.Wait()
			}()
			return nil
		}
	}
	return fmt.Errorf("named has ended: %w\n%s", s.cmd.Wait(), strings.Join(all, "\n"))
}

// Close ends the server and waits for its end.
func (s *Server) Close() error {
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.done
	return nil
}

// freePort finds a port that is free for UDP and TCP.
func freePort() (netip.AddrPort, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err == nil {
		err = u.Close()
	}
	return addr, errors.Join(err, l.Close())
}
