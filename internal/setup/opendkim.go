package setup

import (
	"net/netip"
	"path/filepath"
	"strings"
)

const openDKIMConf = "/etc/opendkim.conf"

func isOpenDKIM(o *Options, socket string) bool {
	if socketIs("inet:127.0.0.1:8891", "opendkim")(o, socket) {
		return true
	}
	return sameSocket(parseOptions(o.text(openDKIMConf), "").get("Socket"), socket) || sameSocket(shellVariable(o.text("/etc/default/opendkim"), "SOCKET"), socket)
}

// dkimKey is a key file of another program.
type dkimKey struct{ domain, selector, path string }

// carryOpenDKIM carries over OpenDKIM's keys and tables.
func carryOpenDKIM(p *planner) {
	own := parseOptions(p.read(openDKIMConf), "")
	if !p.plan.Shadow && p.signs() {
		p.carryKeys(own)
	}
	if own.yes("SubDomains") {
		p.milterd.set("dkim-subdomains", "true")
	}
	if id := own.get("AuthservID"); id != "" && !strings.EqualFold(id, "HOSTNAME") {
		p.milterd.set("authserv-id", id)
	}
	for _, name := range []string{"SenderHeaders", "DontSignMailTo", "BodyLengthDB", "ResignMailTo", "OmitHeaders", "SignHeaders", "OversignHeaders", "SignatureTTL", "LDAPBindUser", "Selector-Select"} {
		if value := own.get(name); value != "" && !(name == "OversignHeaders" && strings.EqualFold(value, "From")) {
			p.cannot("OpenDKIM: %s %s (milter/SIGNING.md, Coming from OpenDKIM)", name, value)
		}
	}
	p.carryInternalHosts(own)
	p.retire("opendkim")
}

// carryKeys carries over the keys. They are copied, because OpenDKIM's files belong to
// its user.
func (p *planner) carryKeys(own options) {
	if p.isMailInABox() {
		p.milterd.set("dkim-keys", "")
		p.milterd.set("dkim-key-table", p.path(tableOf(own.get("KeyTable"))))
		p.milterd.set("dkim-signing-table", "refile:"+p.path(tableOf(own.get("SigningTable"))))
		for _, line := range entries(p.read(tableOf(own.get("KeyTable")))) {
			if at := strings.LastIndex(line, ":/"); at >= 0 {
				p.milterdPaths = append(p.milterdPaths, p.path(line[at+1:]))
			}
		}
		return
	}
	if own.get("KeyTable") != "" {
		p.carryTables(own)
		return
	}
	if file := own.get("KeyFile"); file != "" {
		for _, domain := range strings.Split(own.get("Domain"), ",") {
			p.copyKey(dkimKey{strings.TrimSpace(domain), own.get("Selector"), file})
		}
		p.useKeyFolder()
	}
}

// keyFolder returns the folder of our keys.
func (p *planner) keyFolder() string { return filepath.Join(filepath.Dir(p.Milterd.Config), "dkim") }

func (p *planner) useKeyFolder() {
	if p.Milterd.Config != p.Milterd.Program.DefaultFile {
		p.milterd.set("dkim-keys", p.keyFolder())
	}
}

// copyKey plans a copy of a key in our folder. ok is false if the key cannot be copied.
func (p *planner) copyKey(k dkimKey) (path string, ok bool) {
	text := p.read(k.path)
	if text == "" {
		p.cannot("key %s of %s: it cannot be read", k.path, k.domain)
		return "", false
	}
	path = filepath.Join(p.keyFolder(), strings.ToLower(k.domain), k.selector+".private")
	if !filepath.IsLocal(strings.ToLower(k.domain)) || !filepath.IsLocal(k.selector) || strings.ContainsAny(k.domain+k.selector, "/") {
		p.cannot("key %s: its domain or selector is no name", k.path)
		return "", false
	}
	for _, f := range p.plan.Files {
		if f.Path == path {
			return path, true
		}
	}
	p.plan.Files = append(p.plan.Files, File{Path: path, Text: []byte(text), Mode: 0o600, Owner: p.User, Secret: true})
	return path, true
}

// carryTables carries over a key table and a signing table. They are not needed if
// every sender is signed with a key of its own domain: our folder of keys does the
// same.
func (p *planner) carryTables(own options) {
	keys, senders := tableOf(own.get("KeyTable")), tableOf(own.get("SigningTable"))
	if keys == "" || senders == "" {
		p.cannot("OpenDKIM: KeyTable %s, SigningTable %s; write them into files", own.get("KeyTable"), own.get("SigningTable"))
		return
	}
	byName := make(map[string]dkimKey)
	var table strings.Builder
	table.WriteString("# " + keys + ", with the keys that postern-milterd may read.\n")
	for _, line := range entries(p.read(keys)) {
		name, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		parts := strings.SplitN(strings.TrimSpace(value), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") || strings.Contains(value, "%") {
			p.cannot("OpenDKIM: line %q of %s", line, keys)
			continue
		}
		key := dkimKey{parts[0], parts[1], parts[2]}
		path, ok := p.copyKey(key)
		if !ok {
			continue
		}
		byName[name] = key
		table.WriteString(name + " " + key.domain + ":" + key.selector + ":" + path + "\n")
	}
	if p.simpleSenders(senders, byName) {
		p.useKeyFolder()
		return
	}
	folder := filepath.Dir(p.Milterd.Config)
	kind := ""
	if strings.HasPrefix(own.get("SigningTable"), "refile:") {
		kind = "refile:"
	}
	copied := "# " + senders + "\n" + strings.Join(entries(p.read(senders)), "\n") + "\n"
	for name, text := range map[string]string{"KeyTable": table.String(), "SigningTable": copied} {
		p.plan.Files = append(p.plan.Files, File{Path: filepath.Join(folder, name), Text: []byte(text), Mode: 0o644})
	}
	p.milterd.set("dkim-keys", "")
	p.milterd.set("dkim-key-table", filepath.Join(folder, "KeyTable"))
	p.milterd.set("dkim-signing-table", kind+filepath.Join(folder, "SigningTable"))
}

// tableOf returns the file of one of OpenDKIM's tables, or "" if the table is not a
// file.
func tableOf(text string) string {
	for _, prefix := range []string{"refile:", "file:"} {
		text = strings.TrimPrefix(text, prefix)
	}
	if !strings.HasPrefix(text, "/") || strings.HasSuffix(text, ".db") {
		return ""
	}
	return text
}

// simpleSenders reports whether every line of a signing table maps a domain, or all of
// its addresses, to a key of that domain.
func (p *planner) simpleSenders(file string, keys map[string]dkimKey) bool {
	for _, line := range entries(p.read(file)) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return false
		}
		key, ok := keys[fields[1]]
		domain := strings.TrimPrefix(strings.TrimPrefix(fields[0], "*"), "@")
		if !ok || !strings.EqualFold(domain, key.domain) {
			return false
		}
	}
	return true
}

// carryInternalHosts carries over the networks whose mail OpenDKIM signs at port 25.
// Loopback is left out, because content filters hand back the mail of others from
// there.
func (p *planner) carryInternalHosts(own options) {
	hosts := own.get("InternalHosts")
	list := strings.Split(hosts, ",")
	if file := tableOf(hosts); file != "" {
		list = entries(p.read(file))
	}
	var networks []string
	signsLoopback := hosts == "" // its default is 127.0.0.1
	for _, host := range list {
		host = strings.TrimSpace(host)
		if isOwnHost(host) {
			signsLoopback = true
		}
		if host == "" || isOwnHost(host) {
			continue
		}
		_, networkErr := netip.ParsePrefix(host)
		if _, err := netip.ParseAddr(host); err != nil && networkErr != nil {
			p.cannot("OpenDKIM: InternalHosts names %s; write its address into internal-networks", host)
			continue
		}
		networks = append(networks, host)
	}
	if signsLoopback && p.signs() && !p.isMailInABox() {
		p.cannot("OpenDKIM: it signs what programs of this machine send to 127.0.0.1:25; Postern signs what they send by sendmail(1), or through a service of their own (milter/SIGNING.md, Local applications)")
	}
	if len(networks) == 0 || !p.signs() || p.plan.Shadow {
		return
	}
	p.milterd.set("internal-networks", networks...)
	p.milterd.set("listen", p.Verify)
	p.milterd.set("listen-sign", p.Sign)
	p.milterd.drop("listen-verify")
	p.bySession = true
}
