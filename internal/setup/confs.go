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
		line = strings.TrimSpace(withoutComment(line, separator))
		if line == "" || line[0] == ';' {
			continue
		}
		name, value := line, ""
		if at := strings.IndexAny(line, separator+" \t"); at >= 0 {
			name, value = line[:at], strings.TrimSpace(strings.TrimLeft(line[at:], separator+" \t"))
		}
		all[strings.ToLower(name)] = value
	}
	return all
}

// withoutComment cuts off the comment of a line. OpenDKIM and OpenDMARC, which have no
// separator, begin one at any "#", others at one behind white space.
func withoutComment(line, separator string) string {
	for i := range len(line) {
		if line[i] == '#' && (separator == "" || i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}

// shellVariable returns the value of a variable in a file for the shell, such as those
// in /etc/default, as the shell reads it: quotes, comments, lines that go on, and other
// variables. Without quotes, a value may have white space, which systemd allows.
func shellVariable(text, name string) string {
	all := make(map[string]string)
	for text = strings.ReplaceAll(text, "\\\n", ""); text != ""; {
		text = strings.TrimPrefix(strings.TrimLeft(text, " \t\r\n"), "export ")
		word := strings.IndexFunc(text, func(r rune) bool { return !inName(r) })
		if word <= 0 || text[word] != '=' {
			_, text, _ = strings.Cut(text, "\n")
			continue
		}
		set := text[:word]
		all[set], text = shellValue(text[word+1:], all)
	}
	return all[name]
}

func inName(r rune) bool {
	return r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}

// shellValue parses what stands behind the "=", and returns the rest of the text too. A
// variable that is not set stays as it is written.
func shellValue(text string, all map[string]string) (value, rest string) {
	var b strings.Builder
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quote == 0 && c == '\n', quote == 0 && c == '#' && i > 0 && strings.IndexByte(" \t", text[i-1]) >= 0:
			return strings.TrimSpace(b.String()), text[i:]
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote != '\'' && c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		case quote != '\'' && c == '$':
			name := text[i+1:]
			name = strings.TrimPrefix(name, "{")
			if end := strings.IndexFunc(name, func(r rune) bool { return !inName(r) }); end >= 0 {
				name = name[:end]
			}
			known, ok := all[name]
			if !ok {
				b.WriteByte(c)
				continue
			}
			b.WriteString(known)
			if i += len(name); strings.HasPrefix(text[i-len(name)+1:], "{") {
				i += len("{}")
			}
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String()), ""
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
