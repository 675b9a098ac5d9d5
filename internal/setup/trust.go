package setup

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// trust plans trusted forwarders: the hosts that another program was set to ignore.
// Loopback and our own mail need no such setting.
func (p *planner) trust(hosts []string) {
	var all []string
	for _, host := range hosts {
		host = strings.Replace(strings.Trim(strings.TrimSpace(host), "[]"), "//", "/", 1) // "::1//128": policyd-spf once had it so
		if host == "" || isOwnHost(host) {
			continue
		}
		if strings.HasPrefix(host, "!") || strings.HasPrefix(host, ".") || strings.Contains(host, "*") {
			p.cannot("the exception %q of the hosts that are not judged", host)
			continue
		}
		if network, ok := postconf.Network(host); ok && !network.IsSingleIP() {
			host = network.Masked().String()
		}
		all = append(all, host)
	}
	if len(all) == 0 {
		return
	}
	file := filepath.Join(filepath.Dir(p.Milterd.Config), "trusted_forwarders")
	p.milterd.set("trusted-forwarders", file)
	i := slices.IndexFunc(p.plan.Files, func(f File) bool { return f.Path == file })
	if i < 0 {
		p.plan.Files = append(p.plan.Files, File{Path: file, Mode: 0o644, Text: []byte("# Hosts whose mail policyd-spf, OpenDKIM or OpenDMARC did not judge.\n")})
		i = len(p.plan.Files) - 1
	}
	for _, host := range all {
		if line := host + "\n"; !strings.Contains(string(p.plan.Files[i].Text), "\n"+line) {
			p.plan.Files[i].Text = append(p.plan.Files[i].Text, line...)
		}
	}
}

// isOwnHost reports whether an entry of such a list is this machine.
func isOwnHost(host string) bool {
	network, ok := postconf.Network(host)
	return host == "localhost" || ok && network.Addr().Unmap().IsLoopback()
}
