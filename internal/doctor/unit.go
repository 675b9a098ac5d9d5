package doctor

import (
	"context"
	"net"
	"path/filepath"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/postconf"
)

// Unit is what systemd knows about a unit. The zero value is an unknown unit.
type Unit struct {
	Name       string
	Properties map[string]string
	Descriptor string  // FileDescriptorName= of a socket
	Listen     []place // of a socket
}

// unitProperties are the properties that checks look at.
var unitProperties = []string{
	"LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NeedDaemonReload", "ExecStart", "Environment",
	"User", "Group", "SupplementaryGroups", "FileDescriptorName", "Listen", "ProtectHome", "ProtectSystem", "PrivateTmp",
	"ReadWritePaths", "InaccessiblePaths", "StateDirectory", "RuntimeDirectory", "LogsDirectory", "ExecMainStatus", "LoadError",
	"BindPaths", "BindReadOnlyPaths", "LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted",
}

// readUnits asks systemd about units. Without systemd, all are unknown.
func readUnits(ctx context.Context, names []string) []Unit {
	units := make([]Unit, len(names))
	args := append([]string{"show", "--property=" + strings.Join(unitProperties, ","), "--"}, names...)
	out, _, err := postconf.Run(ctx, "systemctl", args...)
	blocks := strings.Split(out, "\n\n")
	for i, name := range names {
		units[i] = Unit{Name: name, Properties: make(map[string]string)}
		if err == nil && len(blocks) == len(names) {
			units[i].read(blocks[i])
		}
	}
	return units
}

// read parses systemd's text about one unit.
func (u *Unit) read(text string) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key == "Listen" { // one line for each socket
			u.listen(value)
			continue
		}
		u.Properties[key] = value
	}
	u.Descriptor = u.Properties["FileDescriptorName"]
}

// listen parses a line such as "127.0.0.1:10045 (Stream)".
func (u *Unit) listen(value string) {
	address, kind, _ := strings.Cut(value, " ")
	if kind != "(Stream)" {
		return
	}
	at := place{daemon.NetworkTCP, address}
	if filepath.IsAbs(address) {
		at.network = daemon.NetworkUnix
	} else if _, _, err := net.SplitHostPort(address); err != nil {
		return
	}
	u.Listen = append(u.Listen, at)
}

func (u Unit) known() bool { return u.Properties["LoadState"] == "loaded" }

func (u Unit) active() bool { return u.Properties["ActiveState"] == "active" }

// enabled reports whether the unit starts with the machine.
func (u Unit) enabled() bool { return strings.HasPrefix(u.Properties["UnitFileState"], "enabled") }

// args returns the arguments in ExecStart=, without the program.
func (u Unit) args() []string {
	_, rest, ok := strings.Cut(u.Properties["ExecStart"], "argv[]=")
	if !ok {
		return nil
	}
	line, _, _ := strings.Cut(rest, " ;")
	words := strings.Fields(line)
	if len(words) == 0 {
		return nil
	}
	return words[1:]
}

// credentials returns the folder of the unit's credentials, or "".
func (u Unit) credentials() string {
	for _, property := range []string{"LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted"} {
		if u.Properties[property] != "" {
			return filepath.Join("/run/credentials", u.Name)
		}
	}
	return ""
}

// binds reports whether the unit binds a path that it would hide otherwise.
func (u Unit) binds(path string) bool {
	for _, spec := range append(u.words("BindPaths"), u.words("BindReadOnlyPaths")...) {
		parts := strings.Split(strings.TrimLeft(spec, "-"), ":")
		if below(path, parts[min(1, len(parts)-1)]) {
			return true
		}
	}
	return false
}

// words returns the parts of a property that is a list.
func (u Unit) words(property string) []string { return strings.Fields(u.Properties[property]) }
