// This file edits a configuration file: settings become lines, and lines replace
// those of the file. Everything else in the file stays as it is.

package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Setting is a setting with its new values for a file: one, or those of a list.
type Setting struct {
	Name   string
	Values []string
}

// Line is a setting as it is written in a file.
type Line struct{ Name, Text string }

// Values returns the values of the setting in the line, in any notation; nil for
// none.
func (l Line) Values() []string {
	decoded := make(map[string]any)
	if err := toml.Unmarshal([]byte(strings.TrimPrefix(l.Text, "\ufeff")), &decoded); err != nil {
		return nil
	}
	value, ok := decoded[l.Name]
	if !ok {
		return nil
	}
	return literals(value)
}

// Literals returns the values of a setting whose value is written in TOML. A text
// that is not valid TOML is itself the value.
func Literals(text string) []string {
	if values := (Line{"V", "V = " + text}).Values(); values != nil {
		return values
	}
	return []string{text}
}

// literals returns the elements of a list, or the one value of a scalar.
func literals(value any) []string {
	list, ok := value.([]any)
	if !ok {
		return []string{fmt.Sprint(value)}
	}
	values := make([]string, len(list))
	for i, v := range list {
		values[i] = fmt.Sprint(v)
	}
	return values
}

// Spell returns settings as lines of a file. It returns an error for a name that
// is not a setting of the program, and for a value that the program would refuse.
func (p Program) Spell(settings []Setting) ([]Line, error) {
	s := newSet(p)
	var l problems
	var lines []Line
	for _, setting := range settings {
		f := s.Lookup(setting.Name)
		if f == nil || !isSetting(setting.Name) {
			l.addError(fmt.Errorf("%s has no setting %q", p.Name, setting.Name))
			continue
		}
		l.addError(s.assign(assignment{flag: f, values: setting.Values, origin: Origin{Level: File, Name: p.DefaultFile}}))
		// Not redacted, because it is for a file.
		lines = append(lines, Line{setting.Name, setting.Name + " = " + s.spell(f, func(v string) string { return v })})
	}
	return lines, l.err()
}

// Default returns the default of a setting.
func (p Program) Default(name string) []string {
	f := newSet(p).Lookup(name)
	if f == nil {
		return nil
	}
	return values(f)
}

// span is the place of a setting in a file: the lines from first up to end,
// without end.
type span struct{ first, end int }

// Document is a configuration file that is edited. Everything that is not edited
// stays as it is.
type Document struct {
	lines []string // with their line breaks
	at    map[string]span
	order []string
}

// ReadDocument reads a file of settings for editing. The errors are those of the daemon's
// own reading, and of ParseDocument.
func ReadDocument(name string) (*Document, error) {
	data, err := readBounded(name, maxFileSize)
	if err != nil {
		return nil, err
	}
	return ParseDocument(name, data)
}

// ParseDocument parses a file for editing. Invalid TOML is an error; an unknown
// key is not.
func ParseDocument(name string, data []byte) (*Document, error) {
	f := &Document{at: make(map[string]span), lines: slices.Collect(strings.Lines(string(data)))}
	d := &document{set: &Set{program: Program{}}, name: name}
	d.Reset(bytes.TrimPrefix(data, []byte("\ufeff")))
	var starts []int
	for d.NextExpression() {
		n := d.Expression()
		key, line := d.key(n)
		if n.Kind != unstable.KeyValue {
			return nil, d.errorf(line, "", "tables are not used here: write the keys in full, without [%s]", key)
		}
		starts, f.order = append(starts, line-1), append(f.order, key)
	}
	if err := d.syntaxError(); err != nil {
		return nil, err
	}
	for i, key := range f.order {
		limit := len(f.lines)
		if i+1 < len(starts) {
			limit = starts[i+1]
		}
		f.at[key] = span{starts[i], f.lastLine(starts[i], limit)}
	}
	return f, nil
}

// lastLine returns the end of a value that begins in a line. Blank lines and
// comments below it do not belong to it.
func (f *Document) lastLine(first, limit int) int {
	for limit > first+1 {
		if text := strings.TrimSpace(f.lines[limit-1]); text != "" && text[0] != '#' {
			break
		}
		limit--
	}
	return limit
}

// Keys returns the settings of the file, in its order.
func (f *Document) Keys() []string { return f.order }

// Get returns the lines of a setting as they are, "" when the file does not have it.
func (f *Document) Get(name string) string {
	at, ok := f.at[name]
	if !ok {
		return ""
	}
	return strings.TrimRight(strings.Join(f.lines[at.first:at.end], ""), "\r\n")
}

// Values returns the values of a setting, without comments and quotes; nil when the
// file does not have it.
func (f *Document) Values(name string) []string { return Line{name, f.Get(name)}.Values() }

// Edit returns the text after an edit: it removes settings, replaces others by
// lines, and adds new ones at the end, below a comment. It also removes the
// comment of an earlier edit that has no settings below it any more.
func (f *Document) Edit(remove []string, set []Line, comment string) []byte {
	instead := make(map[int]string)
	gone := make(map[int]bool)
	drop := func(name string) {
		for i := f.at[name].first; i < f.at[name].end; i++ {
			gone[i] = true
		}
	}
	var added []string
	for _, name := range remove {
		drop(name)
	}
	for _, line := range set {
		if at, ok := f.at[line.Name]; ok {
			drop(line.Name)
			instead[at.first] = line.Text + "\n"
		} else {
			added = append(added, line.Text+"\n")
		}
	}
	var b strings.Builder
	for i, line := range f.lines {
		b.WriteString(instead[i])
		if !gone[i] {
			b.WriteString(line)
		}
	}
	text := strings.TrimSuffix(b.String(), "\n# "+comment+"\n")
	if len(added) == 0 {
		return []byte(text)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if text != "" {
		text += "\n"
	}
	return []byte(text + "# " + comment + "\n" + strings.Join(added, ""))
}
