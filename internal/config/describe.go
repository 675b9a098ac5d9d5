package config

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"
)

// usageWidth is the column at which help texts wrap.
const usageWidth = 100

// Describe writes every setting with its value and origin. The text is itself a
// configuration file with the same settings, except that passwords in URLs are
// replaced by ***.
func (s *Set) Describe(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, v := range s.Values() {
		fmt.Fprintf(b, "%s = %s  # %s\n", v.Name, v.Text, v.Origin)
	}
	return b.Flush()
}

// Value is a setting with its value as written in a file, without secrets, and
// with its origin.
type Value struct{ Name, Text, Origin string }

// Values returns every setting, in the order of Bind.
func (s *Set) Values() []Value {
	var all []Value
	s.settings(func(f *pflag.Flag) { all = append(all, s.value(f)) })
	return all
}

// Value returns one setting.
func (s *Set) Value(name string) Value { return s.value(s.Lookup(name)) }

func (s *Set) value(f *pflag.Flag) Value {
	return Value{f.Name, s.literal(f), oneLine(s.Origin(f.Name).String())}
}

// Changes returns a text for each setting that differs from old.
func (s *Set) Changes(old *Set) []string {
	var all []string
	s.settings(func(f *pflag.Flag) {
		was := old.Lookup(f.Name)
		if was == nil || slices.Equal(values(f), values(was)) {
			return
		}
		before, now := old.value(was), s.value(f)
		all = append(all, fmt.Sprintf("%s: %s → %s (%s)", f.Name, before.Text, now.Text, now.Origin))
	})
	return all
}

// literal returns the value of a flag in TOML, without secrets.
func (s *Set) literal(f *pflag.Flag) string { return s.spell(f, s.redact) }

// spell returns the value of a flag in TOML. Strings go through redact.
func (s *Set) spell(f *pflag.Flag, redact func(string) string) string {
	k := kindOf(f)
	scalar := func(kinds []unstable.Kind, v string) string {
		if slices.Contains(kinds, unstable.String) {
			return quoteTOML(redact(v))
		}
		return v
	}
	list, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return scalar(k.scalar, f.Value.String())
	}
	parts := []string{}
	for _, v := range list.GetSlice() {
		parts = append(parts, scalar(k.element, v))
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// quoteTOML returns a basic string. Values have no control characters but the tab
// (see checkText), and defaults come from our own source.
func quoteTOML(v string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range v {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u` + strconv.FormatInt(0x10000|int64(r), 16)[1:])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// WriteUsage writes the help text.
func (s *Set) WriteUsage(w io.Writer) error {
	p := s.program
	_, err := fmt.Fprintf(w, "Usage: %s [flags]\n\n%s\n"+
		"Every flag but the last four is also a key of the configuration file. These flags\n"+
		"and --config are also environment variables, as in %s.\n"+
		"A flag overrides the environment, the environment overrides the file.\n",
		p.Name, s.FlagUsagesWrapped(usageWidth), s.variable(s.firstSetting()))
	return err
}

func (s *Set) firstSetting() (name string) {
	s.settings(func(f *pflag.Flag) {
		if name == "" {
			name = f.Name
		}
	})
	return name
}
