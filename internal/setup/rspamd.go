package setup

import (
	"path/filepath"
	"slices"
	"strings"
)

const (
	rspamd  = "rspamd"
	iredAPD = "iRedAPD"
)

func isRspamd(o *Options, socket string) bool {
	if socketIs("inet:127.0.0.1:11332", "rspamd")(o, socket) {
		return true
	}
	return strings.HasPrefix(socket, "inet:rspamd:") || strings.HasPrefix(socket, "inet:") && strings.HasSuffix(socket, ":11332") // its container
}

// rspamdElsewhere reports whether rspamd is in a container of its own, or on another host: its
// settings cannot be read, and may have it sign and greylist.
func (p *planner) rspamdElsewhere() bool { return p.peer(rspamd) != nil && !p.exists("/etc/rspamd") }

// others returns the programs that greylist and those that sign and that we do not
// replace unless we are asked to.
func (p *planner) others() (greylists, signs []string) {
	switch {
	case p.rspamdElsewhere():
		if p.Greylister != "" || !p.greylistsAlready() {
			greylists = append(greylists, rspamd)
		}
		if p.Signer != "" || !p.signsAlready() {
			signs = append(signs, rspamd)
		}
	case p.peer(rspamd) != nil:
		if p.rspamdHas("redis", "servers") && !p.rspamdOff("greylist") || p.rspamdHas("greylist", "servers") {
			greylists = append(greylists, rspamd)
		}
		if (len(p.rspamdKeys()) > 0 || p.rspamdHas("dkim_signing", "")) && !p.rspamdOff("dkim_signing") {
			signs = append(signs, rspamd)
		}
	}
	for _, peer := range p.plan.Peers {
		switch k := peer.kind; {
		case k == nil || !k.asked:
		case k.signs:
			signs = append(signs, k.name)
		default:
			greylists = append(greylists, k.name)
		}
	}
	if p.iredapdGreylists() {
		greylists = append(greylists, iredAPD)
	}
	if p.amavisSigns() && (p.Signer != "" || !p.signsAlready()) {
		signs = append(signs, amavis)
	}
	if p.peer("postgrey") != nil && p.Greylister != "" {
		greylists = append(greylists, "postgrey")
	}
	if p.peer("OpenDKIM") != nil && p.Signer != "" {
		signs = append(signs, "OpenDKIM")
	}
	return greylists, signs
}

// signsAlready reports whether an earlier run has attached the socket that signs: who has
// decided then that Postern signs need not say so again.
func (p *planner) signsAlready() bool {
	return p.namesSigner(nil, localMilters) || slices.ContainsFunc(p.with(Users), p.signsAt)
}

// greylistsAlready reports the same of a hook that asks for our greylist.
func (p *planner) greylistsAlready() bool {
	return slices.ContainsFunc(append([]*Service{nil}, p.services...), func(at *Service) bool {
		return slices.ContainsFunc(slices.Concat(restrictionLists, p.classes()), func(name string) bool {
			return slices.ContainsFunc(restrictions(p.meantAt(at, name)), p.asksGreylist)
		})
	})
}

// signsAt reports whether a service gives its mail to the socket that signs.
func (p *planner) signsAt(s *Service) bool { return p.namesSigner(s, milterList) }

func (p *planner) namesSigner(place *Service, list string) bool {
	return slices.ContainsFunc(p.milters(place, list), func(element string) bool { return endpointOf(element) == normal(p.Sign) })
}

// rspamdText returns the administrator's settings of one of rspamd's modules.
func (p *planner) rspamdText(module string) string {
	text := ""
	for _, folder := range []string{"local.d", "override.d"} {
		text += p.read("/etc/rspamd/" + folder + "/" + module + ".conf")
	}
	return text
}

// rspamdHas reports whether the settings of a module contain a word; "" matches any.
func (p *planner) rspamdHas(module, word string) bool {
	lines := entries(p.rspamdText(module))
	return len(lines) > 0 && strings.Contains(strings.Join(lines, "\n"), word)
}

// rspamdOff reports whether a module is switched off.
func (p *planner) rspamdOff(module string) bool {
	for _, line := range entries(p.rspamdText(module)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(strings.ReplaceAll(line, " ", ""), ";"), "=")
		if name == "enabled" && (value == "false" || value == "no") {
			return true
		}
	}
	return false
}

// rspamdValue returns the value of a setting of one of rspamd's modules.
func (p *planner) rspamdValue(module, name string) string {
	value := ""
	for _, line := range entries(p.rspamdText(module)) {
		if key, text, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == name {
			value = strings.Trim(strings.TrimSpace(text), "\"'; ")
		}
	}
	return value
}

// rspamdMaps returns the settings by which rspamd chooses keys for one domain or another.
func (p *planner) rspamdMaps() []string {
	var all []string
	for _, name := range []string{"path_map", "selector_map", "domain", "signing_table", "key_table", "sign_condition"} {
		for _, line := range entries(p.rspamdText("dkim_signing")) {
			if rest, ok := strings.CutPrefix(line, name); ok && strings.IndexAny(rest, " \t={") == 0 {
				addOnce(&all, name)
			}
		}
	}
	return all
}

// rspamdKeys returns the keys in rspamd's own folder, DOMAIN.SELECTOR.key, or those that its
// path names for each domain.
func (p *planner) rspamdKeys() []dkimKey {
	const folder = "/var/lib/rspamd/dkim"
	if path := p.rspamdValue("dkim_signing", "path"); path != "" && filepath.Clean(path) != folder+"/$domain.$selector.key" && len(p.rspamdMaps()) == 0 {
		return p.rspamdKeysAt(path)
	}
	files, _ := filepath.Glob(filepath.Join(p.path(folder), "*.key"))
	var all []dkimKey
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".key")
		if at := strings.LastIndexByte(name, '.'); at > 0 {
			all = append(all, dkimKey{name[:at], name[at+1:], filepath.Join(folder, filepath.Base(file))})
		}
	}
	return all
}

// rspamdKeysAt returns the keys at a path that has the domain in it.
func (p *planner) rspamdKeysAt(path string) []dkimKey {
	selector := p.rspamdValue("dkim_signing", "selector")
	if selector == "" {
		selector = "dkim" // its default
	}
	if !strings.Contains(path, "$domain") {
		return nil // it is one key for all domains
	}
	return p.keysAt(strings.ReplaceAll(path, "$selector", selector), "$domain", selector)
}

// besideRspamd plans that rspamd stops doing what we do.
func (p *planner) besideRspamd() {
	if p.peer("rspamd") == nil {
		return
	}
	elsewhere := p.rspamdElsewhere()
	off := func(module string) {
		if p.plan.Shadow || p.rspamdOff(module) {
			return
		}
		if elsewhere {
			p.next("rspamd is not on this machine: write enabled = false; into override.d/%s.conf where it is, and restart it", module)
			return
		}
		path := p.path("/etc/rspamd/override.d/" + module + ".conf")
		if p.exists("/etc/rspamd/override.d/" + module + ".conf") {
			p.next("write into %s: enabled = false; and then: systemctl reload rspamd", path)
			return
		}
		p.plan.Files = append(p.plan.Files, File{Path: path, Mode: 0o644, Text: []byte("# Postern does this (postern setup).\nenabled = false;\n")})
		addOnce(&p.plan.Reload, "rspamd")
	}
	if p.attaches(Policyd) && p.Greylister == ours && p.runs("greylist") {
		off("greylist")
	}
	if p.attaches(Milterd) && p.signs() {
		keys := p.rspamdKeys()
		maps := p.rspamdMaps()
		if path := p.rspamdValue("dkim_signing", "path"); path != "" && !strings.Contains(path, "$domain") && len(maps) == 0 && !p.plan.Shadow {
			p.cannot("rspamd: dkim_signing has path %s, one key for all domains; copy it to %s/DOMAIN/SELECTOR.private for each domain", path, p.keyFolder())
		}
		if len(maps) > 0 && !p.plan.Shadow {
			p.cannot("rspamd: dkim_signing has %s; copy the keys that it names to %s/DOMAIN/SELECTOR.private", strings.Join(maps, ", "), p.keyFolder())
		}
		for _, key := range keys {
			if !p.plan.Shadow {
				p.copyKey(key)
				p.useKeyFolder()
			}
		}
		if len(keys) > 0 || p.rspamdHas("dkim_signing", "") || elsewhere {
			off("dkim_signing")
		}
	}
	switch {
	case p.Signer != rspamd && p.Greylister != rspamd:
	case elsewhere:
		p.next("rspamd goes on to %s, if it does: its settings are not on this machine; to have Postern do it, run setup again with --signer postern or --greylister postern", strings.Join(p.does(rspamd), " and to "))
	default:
		p.next("rspamd goes on to %s; to have Postern do it, run setup again with --signer postern or --greylister postern", strings.Join(p.does(rspamd), " and to "))
	}
}

// does returns what another program continues to do.
func (p *planner) does(name string) []string {
	var all []string
	if p.Signer == name {
		all = append(all, "sign")
	}
	if p.Greylister == name {
		all = append(all, "greylist")
	}
	return all
}
