package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// Mails a round.
const (
	opendkimMails = 1_600
	dkimpyMails   = 160
	rspamdMails   = 320
	policydSPFs   = 1_600 // 100 a connection: an smtpd(8) serves as many clients, and ends
)

// signers compares signing.
func (f field) signers() contest {
	return contest{
		key: "signing", name: "Signing", unit: "mail",
		text: "A mail of 10 KB with 25 fields gets a signature with RSA-2048; 16 connections. OpenDKIM and dkimpy-milter write no log, Postern writes its records. " +
			"rspamd has Debian's settings, and so it does everything else that it does for outgoing mail too; its list of public suffixes is short, because it takes 15 seconds to read Debian's.",
		contenders: []contender{
			{server: "Postern", note: "with OpenSSL, as in the Debian package", ours: true, start: f.opensslSigner},
			{server: "Postern, RSA by Go", note: "as built by `make`", ours: true, start: func(ctx context.Context, e *env) (candidate, error) {
				return f.ourSigner(ctx, e, "postern-milterd")
			}},
			{server: "OpenDKIM", leastCPU: 3.5, start: func(ctx context.Context, e *env) (candidate, error) {
				peer, err := startSigningPeer(ctx, e)
				return f.filter(peer, signedLoad("", opendkimMails)), err
			}},
			{server: "dkimpy-milter", note: "Python", start: f.dkimpySigner},
			{server: "rspamd", note: "does more", start: f.rspamdSigner},
		},
	}
}

// filter returns a peer as a candidate.
func (f field) filter(peer *postfixtest.Peer, l mailLoad) candidate {
	if peer == nil {
		return candidate{}
	}
	l.sockets = []string{peer.Socket}
	return f.mails(subject{pids: []int{peer.PID()}}, quiet(peer.Kill), l)
}

// mails returns a candidate that gets mails.
func (f field) mails(s subject, stop func() error, l mailLoad) candidate {
	return candidate{subject: s, stop: stop, load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		l := l
		l.mails = t.sized(l.mails)
		took, wall, err := l.send(ctx)
		return l.mails, took, wall, err
	})}
}

func (f field) opensslSigner(ctx context.Context, e *env) (candidate, error) {
	program, err := buildOpenSSL(ctx, e)
	if err != nil {
		return candidate{}, err
	}
	return f.ourSigner(ctx, e, program, "--rsa-engine=openssl")
}

func (f field) ourSigner(ctx context.Context, e *env, program string, flags ...string) (candidate, error) {
	daemon, socket, err := startMilterd(ctx, e, program, "rsa", flags...)
	if err != nil {
		return candidate{}, err
	}
	return f.mails(subject{pids: []int{daemon.PID()}}, daemon.Stop, signedLoad(socket, rsaMails)), nil
}

// dkimpy starts dkimpy-milter with further settings and the files of keys.
func (f field) dkimpy(ctx context.Context, e *env, name string, settings []string, files ...string) (*postfixtest.Peer, error) {
	const program = "dkimpy-milter"
	if err := postfixtest.Peers(program); err != nil {
		return nil, err
	}
	dir := filepath.Join(e.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := give(program, append(files, dir)...); err != nil {
		return nil, err
	}
	conf, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "socket")
	lines := append(settings, "Syslog no", "UMask 000", "AuthservID "+postfixtest.PeerHost, "Socket local:"+socket, "PidFile "+filepath.Join(dir, "pid"), "UserID "+program)
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	return postfixtest.PeerConfig{Dir: dir, Nameserver: f.at.Addr()}.Start(ctx, socket, program, conf)
}

// give makes a user the owner of files.
func give(name string, files ...string) error {
	owner, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return err
	}
	for _, file := range files {
		err = errors.Join(err, os.Chown(file, uid, -1))
	}
	return err
}

func (f field) dkimpySigner(ctx context.Context, e *env) (candidate, error) {
	keys, err := signingKeys(ctx, e, "rsa")
	if err != nil {
		return candidate{}, err
	}
	text, err := os.ReadFile(filepath.Join(keys, "home.example", "s1.private"))
	if err != nil {
		return candidate{}, err
	}
	key := filepath.Join(e.dir, "dkimpy.private") // a copy that its user can read
	if err := os.WriteFile(key, text, 0o600); err != nil {
		return candidate{}, err
	}
	peer, err := f.dkimpy(ctx, e, "dkimpy-sign", []string{"Mode s", "Domain home.example", "Selector s1", "KeyFile " + key, "InternalHosts " + dmarcClient}, key)
	return f.filter(peer, signedLoad("", dkimpyMails)), err
}

// startRspamd runs rspamd as a milter, which shows its results in the mail. It signs
// with the key of home.example.
func (f field) startRspamd(ctx context.Context, e *env, name string) (*postfixtest.Peer, error) {
	if err := postfixtest.Peers("rspamd"); err != nil {
		return nil, err
	}
	keys, err := signingKeys(ctx, e, "rsa")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(e.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	return postfixtest.StartRspamdMilter(ctx, postfixtest.PeerConfig{Dir: dir, Nameserver: f.at.Addr(), Suffixes: []string{"com", "example", "org"}}, map[string]string{
		"milter_headers.conf": "use = [\"authentication-results\"];\n",
		"dkim_signing.conf": fmt.Sprintf("sign_networks = [%q];\nallow_username_mismatch = true;\nallow_hdrfrom_mismatch = true;\n"+
			"domain { home.example { selector = \"s1\"; path = %q; } }\n", dmarcClient, filepath.Join(keys, "home.example", "s1.private")),
	})
}

func (f field) rspamdSigner(ctx context.Context, e *env) (candidate, error) {
	peer, err := f.startRspamd(ctx, e, "rspamd-sign")
	return f.filter(peer, signedLoad("", rspamdMails)), err
}

// verifiers compares verifying.
func (f field) verifiers() contest {
	return contest{
		key: "verifying", name: "Verifying", unit: "mail",
		text: "A mail of 10 KB with one RSA signature, from a domain with SPF and DMARC; 16 connections; DNS is answered on the same machine and cached as each server does. " +
			"Postern checks SPF, DKIM, ARC, DMARC and the client's name. The peers write no log; OpenDKIM has its key in a file, because Debian's may crash when it asks DNS. " +
			"policyd-spf gets a policy request for each mail, and runs once for each connection, as Postfix's spawn(8) does it. Each connection has 100 requests.",
		contenders: []contender{
			{server: "Postern", note: "SPF, DKIM, ARC, DMARC", ours: true, start: func(ctx context.Context, e *env) (candidate, error) {
				daemon, socket, err := startVerifier(ctx, e, f.at.String())
				if err != nil {
					return candidate{}, err
				}
				l, err := f.verifiedLoad(dmarcMails, passed)
				l.sockets = []string{socket}
				return f.mails(subject{pids: []int{daemon.PID()}}, daemon.Stop, l), err
			}},
			{server: "OpenDKIM and OpenDMARC", note: "SPF, DKIM, DMARC", leastCPU: 4, start: func(ctx context.Context, e *env) (candidate, error) {
				peers, err := startDMARCPeers(ctx, f.at, f.record)
				if err != nil {
					return candidate{}, err
				}
				l, err := f.verifiedLoad(peerMails, passed)
				l.sockets = []string{peers.dkim.Socket, peers.dmarc.Socket}
				return f.mails(subject{pids: []int{peers.dkim.PID(), peers.dmarc.PID()}}, quiet(peers.stop), l), err
			}},
			{server: "rspamd", note: "SPF, DKIM, ARC, DMARC and much more", start: func(ctx context.Context, e *env) (candidate, error) {
				l, err := f.verifiedLoad(rspamdMails, passed)
				if err != nil {
					return candidate{}, err
				}
				peer, err := f.startRspamd(ctx, e, "rspamd-verify")
				return f.filter(peer, l), err
			}},
			{server: "dkimpy-milter", note: "DKIM only", start: func(ctx context.Context, e *env) (candidate, error) {
				l, err := f.verifiedLoad(dkimpyMails, func(added string) bool { return strings.Contains(added, "dkim=pass") })
				if err != nil {
					return candidate{}, err
				}
				peer, err := f.dkimpy(ctx, e, "dkimpy-verify", []string{"Mode v"})
				return f.filter(peer, l), err
			}},
			{server: "policyd-spf", note: "SPF only", start: f.policydSPF},
		},
	}
}

// verifiedLoad returns a mail whose added fields must be good.
func (f field) verifiedLoad(mails int, good func(string) bool) (mailLoad, error) {
	mail, err := dmarcMail(f.key, 10_000)
	return mailLoad{mails: mails, sender: "a@" + dmarcDomain, mail: mail, good: good}, err
}

// spawnArg is the verb of the server that runs policyd-spf.
const spawnArg = "-spawn-policyd-spf"

// serveSpawned runs policyd-spf for each connection.
func serveSpawned(ready func(string), done io.Reader) error {
	dir, err := postfixtest.MakeDir()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "spf.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o666); err != nil { // Postfix connects too
		return err
	}
	ready(path)
	return serveUntil(done, listener, func(conn net.Conn) error {
		err := spawn(conn.(*net.UnixConn))
		if err != nil {
			fmt.Fprintln(os.Stderr, "policyd-spf:", err)
		}
		return err
	})
}

// spawn runs policyd-spf with a connection as its input and output.
func spawn(conn *net.UnixConn) error {
	file, err := conn.File()
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command("policyd-spf", "/etc/postfix-policyd-spf-python/policyd-spf.conf")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = file, file, os.Stderr
	return cmd.Run()
}

// startPolicydSPF runs policyd-spf with the name server of this run.
func (f field) startPolicydSPF(e *env) (pid int, socket string, stop func(), err error) {
	if err := postfixtest.Peers("policyd-spf"); err != nil {
		return 0, "", nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, "", nil, err
	}
	cmd, err := postfixtest.PeerConfig{Dir: e.dir, Nameserver: f.at.Addr()}.Command(self, spawnArg)
	if err != nil {
		return 0, "", nil, err
	}
	return startServerCommand(cmd)
}

func (f field) policydSPF(_ context.Context, e *env) (candidate, error) {
	pid, socket, stop, err := f.startPolicydSPF(e)
	if err != nil {
		return candidate{}, err
	}
	s := subject{pids: []int{pid}}
	return candidate{subject: s, stop: quiet(stop), load: s.alone(func(ctx context.Context, t turn) (int, latencies, time.Duration, error) {
		l := load{conns: milterConns, requests: t.sized(policydSPFs), request: func(c, i int) []byte {
			return fmt.Appendf(nil, policyRequest, rateClient(c), rateHelo, rateSender, rateTo, fmt.Sprintf("%x.%x.%x", c, i, t.round), "")
		}}
		took, actions, wall, err := l.sendLean(ctx, socket)
		return l.requests, took, wall, errors.Join(err, expect(actions, map[string]int{"prepend": l.requests}))
	})}, nil
}
