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

// iRedAPD does what its settings say, see [iredapd].
const iRedAPD = "iRedAPD"

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
	{iRedAPD, []string{"iredapd", ":7777"}, []string{doesGreylist}},
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

var (
	moduleOff   = regexp.MustCompile(`(?m)^\s*enabled\s*=\s*(false|no|off)\s*;?`)
	moduleSet   = regexp.MustCompile(`(?m)^\s*[^#\s]`)
	redisServer = regexp.MustCompile(`(?m)^\s*(write_)?servers\s*=`)
)

// rspamd says which work rspamd does, by the administrator's files and its keys.
type rspamd struct{ paths }

// text returns the administrator's settings of a module.
func (r rspamd) text(module string) (text []byte) {
	for _, dir := range []string{"local.d", "override.d"} {
		part, _ := os.ReadFile(filepath.Join(r.rspamd, dir, module+".conf"))
		text = append(append(text, part...), '\n')
	}
	return text
}

// isElsewhere reports whether rspamd's files are not on this machine.
func (r rspamd) isElsewhere() bool {
	_, err := os.Stat(r.rspamd)
	return err != nil
}

// signs reports whether rspamd may sign: without keys and settings of the administrator,
// its module has nothing to sign with.
func (r rspamd) signs() bool {
	text := r.text("dkim_signing")
	keys, _ := filepath.Glob(filepath.Join(r.keys, "*.key"))
	return !moduleOff.Match(text) && (r.isElsewhere() || moduleSet.Match(text) || len(keys) > 0)
}

// greylists reports whether rspamd may greylist: without a server of Redis, its module is
// off.
func (r rspamd) greylists() bool {
	text := r.text("greylist")
	return !moduleOff.Match(text) && (r.isElsewhere() || redisServer.Match(text) || redisServer.Match(r.text("redis")))
}

// iredapd says which work iRedAPD does, by the file of its settings. Whether it greylists a
// domain is in its database too, so it is never certain that it does.
type iredapd struct{ paths }

var (
	iredapdPlugins = regexp.MustCompile(`(?ms)^plugins[ \t]*(\+?)=[ \t]*[\[(](.*?)[\])]`)
	pythonComment  = regexp.MustCompile(`(?m)#.*$`)
	iredapdGrey    = regexp.MustCompile(`["']greylisting["']`)
)

// greylists reports whether iRedAPD may greylist: its plugin is on, or the settings cannot
// be read.
func (i iredapd) greylists() bool {
	text, err := os.ReadFile(i.iredapd)
	if err != nil {
		return true
	}
	on := false
	for _, list := range iredapdPlugins.FindAllSubmatch(pythonComment.ReplaceAll(text, nil), -1) {
		more := len(list[1]) > 0 // += adds to the list, = is a new one
		on = on && more || iredapdGrey.Match(list[2])
	}
	return on
}
