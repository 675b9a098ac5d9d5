// Beside programs that setup does not take out of Postfix unless it is asked to.

package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

const amavis = "amavis"

// amavisFiles are the settings of amavisd, as Debian, Fedora and the program itself name
// them, in the order in which they are read.
var amavisFiles = []string{"/etc/amavis/conf.d/*", "/etc/amavisd/amavisd.conf", "/etc/amavisd.conf"}

// IsAmavis reports whether a content filter, or a proxy filter, looks like amavisd, by the
// name of its transport or by its port.
func IsAmavis(filter string) bool {
	return strings.Contains(filter, amavis) || strings.HasSuffix(filter, ":10024") || strings.HasSuffix(filter, ":10026")
}

// AmavisSigns reports whether amavisd signs by its files, which are below root: signing is
// switched on, and there is a key.
func AmavisSigns(root string) bool {
	on, keys := false, false
	for _, pattern := range amavisFiles {
		files, _ := filepath.Glob(filepath.Join("/", root, pattern)) // the pattern is valid, and the names are sorted
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // amavisd does not start with a file that it cannot read
			}
			for _, line := range entries(string(text[:min(len(text), maxConf)])) {
				name, value, _ := strings.Cut(strings.ReplaceAll(line, " ", ""), "=")
				if name == "$enable_dkim_signing" {
					on = strings.TrimSuffix(value, ";") == "1"
				}
				keys = keys || strings.HasPrefix(name, "dkim_key(")
			}
		}
	}
	return on && keys
}

// amavisSigns reports whether amavisd signs the mail of this Postfix.
func (p *planner) amavisSigns() bool {
	passes := p.peer("amavisd-milter") != nil || slices.ContainsFunc(p.services, func(s *Service) bool {
		return IsAmavis(p.get(s, "content_filter")) || IsAmavis(p.get(s, proxyFilter))
	})
	return passes && AmavisSigns(p.Root)
}

// besideAmavis says how amavisd and the milter do not both sign.
func (p *planner) besideAmavis() {
	switch {
	case !p.attaches(Milterd) || !p.amavisSigns():
	case p.Signer == amavis:
		p.next("amavis goes on to sign; to have Postern do it, run setup again with --signer postern")
	case p.signs() && !p.plan.Shadow:
		p.cannot("the keys of amavis (dkim_key); copy each to %s/DOMAIN/SELECTOR.private, or publish new ones", p.keyFolder())
		p.next("write into /etc/amavis/conf.d/50-user: $enable_dkim_signing = 0; and then: systemctl restart amavis, or mail is signed twice")
	}
}

const iredapdFile = "/opt/iredapd/settings.py"

// iredapdGreylists reports whether Postfix asks iRedAPD, and iRedAPD greylists.
func (p *planner) iredapdGreylists() bool {
	return p.peer(iredAPD) != nil && strings.Contains(p.read(iredapdFile), "greylisting")
}

// besideIRedAPD says how iRedAPD and policyd do not both greylist.
func (p *planner) besideIRedAPD() {
	switch {
	case !p.attaches(Policyd) || !p.iredapdGreylists():
	case p.Greylister == iredAPD:
		p.next("iRedAPD goes on to greylist; to have Postern do it, run setup again with --greylister postern")
	case p.Greylister == ours && p.runs("greylist") && !p.plan.Shadow:
		p.next("take greylisting out of plugins in %s, and then: systemctl restart iredapd, or each new sender waits twice", p.path(iredapdFile))
	}
}

// remoteOpenDKIM is an OpenDKIM of another host, or of a container of its own. Its keys are there.
const remoteOpenDKIM = "remote OpenDKIM"

// isRemoteOpenDKIM reports whether a socket at another host looks like OpenDKIM's, by its port
// or by the name of the host.
func isRemoteOpenDKIM(_ *Options, socket string) bool {
	at, isInet := strings.CutPrefix(socket, "inet:")
	i := strings.LastIndexByte(at, ':')
	return isInet && i > 0 && !postconf.IsLoopback(at[:i]) && (at[i:] == ":8891" || strings.Contains(at[:i], "opendkim"))
}

// carrySigner says what is left to do in place of a signer whose keys are not carried over.
func carrySigner(name string) func(*planner) {
	return func(p *planner) {
		if p.plan.Shadow || !p.signs() {
			return
		}
		p.cannot("the keys of %s; copy each to %s/DOMAIN/SELECTOR.private, or publish new ones", name, p.keyFolder())
		if name != remoteOpenDKIM {
			p.retire(name)
		}
	}
}

// carryGreylister does the same for a greylist.
func carryGreylister(name string) func(*planner) {
	return func(p *planner) {
		if !p.plan.Shadow {
			p.cannot("the settings of %s; those of the greylist are in %s (greylist/README.md)", name, p.Policyd.Config)
			p.retire(name)
		}
	}
}

func carrySqlgrey(p *planner) {
	carryGreylister("sqlgrey")(p)
	if !p.plan.Shadow {
		p.next("the memory of sqlgrey can be kept: postern greylist import --sqlgrey FILE")
	}
}

// besideOthers says that such programs go on.
func (p *planner) besideOthers() {
	for _, peer := range p.plan.Peers {
		switch k := peer.kind; {
		case k == nil || !k.asked || !p.attaches(k.by):
		case k.signs && p.Signer == k.name:
			p.next("%s goes on to sign; to have Postern do it, run setup again with --signer postern", k.name)
		case !k.signs && p.Greylister == k.name:
			p.next("%s goes on to greylist; to have Postern do it, run setup again with --greylister postern", k.name)
		}
	}
}
