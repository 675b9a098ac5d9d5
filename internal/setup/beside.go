// Beside amavisd and iRedAPD, which setup does not take out of Postfix.

package setup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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
