package doctor

import (
	"bufio"
	"context"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// How much of Postfix's log is read, and how many clients are enough to judge.
const (
	logTail      = 1 << 20
	journalLines = "5000"
	minClients   = 30
)

var connectLine = regexp.MustCompile(`postfix[^ ]*/(?:smtpd|postscreen)\[\d+\]: (?:connect from [^\[]*|CONNECT from )\[([0-9A-Fa-f:.]+)\]`)

// checkClients looks at the addresses of the clients in Postfix's log.
func checkClients(ctx context.Context, f *Facts) []Finding {
	if f.Postfix == nil {
		return nil
	}
	var found []Finding
	for _, s := range f.Postfix.smtpds() {
		found = append(found, trustsEveryone(s)...)
	}
	log := f.tailOfLog(ctx)
	backups, others := f.backups(ctx, sendersOf(log))
	found = slices.Concat(found, backups, f.ownHosts(others))
	counts, total := clientsOf(log)
	if total >= minClients {
		for addr, n := range counts {
			if n*20 < total*19 || within(addr, f.knownHosts()) { // more than 5 percent come from elsewhere
				continue
			}
			fix := "let the proxy speak the PROXY protocol (postconf -e smtpd_upstream_proxy_protocol=haproxy, or postscreen_upstream_proxy_protocol), or hand the port on without NAT (docker: userland-proxy false, or network_mode host)"
			if isPrivate(addr) {
				found = append(found, failf(fix, "%d of the last %d clients came from %s: Postfix sees a proxy or NAT, and not its clients; lists and greylist are of no use", n, total, addr))
			} else {
				found = append(found, warnf(fix, "%d of the last %d clients came from %s: is it a proxy?", n, total, addr))
			}
		}
	}
	if len(found) == 0 && total < minClients {
		return []Finding{okf("the log names too few clients (%d) to say whether they are behind a proxy", total)}
	}
	return orOK(found, "the last %d clients came from %d addresses", total, len(counts))
}

// trustsEveryone judges a service that takes any client for a proxy or for one of the
// site's own.
func trustsEveryone(s *Service) []Finding {
	if hosts := postconf.Split(s.Value("smtpd_authorized_xclient_hosts")); slices.ContainsFunc(hosts, isEverywhere) {
		return []Finding{failf("name the proxy's address alone in smtpd_authorized_xclient_hosts", "%s: any client may claim another address with XCLIENT (%s)", s, strings.Join(hosts, ", "))}
	}
	if networks := postconf.Split(s.Value("mynetworks")); slices.ContainsFunc(networks, isEverywhere) {
		return []Finding{failf("name your own networks alone in mynetworks", "%s: mynetworks holds the whole internet (%s): everyone may relay, and permit_mynetworks passes every hook behind it", s, strings.Join(networks, ", "))}
	}
	return nil
}

func isEverywhere(network string) bool {
	p, ok := postconf.Network(network)
	return ok && p.Bits() == 0
}

func isPrivate(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast()
}

// tailOfLog returns the end of Postfix's log.
func (f *Facts) tailOfLog(ctx context.Context) string {
	names := f.Options.paths.mailLogs
	if name := f.Postfix.Params["maillog_file"]; name != "" && name != "/dev/stdout" {
		names = append([]string{name}, names...)
	}
	if f.Options.MailLog != "" {
		names = []string{f.Options.MailLog}
	}
	for _, name := range names {
		if text, err := tail(name); err == nil {
			return text
		}
	}
	if f.Options.MailLog != "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.ask)
	defer cancel()
	out, _, _ := postconf.Run(ctx, "journalctl", "--quiet", "--no-pager", "--lines="+journalLines, "--identifier=postfix/smtpd", "--identifier=postfix/smtp/smtpd", "--identifier=postfix/postscreen")
	return out
}

func tail(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(0, info.Size()-logTail), logTail))
	return string(text), err
}

// clientsOf counts the clients in a log, without the programs of this machine.
func clientsOf(log string) (counts map[netip.Addr]int, total int) {
	counts = make(map[netip.Addr]int)
	in := bufio.NewScanner(strings.NewReader(log))
	in.Buffer(nil, logTail)
	for in.Scan() {
		m := connectLine.FindStringSubmatch(in.Text())
		if m == nil {
			continue
		}
		if addr, err := netip.ParseAddr(m[1]); err == nil && !addr.IsLoopback() {
			counts[addr.Unmap()]++
			total++
		}
	}
	return counts, total
}
