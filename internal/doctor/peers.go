package doctor

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The work of other programs that one of ours does too.
const (
	doesSign     = "signs"
	doesVerify   = "verifies"
	doesGreylist = "greylists"
	doesSPF      = "checks SPF"
)

// peer is a program that Postern may run beside or replace.
type peer struct {
	name  string
	marks []string // texts in its endpoints
	does  []string
}

// peers lists the known programs with their default endpoints: upstream's, Debian's, or
// those that their own guides give.
var peers = []peer{
	{"postgrey", []string{"postgrey", ":10023", ":60000"}, []string{doesGreylist}},
	{"sqlgrey", []string{"sqlgrey", ":2501"}, []string{doesGreylist}},
	{"milter-greylist", []string{"milter-greylist"}, []string{doesGreylist}},
	{"policyd-spf", []string{"policyd-spf", "policy-spf", "pyspf", "spfcheck"}, []string{doesSPF}},
	{"OpenDKIM", []string{"opendkim", ":8891", ":12301"}, []string{doesSign, doesVerify}},
	{"dkimpy-milter", []string{"dkimpy", ":8892"}, []string{doesSign, doesVerify}},
	{"OpenDMARC", []string{"opendmarc", ":8893", ":54321"}, []string{doesVerify}},
	{"OpenARC", []string{"openarc"}, []string{doesVerify}},
	{"rspamd", []string{"rspamd", ":11332"}, []string{doesSign, doesVerify, doesGreylist}},
}

// peerAt returns the program behind an endpoint of Postfix.
func peerAt(endpoint string) (peer, bool) {
	for _, p := range peers {
		for _, mark := range p.marks {
			if strings.Contains(endpoint, mark) && (mark[0] != ':' || strings.HasSuffix(endpoint, mark)) {
				return p, true
			}
		}
	}
	return peer{}, false
}

func (p peer) can(what string) bool { return slices.Contains(p.does, what) }

var moduleOff = regexp.MustCompile(`(?m)^\s*enabled\s*=\s*(false|no|off)\s*;?`)

// rspamdModuleOff reports whether a module of rspamd is disabled in the administrator's
// files.
func rspamdModuleOff(folder, module string) bool {
	for _, dir := range []string{"override.d", "local.d"} {
		text, err := os.ReadFile(filepath.Join(folder, dir, module+".conf"))
		if err == nil && moduleOff.Match(text) {
			return true
		}
	}
	return false
}
