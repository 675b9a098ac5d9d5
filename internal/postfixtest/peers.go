package postfixtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Peer is a mail filter of another project with a private configuration, for
// comparisons with ours. It is stopped like any Server.
type Peer struct {
	*Server
	Socket string // the Unix socket that it listens on
}

// PeerConfig is the configuration that all peers share.
type PeerConfig struct {
	Dir string // for the configuration and the socket; the caller removes it
	// Nameserver answers all queries, on port 53, because resolv.conf(5) has no other.
	// See NameserverAddr.
	Nameserver netip.Addr
	// Keys is a file of DKIM keys with which OpenDKIM verifies without DNS; "" to query
	// DNS. Debian's OpenDKIM queries with libunbound, and may crash when several
	// connections do so at once.
	Keys string
	// Suffixes is the Public Suffix List. If empty, it is Debian's, which rspamd takes
	// 15 seconds to compile.
	Suffixes []string
	// Enforce makes OpenDMARC refuse and hold mail as policies ask.
	Enforce bool
}

// PeerHost is the authserv-id of peers in Authentication-Results.
const PeerHost = "peer.example"

// NameserverAddr returns a loopback address for the name server of one test. Tests run
// at the same time and cannot choose the port.
func NameserverAddr() netip.AddrPort {
	part := func() byte { return byte(1 + rand.IntN(250)) }
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, part(), part(), part()}), 53)
}

// Peers returns an error if one of the programs, such as "opendmarc", is missing, or if
// they cannot run here. Their own resolv.conf needs root.
func Peers(programs ...string) error {
	if os.Geteuid() != 0 {
		return errors.New("a resolv.conf of their own needs root")
	}
	for _, program := range programs {
		if _, err := systemTool(program); err != nil {
			return err
		}
	}
	return nil
}

// StartOpenDKIM runs OpenDKIM as a verifier.
func StartOpenDKIM(ctx context.Context, c PeerConfig) (*Peer, error) {
	lines := []string{"Syslog no", "Mode v", "AuthservID " + PeerHost, "AlwaysAddARHeader yes"}
	if c.Keys != "" {
		lines = append(lines, "TestPublicKeys "+c.Keys)
	} else {
		unbound := filepath.Join(c.Dir, "unbound.conf")
		text := fmt.Sprintf("server:\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n  cache-max-negative-ttl: 0\n"+
			"forward-zone:\n  name: \".\"\n  forward-addr: %s\n", c.Nameserver)
		if err := os.WriteFile(unbound, []byte(text), 0o644); err != nil {
			return nil, err
		}
		lines = append(lines, "ResolverConfiguration "+unbound)
	}
	return c.startMilter(ctx, "opendkim", "-x", lines)
}

// StartOpenDKIMSigner runs OpenDKIM as a signer of the mail that a client at an address
// sends.
func StartOpenDKIMSigner(ctx context.Context, c PeerConfig, domain, selector, key, client string) (*Peer, error) {
	return c.startMilter(ctx, "opendkim", "-x", []string{
		"Syslog no", "Mode s", "Canonicalization relaxed/relaxed", "OversignHeaders From", "RequireSafeKeys no",
		"Domain " + domain, "Selector " + selector, "KeyFile " + key, "InternalHosts " + client,
	})
}

// publicSuffixes is the path of Debian's list.
const publicSuffixes = "/usr/share/publicsuffix/public_suffix_list.dat"

// suffixes returns the path of the Public Suffix List.
func (c PeerConfig) suffixes() (string, error) {
	if len(c.Suffixes) == 0 {
		return publicSuffixes, nil
	}
	path := filepath.Join(c.Dir, "suffixes")
	return path, os.WriteFile(path, []byte(strings.Join(c.Suffixes, "\n")+"\n"), 0o644)
}

// StartOpenDMARC runs OpenDMARC. It checks SPF itself and trusts the DKIM results of
// PeerHost.
func StartOpenDMARC(ctx context.Context, c PeerConfig) (*Peer, error) {
	nobody := filepath.Join(c.Dir, "ignorehosts")
	suffixes, err := c.suffixes()
	if err := errors.Join(err, os.WriteFile(nobody, []byte("255.255.255.255\n"), 0o644)); err != nil {
		return nil, err
	}
	enforce := "no"
	if c.Enforce {
		enforce = "yes"
	}
	return c.startMilter(ctx, "opendmarc", "-c", []string{
		"Syslog no", "AuthservID " + PeerHost, "TrustedAuthservIDs " + PeerHost, "PublicSuffixList " + suffixes,
		"SPFSelfValidate yes", "SPFIgnoreResults yes", "IgnoreHosts " + nobody,
		"RejectFailures " + enforce, "HoldQuarantinedMessages " + enforce,
	})
}

// startMilter runs a filter of the Trusted Domain Project in the foreground.
func (c PeerConfig) startMilter(ctx context.Context, program, flag string, lines []string) (*Peer, error) {
	conf, socket := filepath.Join(c.Dir, program+".conf"), filepath.Join(c.Dir, program+".sock")
	text := strings.Join(append(lines, "Socket local:"+socket, "UMask 000"), "\n") + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	return c.Start(ctx, socket, program, "-f", flag, conf)
}

// rspamdConf enables the modules that judge, each with its defaults, and no store.
// %[1]s is the folder, %[2]s the name server, %[3]s the socket, %[4]s the Public Suffix
// List.
const rspamdConf = `options {
  pidfile = "%[1]s/rspamd.pid"; tempdir = "%[1]s"; cache_file = "%[1]s/symbols.cache"; hs_cache_dir = "%[1]s/";
  url_tld = "%[4]s";
  filters = "dkim"; local_addrs = [127.0.0.0/8];
  dns { nameserver = "%[2]s:53"; timeout = 1s; retransmits = 1; }
}
logging { type = "file"; filename = "%[1]s/rspamd.log"; level = "warning"; }
actions { reject = 1000; }
lua = "%[1]s/empty.lua";
modules { path = "/usr/share/rspamd/plugins"; }
.include "/etc/rspamd/modules.d/dkim.conf"
.include "/etc/rspamd/modules.d/spf.conf"
.include "/etc/rspamd/modules.d/arc.conf"
.include "/etc/rspamd/modules.d/dmarc.conf"
worker "normal" { bind_socket = "%[3]s mode=0666"; count = 1; }
`

// StartRspamd runs rspamd with only SPF, DKIM, ARC and DMARC. It speaks HTTP.
func StartRspamd(ctx context.Context, c PeerConfig) (*Peer, error) {
	conf, socket := filepath.Join(c.Dir, "rspamd.conf"), filepath.Join(c.Dir, "rspamd.sock")
	suffixes, err := c.suffixes()
	err = errors.Join(err,
		os.WriteFile(conf, fmt.Appendf(nil, rspamdConf, c.Dir, c.Nameserver, socket, suffixes), 0o644),
		os.WriteFile(filepath.Join(c.Dir, "empty.lua"), []byte("-- no rules\n"), 0o644),
	)
	if err != nil {
		return nil, err
	}
	return c.Start(ctx, socket, "rspamd", "-f", "-i", "-c", conf)
}

// StartRspamdMilter runs rspamd with Debian's settings as a milter on its socket. files
// are written to local.d.
func StartRspamdMilter(ctx context.Context, c PeerConfig, files map[string]string) (*Peer, error) {
	socket, local := filepath.Join(c.Dir, "rspamd.sock"), filepath.Join(c.Dir, "local.d")
	suffixes, err := c.suffixes()
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"options.inc": fmt.Sprintf("url_tld = %q;\ndns { nameserver = \"%s:53\"; }\ncontrol_socket = \"%s/control.sock mode=0600\";\n", suffixes, c.Nameserver, c.Dir),
		"logging.inc": "level = \"warning\";\n",
		// The milter scans mail itself and needs no worker.
		"worker-proxy.inc":      fmt.Sprintf("bind_socket = \"%s mode=0666\";\nupstream \"local\" { default = yes; self_scan = yes; }\n", socket),
		"worker-normal.inc":     "enabled = false;\n",
		"worker-controller.inc": "enabled = false;\n",
	}
	maps.Copy(all, files)
	if err := os.Mkdir(local, 0o755); err != nil {
		return nil, err
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(local, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	args := []string{"-f", "-i", "-c", "/etc/rspamd/rspamd.conf"}
	for _, name := range []string{"LOCAL_CONFDIR", "DBDIR", "RUNDIR", "LOGDIR"} {
		args = append(args, "--var="+name+"="+c.Dir)
	}
	return c.Start(ctx, socket, "rspamd", args...)
}

// inNamespace runs the program with a resolv.conf that no other process sees, in the
// mount namespace of "unshare". The process id stays the same.
const inNamespace = `mount --bind "$0" /etc/resolv.conf && exec "$@"`

// Command returns a command whose program queries the name server of c.
func (c PeerConfig) Command(path string, args ...string) (*exec.Cmd, error) {
	resolv := filepath.Join(c.Dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+c.Nameserver.String()+"\n"), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", inNamespace, resolv, path}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd, nil
}

// Start runs a program that queries the name server of c. It returns when the program's
// socket accepts connections.
func (c PeerConfig) Start(ctx context.Context, socket, program string, args ...string) (*Peer, error) {
	path, err := systemTool(program)
	if err != nil {
		return nil, err
	}
	cmd, err := c.Command(path, args...)
	if err != nil {
		return nil, err
	}
	server, err := StartServer(ctx, cmd, func(context.Context) error {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		return nil, err
	}
	return &Peer{Server: server, Socket: socket}, nil
}
