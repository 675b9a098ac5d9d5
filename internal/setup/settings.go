// The settings of our daemons that follow from those of Postfix.

package setup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/internal/postconf"
	"github.com/postern-mail/postern/internal/postmap"
)

// settings are the settings of one daemon, in the order in which they were set.
type settings struct {
	list  []config.Setting
	unset []string
}

func (s *settings) set(name string, values ...string) {
	for i := range s.list {
		if s.list[i].Name == name {
			s.list[i].Values = values
			return
		}
	}
	s.list = append(s.list, config.Setting{Name: name, Values: values})
}

// addValues adds values to a list.
func (s *settings) addValues(name string, values ...string) {
	for i := range s.list {
		if s.list[i].Name == name {
			values = append(s.list[i].Values, values...)
		}
	}
	var once []string
	for _, v := range values {
		if !slices.Contains(once, v) {
			once = append(once, v)
		}
	}
	s.set(name, once...)
}

// policydSettings plans the file of the policy daemon.
func (p *planner) policydSettings() error {
	s := &p.policyd
	checks, err := p.usualChecks()
	if err != nil {
		return err
	}
	if p.checks != nil && p.wantsGreylist && !slices.Contains(p.checks, "greylist") {
		checks = append(slices.Clone(p.checks), "greylist")
	}
	s.set("checks", checks...)
	p.listen(s, p.Policyd, "listen", p.Policy)
	p.watch(s)
	p.listSettings()
	if slices.ContainsFunc(p.with(Internet), func(s *Service) bool { return p.get(s, proxyFilter) != "" }) {
		s.set("greylist-header", "false") // there is no queue file that it could go into
	}
	if !p.userHooks {
		return nil
	}
	if p.runs("ownership") {
		logins := p.loginMaps()
		p.tables("owners", logins)
		if len(logins) == 0 {
			// Where Postfix knows the owners, who gets the mail of an alias owns it only if those tables say so.
			p.tables("owner-aliases", postconf.Split(p.value("virtual_alias_maps")))
		}
		if err := p.someTable(); err != nil {
			return err
		}
		switch {
		case p.unlistedPass && p.tableMissing:
			p.warn("Postfix lets users send what no table lists; postern-policyd does not, because a table is not read, and its senders would be anyone's. Once all tables are read, set owners-unlisted = \"pass\" in %s", p.Policyd.Config)
		case p.unlistedPass:
			s.set("owners-unlisted", "pass")
		}
	}
	return p.addressSettings()
}

// usualChecks returns the default checks without those that have nothing to do here. Where
// another Postfix asks the daemon too, what runs goes on to run.
func (p *planner) usualChecks() ([]string, error) {
	usual, needed := p.Policyd.Program.Default("checks"), []string(nil)
	if p.shared {
		file, err := p.document(p.Policyd.Config)
		if err != nil {
			return nil, err
		}
		if needed = listed(file, "checks"); len(needed) == 0 {
			needed = usual
		}
	}
	return slices.DeleteFunc(slices.Clone(usual), func(name string) bool {
		return !slices.Contains(needed, name) && (name == "ownership" && !p.userHooks || name == "greylist" && p.Greylister != ours)
	}), nil
}

// readChecks reads the checks that the administrator has written into policyd's file, and
// whether it has limits. They stay, so the hooks follow them. What an earlier run has
// written follows from Postfix again.
func (p *planner) readChecks() error {
	file, err := p.document(p.Policyd.Config)
	if err != nil {
		return err
	}
	all := listed(file, "checks")
	if p.Journal != "" {
		journals := JournalsOf(p.Journal, p.Dir)
		other, err := journals.heir(time.Now())
		if err != nil {
			return err
		}
		if p.ownChecks, err = journals.hasWritten(p.Policyd.Config, "checks", all); err != nil {
			return err
		}
		p.shared = other != nil
	}
	if len(all) > 0 && !p.ownChecks && !slices.Equal(all, p.Policyd.Program.Default("checks")) {
		p.checks = all
	}
	p.limited = len(file.Values("limit"))+len(file.Values("limit-overrides")) > 0
	return nil
}

// runs reports whether the policy daemon runs a check once the plan is carried out.
func (p *planner) runs(check string) bool {
	return p.checks == nil || slices.Contains(p.checks, check) || check == "greylist" && p.wantsGreylist
}

// someTable plans a table of our own if neither Postfix nor the file of settings has
// one. Each user then owns the address of the login, and whatever the administrator adds
// to the table.
func (p *planner) someTable() error {
	own, err := p.document(p.Policyd.Config)
	if err != nil {
		return err
	}
	if len(p.ownerTables(own)) > 0 {
		return nil
	}
	file := filepath.Join(filepath.Dir(p.Policyd.Config), "sender_logins")
	p.policyd.set("owners", "hash:"+file)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		p.plan.Files = append(p.plan.Files, File{Path: file, Mode: 0o644, Text: []byte("# Senders that users may use beside their own address, as in smtpd_sender_login_maps:\n# press@example.org alice bob\n")})
	}
	return nil
}

// listen plans the endpoint of a daemon, if it is not the default.
func (p *planner) listen(s *settings, d Daemon, name, endpoint string) {
	if !slices.Equal(d.Program.Default(name), []string{endpoint}) {
		s.set(name, endpoint)
	}
	p.socketGroup(s, endpoint)
	p.queueDirectory(s, d, endpoint)
}

// queueDirectory plans the folder below which relative paths of sockets are. Of several
// Postfixes, that of the first one stays.
func (p *planner) queueDirectory(s *settings, d Daemon, endpoints ...string) {
	if !p.shared {
		if queue := p.value("queue_directory"); !slices.Equal(d.Program.Default("queue-directory"), []string{queue}) {
			s.set("queue-directory", queue)
		}
		return
	}
	for _, endpoint := range endpoints {
		if path, isUnix := strings.CutPrefix(endpoint, "unix:"); isUnix && !filepath.IsAbs(path) {
			p.warn("%s is below the queue directory of each Postfix, and %s listens below that of one; give the daemons inet sockets", endpoint, d.Program.Name)
		}
	}
}

// socketGroup plans the group of a unix socket that the daemon binds itself, so that
// Postfix may open it.
func (p *planner) socketGroup(s *settings, endpoints ...string) {
	for _, endpoint := range endpoints {
		path, isUnix := strings.CutPrefix(endpoint, "unix:")
		if !isUnix {
			continue
		}
		s.set("socket-group", "postfix")
		if filepath.IsAbs(path) && !strings.HasPrefix(path, p.value("queue_directory")+"/") {
			p.warn("%s is not below Postfix's queue directory: a smtpd in a chroot does not reach it; a relative path, such as unix:postern/policyd.sock, is", endpoint)
		}
	}
}

// watch plans that a daemon only watches, or that it decides again.
func (p *planner) watch(s *settings) {
	if p.plan.Shadow {
		s.set("shadow", "all")
	} else if p.Shadow != nil {
		s.unset = append(s.unset, "shadow")
	}
}

// loginMaps returns the tables that map senders to logins, of the services where users log
// in. Those of main.cf count if one of these services has them.
func (p *planner) loginMaps() []string {
	const name = "smtpd_sender_login_maps"
	var all, first []string
	for i, s := range p.loginServices() {
		tables := postconf.Split(p.get(s, name))
		if i == 0 {
			first = tables
		} else if !slices.Equal(tables, first) {
			p.warn("%s differs between the services where users log in; postern-policyd has one list for all, and the first table that has a sender decides: look at owners in %s", name, p.Policyd.Config)
		}
		for _, table := range tables {
			if !slices.Contains(all, table) {
				all = append(all, table)
			}
		}
	}
	return all
}

// loginServices returns the services where users log in.
func (p *planner) loginServices() []*Service {
	return slices.DeleteFunc(slices.Clone(p.services), func(s *Service) bool {
		return s.Role != Users && s.Role != Internet || !p.logsIn(s)
	})
}

// tables plans a setting that names tables of Postfix as they are.
func (p *planner) tables(setting string, all []string) {
	for _, table := range all {
		table = strings.TrimPrefix(table, "proxy:")
		kind, name, _ := strings.Cut(table, ":")
		switch {
		case !slices.Contains(postmap.Known(), kind):
			p.cannot("table %s: tables of type %s are not read; write its entries into another kind of table and name that in %s", table, kind, setting)
			p.tableMissing = true
			continue
		case strings.HasPrefix(name, "/"):
			if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
				p.cannot("table %s: there is no %s (the text is read, not the compiled file)", table, name)
				p.tableMissing = true
				continue
			}
		case !withoutFile(kind, name):
			p.cannot("table %s: it is not named by the path of a file; write its settings into a file, and name that in Postfix and in %s (%s:/etc/postfix/…)", table, setting, kind)
			p.tableMissing = true
			continue
		}
		p.policyd.addValues(setting, table)
	}
}

// ownedFiles returns the files of the tables of owners in a file of settings.
func ownedFiles(d *config.Document) []string {
	var all []string
	for _, table := range slices.Concat(d.Values("owners"), d.Values("owner-aliases")) {
		if kind, name, _ := postmap.SplitSpec(table); strings.HasPrefix(name, "/") {
			all = append(append(all, name), databaseOf(kind, name)...)
		}
	}
	return all
}

// withoutFile reports whether a table that is not named by a path has no file. The
// settings of others are in main.cf, which Postfix alone reads.
func withoutFile(kind, name string) bool {
	return slices.Contains([]string{"inline", "static", "socketmap", "unionmap"}, kind) || strings.HasPrefix(name, "{")
}

// databaseOf returns the database files of a table.
func databaseOf(kind, file string) []string {
	if kind != "sqlite" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	if path := parseOptions(string(data), "=").get("dbpath"); path != "" {
		return []string{path}
	}
	return nil
}

// addressSettings plans the settings by which logins and senders are completed and
// compared.
func (p *planner) addressSettings() error {
	s := &p.policyd
	origin, err := p.origin(p.Root)
	if err != nil {
		return err
	}
	locals := p.localDomains()
	if len(locals) > 0 {
		s.set("local-domains", locals...)
	}
	s.set("myorigin", origin)
	s.set("mydomain", p.value("mydomain"))
	for _, name := range []string{"allow_percent_hack", "swap_bangpath", "append_at_myorigin", "append_dot_mydomain"} {
		flag, value := strings.ReplaceAll(name, "_", "-"), fmt.Sprint(p.yes(name))
		if !slices.Equal(p.Policyd.Program.Default(flag), []string{value}) {
			s.set(flag, value)
		}
	}
	if value := p.value("recipient_delimiter"); !slices.Equal(p.Policyd.Program.Default("recipient-delimiter"), []string{value}) {
		s.set("recipient-delimiter", value)
	}
	return p.loginDomain(origin, locals)
}

// localDomains returns the domains of mydestination, without the names of this machine
// that have no mail.
func (p *planner) localDomains() []string {
	var all []string
	for _, name := range postconf.Split(p.value("mydestination")) {
		name = strings.ToLower(name)
		switch {
		case strings.HasPrefix(name, "localhost") || name == "":
		case strings.ContainsAny(name, ":/"):
			p.cannot("mydestination: %s; write its domains into local-domains", name)
		case !slices.Contains(all, name):
			all = append(all, name)
		}
	}
	return all
}

// milterdSettings plans the file of the milter daemon.
func (p *planner) milterdSettings() {
	s := &p.milterd
	switch {
	case p.bySession:
		s.set("listen", p.Verify)
		s.set("listen-sign", p.Sign)
	case !p.signs():
		s.set("listen-verify", p.Verify)
	case p.Verify != DefaultVerify || p.Sign != DefaultSign:
		s.set("listen-verify", p.Verify)
		s.set("listen-sign", p.Sign)
	}
	p.socketGroup(s, p.Verify, p.Sign)
	p.queueDirectory(s, p.Milterd, p.Verify, p.Sign)
	p.watch(s)
	if p.plan.Shadow {
		// Mail is not signed, and gets no header field that another program may take
		// for its own.
		s.set("dkim-keys", "")
		s.set("authserv-id", shadowID+p.value("myhostname"))
		return
	}
	if p.Shadow != nil {
		p.milterd.unset = append(p.milterd.unset, "dkim-keys", "authserv-id")
	}
}

// shadowID is the prefix of the authserv-id that a milter in shadow mode writes its
// verdicts under.
const shadowID = "postern-shadow."

// The default endpoints of the daemons.
const (
	DefaultPolicy = "inet:127.0.0.1:10045"
	DefaultVerify = "inet:127.0.0.1:10046"
	DefaultSign   = "inet:127.0.0.1:10047"
)

// files plans the files of settings: a new file, or the existing one with our lines
// added.
func (p *planner) files() error {
	if p.attaches(Policyd) {
		if err := p.settingsFile(Policyd, p.Policyd, &p.policyd); err != nil {
			return err
		}
		policyd, err := p.document(p.Policyd.Config)
		if err != nil {
			return err
		}
		p.paths = append(p.paths, ownedFiles(policyd)...)
	}
	if p.attaches(Milterd) {
		keys, err := p.keyFiles()
		if err != nil {
			return err
		}
		p.milterdPaths = append(p.milterdPaths, keys...)
		if err := p.fromSettings(); err != nil {
			return err
		}
		if err := p.settingsFile(Milterd, p.Milterd, &p.milterd); err != nil {
			return err
		}
		if err := p.findKey(); err != nil {
			return err
		}
	}
	p.dropIns()
	return p.dropUnchanged()
}

// settingsFile plans one file of settings.
func (p *planner) settingsFile(name string, d Daemon, s *settings) error {
	lines, err := d.Program.Spell(s.list)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(d.Config)
	if errors.Is(err, fs.ErrNotExist) {
		data = fmt.Appendf(nil, "# %s: settings of %s.\n# Every setting: /usr/share/doc/postern/examples/%s\n", d.Config, d.Program.Name, filepath.Base(d.Program.DefaultFile))
	} else if err != nil {
		return err
	}
	before, err := config.ParseDocument(d.Config, data)
	if err != nil {
		return err
	}
	var set []config.Line
	for _, line := range lines {
		if slices.Contains(s.unset, line.Name) && p.mayUnset(before, line.Name) || p.mayReplace(d, before, line) {
			set = append(set, line)
		}
	}
	unset := slices.DeleteFunc(slices.Clone(s.unset), func(name string) bool {
		return !p.mayUnset(before, name) || slices.ContainsFunc(set, func(l config.Line) bool { return l.Name == name })
	})
	// The daemon does not start if a table that the file names does not exist.
	if name == Policyd && brokenTables(before.Values("owners")) && !slices.ContainsFunc(set, func(l config.Line) bool { return l.Name == "owners" }) {
		unset = append(unset, "owners")
	}
	if len(set) == 0 && len(unset) == 0 {
		return nil
	}
	p.plan.Files = append(p.plan.Files, File{
		Path: d.Config, Mode: 0o644, Text: before.Edit(unset, set, setComment),
		Settings: name, Set: set, Unset: unset,
	})
	return nil
}

// setComment is the comment above the settings that are added to a file.
const setComment = "Set by postern setup."

// mayReplace reports whether a line is written into a file. Settings of the
// administrator are kept.
func (p *planner) mayReplace(d Daemon, before *config.Document, line config.Line) bool {
	old := before.Get(line.Name)
	switch {
	case old != "" && slices.Equal(before.Values(line.Name), line.Values()):
		return false
	case old == "":
		// A default value need not be written.
		usual, err := d.Program.Spell([]config.Setting{{Name: line.Name, Values: d.Program.Default(line.Name)}})
		return err != nil || usual[0].Text != line.Text
	case line.Name == "shadow" || line.Name == "checks" && (p.ownChecks || p.wantsGreylist && !hasWord(before, "checks", "greylist")) || line.Name == "owners" && brokenTables(before.Values("owners")):
		return true
	}
	usual, err := d.Program.Spell([]config.Setting{{Name: line.Name, Values: d.Program.Default(line.Name)}})
	if err == nil && usual[0].Text == old {
		return true
	}
	p.warn("%s: %s stays as it is there; setup would write: %s", d.Config, line.Name, p.Hide(line.Text))
	return false
}

// mayUnset reports whether a setting is removed from a file. It is removed if it has
// the value that we set for shadow mode.
func (p *planner) mayUnset(before *config.Document, name string) bool {
	values := before.Values(name)
	switch name {
	case "dkim-keys":
		return slices.Equal(values, []string{""})
	case "authserv-id":
		return len(values) == 1 && strings.HasPrefix(values[0], shadowID)
	}
	return values != nil
}

// brokenTables reports whether a list of tables names a file that does not exist. What is
// not named by a path alone, such as a unionmap or the address of a socketmap, is none.
func brokenTables(list []string) bool {
	return slices.ContainsFunc(list, func(table string) bool {
		_, path, _ := postmap.SplitSpec(table)
		if !strings.HasPrefix(path, "/") {
			return false
		}
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// dropUnchanged removes files from the plan that already have their text.
func (p *planner) dropUnchanged() error {
	for i := range p.plan.Files {
		f := &p.plan.Files[i]
		var err error
		if f.before, err = look(f.Path); err != nil {
			return err
		}
	}
	p.plan.Files = slices.DeleteFunc(p.plan.Files, func(f File) bool { return f.before.Exists && bytes.Equal(f.before.Text, f.Text) })
	return nil
}

func (s *settings) drop(name string) {
	s.list = slices.DeleteFunc(s.list, func(one config.Setting) bool { return one.Name == name })
}
