// Drop-ins for the systemd units, for paths that the units do not cover.

package setup

import (
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// unitFolders are the folders of units, in the order in which systemd searches them.
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unit returns the text of an installed unit, or "" if there is none.
func (o *Options) unit(name string) string {
	for _, folder := range unitFolders {
		if data, err := os.ReadFile(o.path(filepath.Join(folder, name))); err == nil {
			return string(data)
		}
	}
	return ""
}

// dropIns plans the drop-ins of the units that are installed.
func (p *planner) dropIns() {
	if p.attaches(Policyd) {
		p.socketDropIn("postern-policyd.socket", p.Policy)
		p.serviceDropIn("postern-policyd.service", p.pathLines(p.paths, "postern", "postfix"))
	}
	if p.attaches(Milterd) {
		p.socketDropIn("postern-milterd.socket", p.Verify)
		p.socketDropIn("postern-milterd-sign.socket", p.Sign)
		p.serviceDropIn(milterdUnit, p.milterdLines())
		if user := p.plan.MilterdUser; user != "" { // only that user may ask the daemon
			p.serviceDropIn("postern-report.service", []string{"User=" + user, "Group=" + user})
		}
	}
}

func (p *planner) serviceDropIn(unit string, lines []string) {
	if len(lines) == 0 || p.unit(unit) == "" {
		return
	}
	p.dropIn(unit, "[Service]\n"+strings.Join(lines, "\n")+"\n")
}

// ownDropIn is the name of our drop-ins.
const ownDropIn = "setup.conf"

func (p *planner) dropIn(unit, text string) {
	p.plan.Files = append(p.plan.Files, File{
		Path: p.path("/etc/systemd/system/" + unit + ".d/" + ownDropIn), Mode: 0o644,
		Text: []byte("# Written by postern setup for this site.\n" + text),
	})
}

// hidden are the folders that the units hide from the daemons.
var hidden = []string{"/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/"}

// pathLines returns the lines that let a daemon read files in hidden folders, or of a
// group that its unit does not have. The other files of a hidden folder stay hidden.
func (p *planner) pathLines(paths []string, has ...string) []string {
	var folders, groups []string
	for _, path := range paths {
		within := "/" + strings.TrimPrefix(strings.TrimPrefix(filepath.Clean(path), p.Root), "/")
		if slices.ContainsFunc(hidden, func(h string) bool { return strings.HasPrefix(within, h) }) {
			addOnce(&folders, "-"+filepath.Dir(within))
		}
		if group := groupOf(path); group != "" && !slices.Contains(has, group) {
			addOnce(&groups, group)
		}
	}
	var lines []string
	if len(folders) > 0 {
		lines = append(lines, "BindReadOnlyPaths="+strings.Join(folders, " "))
	}
	if len(groups) > 0 {
		lines = append(lines, "SupplementaryGroups="+strings.Join(groups, " "))
	}
	return lines
}

// groupOf returns the group that a daemon needs to read a file, or "" if it needs none.
func groupOf(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o004 != 0 || info.Mode().Perm()&0o040 == 0 {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Gid == 0 {
		return ""
	}
	group, err := user.LookupGroupId(strconv.FormatUint(uint64(stat.Gid), 10))
	if err != nil {
		return ""
	}
	return group.Name
}

// listenVerify matches the flag of the unit by which all mail of a socket counts as
// mail of others.
var listenVerify = regexp.MustCompile(`--listen-verify (systemd:\S+)`)

// milterdLines returns the lines for the milter daemon: on an appliance another user,
// and where users log in at port 25 the flag by which the session decides whose mail it
// is.
func (p *planner) milterdLines() []string {
	var lines []string
	if user := p.plan.MilterdUser; user != "" {
		// The unit's folders belong to the other daemon's user, and systemd would change
		// their owner to User=. So the daemon gets its own, which it sees at the usual path.
		lines = append(lines, "User="+user, "Group="+user,
			"RuntimeDirectory=", "RuntimeDirectory=postern-milterd",
			"StateDirectory=", "StateDirectory=postern-milterd", "BindPaths=/var/lib/postern-milterd:/var/lib/postern")
	}
	lines = append(lines, p.pathLines(p.milterdPaths, "postern")...)
	if !p.bySession {
		return lines
	}
	if p.unit(milterdUnit) != "" {
		lines = append(lines, p.sessionLines()...)
	}
	return lines
}

const milterdUnit = "postern-milterd.service"

// sessionLines returns the unit's commands with the flag by which the session decides. They
// take the place of those of the unit, and of drop-ins that systemd reads before ours.
func (p *planner) sessionLines() (lines []string) {
	_, after := p.dropInsOf(milterdUnit)
	lines = append(lines, "# The commands of the unit and of the drop-ins before this one, with --listen for --listen-verify.",
		"# If you change those, run postern setup again.")
	for _, key := range commandKeys {
		for _, own := range after {
			if verifiesAll(key, own) {
				p.warn("%s is read after %s, and its %s= has --listen-verify: write --listen in its place, or mail of users who log in at port 25 is not signed", own.Path, ownDropIn, key)
			}
		}
		lines = append(lines, key+"=")
		for _, command := range p.sessionCommands(key) {
			lines = append(lines, key+"="+command)
		}
		if text := strings.Join(lines, " "); key == "ExecStart" && !strings.Contains(text, "--listen systemd:") {
			p.warn("ExecStart= of %s has no --listen-verify systemd:verify: let it have --listen systemd:verify, or mail of users who log in at port 25 is not signed", milterdUnit)
		}
	}
	return lines
}

// commandKeys are the keys of a unit whose commands have the flag.
var commandKeys = []string{"ExecStart", "ExecReload"}

// sessionCommands returns the commands of the milter daemon's unit, and of the drop-ins
// before ours, with the flag by which the session decides.
func (o *Options) sessionCommands(key string) []string {
	texts := [][]byte{[]byte(o.unit(milterdUnit))}
	before, _ := o.dropInsOf(milterdUnit)
	for _, own := range before {
		texts = append(texts, own.Text)
	}
	all := commands(key, texts...)
	for i, command := range all {
		all[i] = listenVerify.ReplaceAllString(command, "--listen $1")
	}
	return all
}

// DropInTrouble looks at the commands in setup's drop-in for the milter daemon, if it has
// any. stale is the path of that drop-in if the commands are no longer those of the unit and
// of the drop-ins before it: systemd takes no notice of what was changed there. after is the
// path of a drop-in after it that has --listen-verify again. root is as in [Options].
func DropInTrouble(root string) (stale, after string) {
	o := &Options{Root: root}
	path := o.path("/etc/systemd/system/" + milterdUnit + ".d/" + ownDropIn)
	text, err := os.ReadFile(path)
	if err != nil || o.unit(milterdUnit) == "" || len(commands("ExecStart", text)) == 0 {
		return "", "" // there is none, it has no effect, or it has no commands
	}
	for _, key := range commandKeys {
		if !slices.Equal(commands(key, text), o.sessionCommands(key)) {
			stale = path
		}
	}
	_, later := o.dropInsOf(milterdUnit)
	for _, own := range later {
		if verifiesAll("ExecStart", own) {
			after = own.Path
		}
	}
	return stale, after
}

// verifiesAll reports whether the commands of a drop-in have the flag that setup replaces.
func verifiesAll(key string, own File) bool {
	return listenVerify.MatchString(strings.Join(commands(key, own.Text), " "))
}

// dropInsOf returns the drop-ins of a unit, but for our own, in the order in which systemd
// reads them: by name, in whatever folder. before are those that ours overrides. Of several
// with the same name only the first counts.
func (o *Options) dropInsOf(unit string) (before, after []File) {
	found := make(map[string]File)
	for _, folder := range unitFolders {
		folder = o.path(filepath.Join(folder, unit+".d"))
		names, _ := filepath.Glob(filepath.Join(folder, "*.conf"))
		for _, path := range names {
			name := filepath.Base(path)
			if _, masked := found[name]; masked || name == ownDropIn {
				continue
			}
			text, _ := os.ReadFile(path) // systemd does not read it either
			found[name] = File{Path: path, Text: text}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if name < ownDropIn {
			before = append(before, found[name])
		} else {
			after = append(after, found[name])
		}
	}
	return before, after
}

// commands returns the commands of a key in texts of a unit: a later one is added, and an
// empty one removes those before it.
func commands(key string, texts ...[]byte) (all []string) {
	for _, text := range texts {
		section, rest := "", ""
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
				continue // also between the lines of one command
			}
			if head, goesOn := strings.CutSuffix(line, `\`); goesOn {
				rest += head + " "
				continue
			}
			line, rest = strings.TrimSpace(rest+line), ""
			if strings.HasPrefix(line, "[") {
				section = line
			}
			name, command, ok := strings.Cut(line, "=")
			switch command = strings.TrimSpace(command); {
			case !ok || section != "[Service]" || strings.TrimSpace(name) != key:
			case command == "":
				all = nil
			default:
				all = append(all, command)
			}
		}
	}
	return all
}

// socketDropIn plans a drop-in for where systemd listens, if the unit's own address is
// not the right one.
func (p *planner) socketDropIn(unit, endpoint string) {
	text := p.unit(unit)
	if text == "" {
		return
	}
	kind, address, _ := strings.Cut(endpoint, ":")
	own := ""
	if kind == "unix" {
		if !strings.HasPrefix(address, "/") {
			address = filepath.Join(p.value("queue_directory"), address)
		}
		own = "SocketUser=postfix\nSocketGroup=postfix\nSocketMode=0660\n"
	}
	if strings.Contains("\n"+text, "\nListenStream="+address+"\n") {
		return
	}
	p.dropIn(unit, "[Socket]\nListenStream=\nListenStream="+address+"\n"+own)
}
