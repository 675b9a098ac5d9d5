// Parsing the settings of other programs.

package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxConf bounds the size of the files that are read.
const maxConf = 1 << 20

// read returns the text of a file of the system, or "" if there is none. A file that
// cannot be read is a warning.
func (p *planner) read(name string) string {
	data, err := os.ReadFile(p.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.warn("%v; what it says is not carried over", err)
	}
	return string(data[:min(len(data), maxConf)])
}

// options are the settings of another program. The names are in lower case.
type options map[string]string

// get returns the first of the named settings that is set.
func (o options) get(names ...string) string {
	for _, name := range names {
		if value, ok := o[strings.ToLower(name)]; ok {
			return value
		}
	}
	return ""
}

// yes reports whether a setting is on.
func (o options) yes(name string) bool {
	switch strings.ToLower(o.get(name)) {
	case "yes", "true", "1", "y", "on":
		return true
	}
	return false
}

// parseOptions parses lines of a name and a value, with white space or the separator
// between them.
func parseOptions(text, separator string) options {
	all := make(options)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value := line, ""
		if at := strings.IndexAny(line, separator+" \t"); at >= 0 {
			name, value = line[:at], strings.TrimSpace(strings.TrimLeft(line[at:], separator+" \t"))
		}
		if at := strings.Index(value, " #"); at >= 0 {
			value = strings.TrimSpace(value[:at])
		}
		all[strings.ToLower(name)] = value
	}
	return all
}

// shellVariable returns the value of a variable in a file for the shell, such as those
// in /etc/default.
func shellVariable(text, name string) string {
	value := ""
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			value = strings.Trim(strings.TrimSpace(rest), `"'`)
		}
	}
	return value
}

// entries returns the lines of a file with one entry a line.
func entries(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

// sameSocket reports whether own, the socket in another program's settings, is the one
// that Postfix asks. Postfix looks up relative paths in its queue directory, and
// absolute ones there too when it is chrooted.
func sameSocket(own, asked string) bool {
	own = normal(strings.TrimSpace(own))
	if own == asked {
		return own != ""
	}
	ownPath, isUnix := strings.CutPrefix(own, "unix:")
	askedPath, alsoUnix := strings.CutPrefix(asked, "unix:")
	if isUnix && alsoUnix {
		return filepath.Base(ownPath) == filepath.Base(askedPath) && strings.HasSuffix("/"+strings.TrimPrefix(ownPath, "/"), "/"+strings.TrimPrefix(askedPath, "/"))
	}
	// "inet:8891" listens on every address.
	ownPort, askedPort := own[strings.LastIndexByte(own, ':')+1:], asked[strings.LastIndexByte(asked, ':')+1:]
	return !isUnix && !alsoUnix && own != "" && ownPort == askedPort && strings.Count(own, ":") < 2
}
