package setup

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/postconf"
)

// openDKIMConf is where Debian and Fedora have OpenDKIM's settings; Arch has them in a folder.
const openDKIMConf = "/etc/opendkim.conf"

// openDKIMStarts are the files that say how OpenDKIM is started.
var openDKIMStarts = []string{
	"/etc/systemd/system/opendkim.service.d/*.conf", "/etc/systemd/system/opendkim.service", "/etc/default/opendkim", "/etc/sysconfig/opendkim",
	"/usr/lib/systemd/system/opendkim.service", "/lib/systemd/system/opendkim.service",
}

// namesConf matches the option of OpenDKIM that names its settings, on a line that counts.
var namesConf = regexp.MustCompile(`(?m)^[^#;\n]*[ \t"'=]-x[ \t]*(/[^ \t\n"']+)`)

// openDKIMConfOf returns the path of OpenDKIM's settings.
func (o *Options) openDKIMConfOf() string {
	for _, pattern := range openDKIMStarts {
		files, _ := filepath.Glob(o.path(pattern)) // the pattern is valid, and the names are sorted
		for _, file := range slices.Backward(files) {
			text, _ := os.ReadFile(file)
			if m := namesConf.FindSubmatch(text); m != nil && o.exists(string(m[1])) {
				return string(m[1])
			}
		}
	}
	if folder := "/etc/opendkim/opendkim.conf"; !o.exists(openDKIMConf) && o.exists(folder) {
		return folder
	}
	return openDKIMConf
}

func isOpenDKIM(o *Options, socket string) bool {
	if socketIs("inet:127.0.0.1:8891", "opendkim")(o, socket) {
		return true
	}
	return sameSocket(parseOptions(o.text(o.openDKIMConfOf()), "").get("Socket"), socket) || sameSocket(shellVariable(o.text("/etc/default/opendkim"), "SOCKET"), socket)
}

// dkimKey is a key file of another program.
type dkimKey struct{ domain, selector, path string }

// carryOpenDKIM carries over OpenDKIM's keys and tables.
func carryOpenDKIM(p *planner) {
	conf := p.openDKIMConfOf()
	own := parseOptions(p.read(conf), "")
	if !p.exists(conf) && p.signs() {
		p.cannot("OpenDKIM: there is no %s, so none of its keys is carried over and nothing is signed with them; put it there before you attach Postern, or keep OpenDKIM: --signer OpenDKIM", conf)
	}
	mode := own.get("Mode")
	signed := mode == "" || strings.ContainsAny(mode, "sS") // the default is sv
	if signed && !p.plan.Shadow && p.signs() {
		p.carryKeys(own)
	}
	if id := own.get("AuthservID"); id != "" && !strings.EqualFold(id, "HOSTNAME") {
		p.milterd.set("authserv-id", id)
	}
	if strings.EqualFold(own.get("OversignHeaders"), "From") { // Debian's; the default here has it and more
		delete(own, "oversignheaders")
	}
	for name, value := range own {
		if strings.HasPrefix(name, "on-") && (value == "" || strings.ContainsAny(value[:1], "aA")) {
			delete(own, name) // accept
		}
	}
	p.cannotAll("OpenDKIM", own, openDKIMLeft)
	if signed {
		p.carryInternalHosts(own)
	}
	p.retire("opendkim")
}

// openDKIMLeft are the settings of OpenDKIM that decide about mail and are not carried
// over. milter/SIGNING.md says of the others why none is needed.
var openDKIMLeft = []left{
	{"Include", "its settings are not read; write them into the file that includes them before the next run"},
	{"SignHeaders", "dkim-headers names the fields that are signed"},
	{"OmitHeaders", "dkim-headers names the fields that are signed"},
	{"OversignHeaders", "dkim-headers names the fields that are oversigned, with a + in front"},
	{"SignatureTTL", "dkim-expire is how long a signature is valid"},
	{"SenderHeaders", "only the From field decides who signs"},
	{"DontSignMailTo", "all recipients get the same mail"},
	{"ResignMailTo", "all recipients get the same mail"},
	{"BodyLengthDB", "signatures cover the whole body"},
	{"MaximumSignedBytes", "signatures cover the whole body"},
	{"RemoveOldSignatures", "signatures of others stay"},
	{"MustBeSigned", noRefusal},
	{"Quarantine", "mail is never held for a signature alone; dmarc-quarantine is about DMARC"},
	{"On-BadSignature", noRefusal}, {"On-Default", noRefusal}, {"On-DNSError", noRefusal}, {"On-InternalError", noRefusal},
	{"On-KeyNotFound", noRefusal}, {"On-NoSignature", noRefusal}, {"On-PolicyError", noRefusal}, {"On-Security", noRefusal}, {"On-SignatureError", noRefusal},
	{"SendReports", "failures of DKIM are not reported"},
	{"RedirectFailuresTo", "no mail is redirected"},
	{"ReplaceRules", "no field is rewritten; Postfix's header_checks can"},
	{"SetupPolicyScript", "no scripts are run"}, {"ScreenPolicyScript", "no scripts are run"}, {"StatsPolicyScript", "no scripts are run"}, {"FinalPolicyScript", "no scripts are run"},
	{"MTA", "who signs is decided by the service of Postfix"},
	{"MacroList", "who signs is decided by the service of Postfix"},
	{"LDAPBindUser", "write keys into files, or name a Postfix table of type ldap in dkim-key-table"},
	{"Nameservers", "resolver names DNS servers"},
}

const noRefusal = "mail is never refused for a signature alone; dmarc-enforce refuses by the domain's own policy"

// left is a setting of another program that is not carried over.
type left struct{ name, instead string }

// cannotAll adds the settings of a program that are set to the plan, with what there is
// instead.
func (p *planner) cannotAll(program string, own options, all []left) {
	for _, l := range all {
		switch value := own.get(l.name); strings.ToLower(value) {
		case "", "no", "false", "n", "f", "0":
		default:
			p.cannot("%s: %s %s: %s", program, l.name, value, l.instead)
		}
	}
}

// keyFiles returns the keys that the table of the milter daemon names, whether this plan sets
// it or an earlier one has: the daemon must be able to read them.
func (p *planner) keyFiles() ([]string, error) {
	const name = "dkim-key-table"
	own, err := p.document(p.Milterd.Config)
	if err != nil {
		return nil, err
	}
	tables := own.Values(name)
	for _, s := range p.milterd.list {
		if s.Name == name && tables == nil {
			tables = s.Values
		}
	}
	var all []string
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err != nil {
			continue // a table of Postfix, or the daemon will say why
		}
		for _, line := range entries(string(text)) {
			if at := strings.LastIndex(line, ":/"); at >= 0 {
				all = append(all, p.path(line[at+1:]))
			}
		}
	}
	return all, nil
}

// carryKeys carries over the keys. They are copied, because OpenDKIM's files belong to
// its user.
func (p *planner) carryKeys(own options) {
	if p.isMailInABox() {
		p.milterd.set("dkim-keys", "")
		p.milterd.set("dkim-key-table", p.path(tableOf(own.get("KeyTable"))))
		p.milterd.set("dkim-signing-table", "refile:"+p.path(tableOf(own.get("SigningTable"))))
		return
	}
	if own.get("KeyTable") != "" {
		p.carryTables(own)
		return
	}
	if file := own.get("KeyFile"); file != "" {
		for _, domain := range p.dataSet(own.get("Domain")) {
			p.copyKey(dkimKey{domain, own.get("Selector"), file})
		}
		if own.yes("SubDomains") { // it is about Domain; tables name the domains below themselves
			p.milterd.set("dkim-subdomains", "true")
		}
		p.useKeyFolder()
	}
}

// dataSet returns the entries of a data set of OpenDKIM: of a file, or of a list.
func (p *planner) dataSet(text string) []string {
	if file := tableOf(text); file != "" {
		return entries(p.read(file))
	}
	var all []string
	for entry := range strings.SplitSeq(strings.TrimPrefix(text, "csl:"), ",") {
		if entry = strings.TrimSpace(entry); entry != "" {
			all = append(all, entry)
		}
	}
	return all
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
	if !filepath.IsLocal(strings.ToLower(k.domain)) || !filepath.IsLocal(k.selector) || strings.ContainsAny(k.domain+k.selector, "/*%:") {
		p.cannot("key %s: its domain %q or selector %q is no name; copy it to %s/DOMAIN/SELECTOR.private for each domain", k.path, hidePassword(k.domain), k.selector, p.keyFolder())
		return "", false
	}
	path = filepath.Join(p.keyFolder(), strings.ToLower(k.domain), k.selector+".private")
	if p.otherKey(path, text) {
		p.cannot("key %s of %s: another one has the selector %s", k.path, k.domain, k.selector)
		return "", false
	}
	p.addKey(path, text)
	return path, true
}

// otherKey reports whether the plan has another key at a path.
func (p *planner) otherKey(path, text string) bool {
	return slices.ContainsFunc(p.plan.Files, func(f File) bool { return f.Path == path && string(f.Text) != text })
}

func (p *planner) addKey(path, text string) {
	if slices.ContainsFunc(p.plan.Files, func(f File) bool { return f.Path == path }) {
		return
	}
	p.plan.Files = append(p.plan.Files, File{Path: path, Text: []byte(text), Mode: 0o600, Owner: p.User, Secret: true})
}

// copyKeysOfAny plans copies of the keys of a row whose domain is "%", the author's: one
// for each domain that has a key now, or one for all. It returns the path for the row.
func (p *planner) copyKeysOfAny(selector, path string) (string, bool) {
	if !strings.Contains(path, "%") {
		text := p.read(path)
		if text == "" || !filepath.IsLocal(selector) || strings.Contains(selector, "/") {
			p.cannot("key %s of any domain: it cannot be read, or its selector %q is no name", path, selector)
			return "", false
		}
		copied := filepath.Join(p.keyFolder(), selector+".private")
		if p.otherKey(copied, text) {
			p.cannot("key %s of any domain: another one has the selector %s", path, selector)
			return "", false
		}
		p.addKey(copied, text)
		return copied, true
	}
	found := false
	for _, key := range p.keysAt(path, "%", selector) {
		_, ok := p.copyKey(key)
		found = found || ok
	}
	if !found {
		p.cannot("key %s of any domain: no domain has such a file", path)
	}
	return filepath.Join(p.keyFolder(), "%", selector+".private"), found
}

// keysAt returns the keys with a selector at a path in which mark stands for the domain, once
// or more often.
func (p *planner) keysAt(path, mark, selector string) []dkimKey {
	files, _ := filepath.Glob(p.path(strings.ReplaceAll(path, mark, "*")))
	var all []dkimKey
	for _, file := range files {
		file = "/" + strings.TrimPrefix(strings.TrimPrefix(file, p.path("/")), "/")
		marks := strings.Count(path, mark)
		at, octets := strings.Index(path, mark), (len(file)-len(path))/marks+len(mark)
		if octets <= 0 || at+octets > len(file) {
			continue
		}
		if domain := file[at : at+octets]; strings.ReplaceAll(path, mark, domain) == file {
			all = append(all, dkimKey{domain, selector, file})
		}
	}
	return all
}

// passwordIn matches the password of a data source ("dsn:mysql://user:password@host/…").
var passwordIn = regexp.MustCompile(`(://[^:/@]*:)[^/]*@`)

func hidePassword(source string) string { return passwordIn.ReplaceAllString(source, "${1}…@") }

// carryTables carries over a key table and a signing table. They are not needed if
// every sender is signed with a key of its own domain, and every key signs: our folder
// of keys does the same.
func (p *planner) carryTables(own options) {
	keys, senders := tableOf(own.get("KeyTable")), tableOf(own.get("SigningTable"))
	if keys == "" || senders == "" {
		p.cannot("OpenDKIM: KeyTable %s, SigningTable %s: none of their keys signs here; write the tables into files before you attach Postern, or keep OpenDKIM: --signer OpenDKIM", hidePassword(own.get("KeyTable")), hidePassword(own.get("SigningTable")))
		return
	}
	byName := make(map[string]dkimKey)
	var table strings.Builder
	table.WriteString("# " + keys + ", with the keys that postern-milterd may read.\n")
	for _, line := range entries(p.read(keys)) {
		name, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		parts := strings.SplitN(strings.TrimSpace(value), ":", 3)
		if len(parts) != 3 || !strings.HasPrefix(parts[2], "/") { // what follows may be the key itself
			p.cannot("OpenDKIM: key %s of %s is not named by an absolute path; write it into a file", name, keys)
			continue
		}
		key := dkimKey{parts[0], parts[1], parts[2]}
		var path string
		var ok bool
		if key.domain == "%" {
			path, ok = p.copyKeysOfAny(key.selector, key.path)
		} else {
			key.path = strings.ReplaceAll(key.path, "%", key.domain)
			path, ok = p.copyKey(key)
		}
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
	if len(byName) == 0 {
		return // nothing signs, and the daemon refuses tables without a key
	}
	copied := "# " + senders + "\n" + strings.Join(p.sendersWith(senders, byName), "\n") + "\n"
	p.plan.Files = append(p.plan.Files,
		File{Path: filepath.Join(folder, "KeyTable"), Text: []byte(table.String()), Mode: 0o644},
		File{Path: filepath.Join(folder, "SigningTable"), Text: []byte(copied), Mode: 0o644})
	p.milterd.set("dkim-keys", "")
	p.milterd.set("dkim-key-table", filepath.Join(folder, "KeyTable"))
	p.milterd.set("dkim-signing-table", kind+filepath.Join(folder, "SigningTable"))
}

// sendersWith returns the lines of a signing table without the names of keys that are not
// carried over: with one, the daemon would not start.
func (p *planner) sendersWith(file string, keys map[string]dkimKey) []string {
	var all []string
	for _, line := range entries(p.read(file)) {
		at := strings.IndexAny(line, " \t")
		if at < 0 {
			p.cannot("OpenDKIM: line %q of %s: it names no key", line, file)
			continue
		}
		names := strings.Split(line[at:], ",")
		there := slices.DeleteFunc(slices.Clone(names), func(entry string) bool {
			name, _, _ := strings.Cut(strings.TrimSpace(entry), ":")
			_, ok := keys[name]
			return !ok && name != "%"
		})
		switch {
		case len(there) == len(names):
			all = append(all, line)
			continue
		case len(there) > 0:
			all = append(all, line[:at]+" "+strings.TrimSpace(strings.Join(there, ",")))
		}
		p.cannot("OpenDKIM: line %q of %s: a key that it names is not carried over, and does not sign", line, file)
	}
	return all
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
// its addresses, to a key of that domain, and every key has a line. One without a line,
// as the last or the next of a rotation, must not sign: its record may not be published.
func (p *planner) simpleSenders(file string, keys map[string]dkimKey) bool {
	sign := make(map[string]bool)
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
		sign[fields[1]] = true
	}
	return len(sign) == len(keys)
}

// carryInternalHosts carries over the networks whose mail OpenDKIM signs at port 25.
// Loopback is left out, because content filters hand back the mail of others from
// there.
func (p *planner) carryInternalHosts(own options) {
	hosts := own.get("InternalHosts")
	var networks []string
	signsLoopback := hosts == "" // its default is 127.0.0.1
	for _, host := range p.dataSet(hosts) {
		network, ok := postconf.Network(host)
		switch {
		case isOwnHost(host):
			signsLoopback = true
		case strings.HasPrefix(host, "!"):
			p.cannot("OpenDKIM: InternalHosts leaves out %s; internal-networks has no exceptions, so name what is around it instead", host)
		case !ok:
			p.cannot("OpenDKIM: InternalHosts names %s; write its address into internal-networks", hidePassword(host))
		case network.Bits() == 0:
			p.cannot("OpenDKIM: InternalHosts names %s, so it signs whatever comes in and verifies nothing; write the networks whose mail is yours into internal-networks", host)
			signsLoopback = true
		case network.IsSingleIP():
			networks = append(networks, network.Addr().String())
		default:
			networks = append(networks, network.Masked().String())
		}
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
