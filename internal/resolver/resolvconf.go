package resolver

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/transient"
)

const (
	dnsPort = 53
	// maxResolvConf limits how many bytes of the file are read.
	maxResolvConf = 64 << 10
)

// addresses returns the servers of c, without repetitions.
func (c *Config) addresses() ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	var err error
	if len(c.Servers) == 0 {
		out, err = c.fromFile()
	} else {
		out, err = parseServers(c.Servers)
	}
	if err == nil && len(out) > maxServers {
		err = fmt.Errorf("resolver: %d servers; name at most %d", len(out), maxServers)
	}
	return out, err
}

func parseServers(list []string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, text := range list {
		addr, err := parseServer(text)
		if err != nil {
			return nil, fmt.Errorf("resolver: %w", err)
		}
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out, nil
}

// parseServer reads host, host:port or [v6]:port.
func parseServer(text string) (netip.AddrPort, error) {
	host := text
	if bare, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), dnsPort), nil
	}
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("server %q is not an IP address: write 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53", text)
	}
	if addr.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("server %q: port 0 cannot be asked", text)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

func (c *Config) fromFile() ([]netip.AddrPort, error) {
	path := c.ResolvConf
	setDefault(&path, DefaultResolvConf)
	f, err := os.Open(path)
	if err != nil {
		return nil, transient.Mark(fmt.Errorf("resolver: no servers given, and %w", err))
	}
	defer f.Close()
	out, err := parseResolvConf(f, path)
	if err == nil && len(out) == 0 {
		// At boot the file may be written after this program has started.
		err = transient.Mark(fmt.Errorf("resolver: %s has no nameserver line: add one, or name the servers", path))
	}
	return out, err
}

// parseResolvConf reads the nameserver lines of resolv.conf(5), the first
// maxServers of them. Other lines are ignored: they do not matter for absolute
// names.
func parseResolvConf(in io.Reader, path string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	limited := &io.LimitedReader{R: in, N: maxResolvConf + 1}
	lines := bufio.NewScanner(limited)
	for number := 1; lines.Scan(); number++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] != "nameserver" {
			continue
		}
		if len(fields) == 1 {
			return nil, fmt.Errorf("resolver: %s:%d: nameserver without an address", path, number)
		}
		addr, err := netip.ParseAddr(fields[1])
		if err != nil {
			return nil, fmt.Errorf("resolver: %s:%d: nameserver %q is not an IP address", path, number, fields[1])
		}
		server := netip.AddrPortFrom(addr.Unmap(), dnsPort)
		if len(out) < maxServers && !slices.Contains(out, server) {
			out = append(out, server)
		}
	}
	err := lines.Err()
	if err == nil && limited.N == 0 {
		err = errors.New("longer than 64 KiB: not a resolv.conf")
	}
	if err != nil {
		return nil, fmt.Errorf("resolver: %s: %w", path, err)
	}
	return out, nil
}
