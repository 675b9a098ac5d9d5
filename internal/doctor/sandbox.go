package doctor

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
)

// sandbox finds paths in the settings that the unit hides from the daemon, or does not
// let it write.
func (d *Daemon) sandbox() []Finding {
	var found []Finding
	u := d.Unit
	for _, path := range d.pathsOfSettings() {
		hides := ""
		switch {
		case u.binds(path.name) || d.sees(path.name):
		case u.Properties["PrivateTmp"] == "yes" && (below(path.name, "/tmp") || below(path.name, "/var/tmp")):
			hides = "PrivateTmp="
		case slices.Contains([]string{"yes", "tmpfs"}, u.Properties["ProtectHome"]) && (below(path.name, "/home") || below(path.name, "/root") || below(path.name, "/run/user")):
			hides = "ProtectHome="
		case slices.ContainsFunc(u.words("InaccessiblePaths"), func(p string) bool { return below(path.name, strings.TrimLeft(p, "-+")) }):
			hides = "InaccessiblePaths="
		}
		switch {
		case hides != "":
			found = append(found, failf(d.letSee(path, hides),
				"%s: %s of the unit hides %s (%s)", u.Name, hides, path.name, path.setting))
		case path.written && u.Properties["ProtectSystem"] == "strict" && !u.writes(path.name):
			found = append(found, failf(d.letWrite(path),
				"%s: the unit does not let the daemon write %s (%s)", u.Name, path.name, path.setting))
		}
	}
	return found
}

// letSee returns how to let the daemon see a file that a property of its unit hides.
func (d *Daemon) letSee(path settingPath, hides string) string {
	switch {
	case hides == "InaccessiblePaths=":
		return "move it to another folder below /etc/postern"
	case path.written:
		return fmt.Sprintf("move it to /var/lib/postern, or systemctl edit %s, and add [Service] BindPaths=%s", d.Unit.Name, path.folder())
	}
	return fmt.Sprintf("move it to /etc/postern, or systemctl edit %s, and add [Service] BindReadOnlyPaths=%s", d.Unit.Name, path.folder())
}

// letWrite returns how to let the daemon write a file or make a socket. systemd does not
// start a unit whose ReadWritePaths= names a folder that does not exist.
func (d *Daemon) letWrite(path settingPath) string {
	user := packageUser
	if d.Identity != nil {
		user, _, _ = strings.Cut(d.Identity.Name, ":")
	}
	switch edit := "systemctl edit " + d.Unit.Name; path.setting {
	case "log-file":
		return fmt.Sprintf("%s, add [Service] LogsDirectory=postern, and set log-file = \"/var/log/postern/%s.log\"", edit, d.Name)
	case dkimKeys:
		return fmt.Sprintf("%s, and add [Service] ReadWritePaths=%s", edit, path.folder())
	default:
		own := fmt.Sprintf("make a folder for it (install -d -o %s FOLDER), then %s, and add [Service] ReadWritePaths=FOLDER", user, edit)
		if d.Unit.writes("/var/lib/postern") {
			return "move it to /var/lib/postern (a socket: /run/postern); or " + own
		}
		if folders := d.Unit.words("StateDirectory"); len(folders) > 0 {
			return fmt.Sprintf("move it to /var/lib/%s; or %s", folders[0], own)
		}
		return own
	}
}

// sees reports whether the running daemon can see a path in its view of the file
// system.
func (d *Daemon) sees(path string) bool {
	if d.PID == 0 {
		return false
	}
	_, err := os.Stat(procPath(d.PID, "root") + path)
	return err == nil
}

// settingPath is a file or folder that a setting names.
type settingPath struct {
	name, setting string
	written       bool
}

// folder returns the folder that the daemon writes into.
func (p settingPath) folder() string {
	if p.setting == dkimKeys {
		return p.name
	}
	return filepath.Dir(p.name)
}

// dkimKeys is the setting that names the folder of keys. A daemon that rotates keys
// writes into it.
const dkimKeys = "dkim-keys"

// rotatesKeys reports whether the daemon writes into the folder of keys.
func (d *Daemon) rotatesKeys() bool { return d.seconds("dkim-rotate") > 0 }

// pathsOfSettings returns all absolute paths in the settings.
func (d *Daemon) pathsOfSettings() []settingPath {
	written := []string{"greylist-store", "limit-store", "report-store", "log-file", "mark-key-file"}
	sockets := []string{"listen", "listen-verify", "listen-sign", "admin", "metrics-listen", "status-listen"}
	var all []settingPath
	for name, values := range d.Settings {
		for _, value := range values {
			if slices.Contains(sockets, name) {
				if e, err := daemon.ParseEndpoint(value, d.text("queue-directory")); err == nil && e.Network == daemon.NetworkUnix {
					all = append(all, settingPath{e.Address, name, true})
				}
				continue
			}
			at := strings.IndexByte(value, '/')
			scheme := value[:max(0, at)]
			if at < 0 || strings.HasPrefix(value[at:], "//") || scheme != "" && !strings.HasSuffix(scheme, ":") {
				continue
			}
			path := value[at:]
			if name == "dns-update" { // tsig:FILE@SERVER
				path = path[:max(strings.LastIndexByte(path, '@'), 0)]
			}
			all = append(all, settingPath{path, name, slices.Contains(written, name) || name == dkimKeys && d.rotatesKeys()})
		}
	}
	slices.SortFunc(all, func(a, b settingPath) int {
		return cmp.Or(cmp.Compare(a.setting, b.setting), cmp.Compare(a.name, b.name))
	})
	return all
}

// writes reports whether a unit under ProtectSystem=strict may write a path.
func (u Unit) writes(path string) bool {
	for property, root := range map[string]string{"StateDirectory": "/var/lib", "RuntimeDirectory": "/run", "LogsDirectory": "/var/log"} {
		for _, name := range u.words(property) {
			if below(path, filepath.Join(root, name)) {
				return true
			}
		}
	}
	for _, spec := range u.words("BindPaths") {
		parts := strings.Split(strings.TrimLeft(spec, "-"), ":")
		if below(path, parts[min(1, len(parts)-1)]) {
			return true
		}
	}
	free := append(u.words("ReadWritePaths"), "/dev", "/proc", "/sys")
	return slices.ContainsFunc(free, func(p string) bool { return below(path, strings.TrimLeft(p, "-+")) })
}

func below(path, folder string) bool {
	path, folder = filepath.Clean(path), filepath.Clean(folder)
	return path == folder || strings.HasPrefix(path, strings.TrimSuffix(folder, "/")+"/")
}
