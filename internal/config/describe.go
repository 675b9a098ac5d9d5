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

// Describe writes every setting with its value and origin. The text is itself
// a configuration file that yields the same settings, except that passwords
// in URLs read ***.
func (s *Set) Describe(w io.Writer) error {
	b := bufio.NewWriter(w)
	s.settings(func(f *pflag.Flag) {
		fmt.Fprintf(b, "%s = %s  # %s\n", f.Name, s.literal(f), oneLine(s.Origin(f.Name).String()))
	})
	return b.Flush()
}

// literal spells the value of a flag in TOML.
func (s *Set) literal(f *pflag.Flag) string {
	k := kindOf(f)
	if list, ok := f.Value.(pflag.SliceValue); ok {
		parts := []string{}
		for _, v := range list.GetSlice() {
			parts = append(parts, s.scalarLiteral(k.element, v))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return s.scalarLiteral(k.scalar, f.Value.String())
}

func (s *Set) scalarLiteral(kinds []unstable.Kind, v string) string {
	if slices.Contains(kinds, unstable.String) {
		return quoteTOML(s.redact(v))
	}
	return v
}

// quoteTOML writes a basic string. Values hold no control character but the
// tab (see checkText); defaults come from our own source.
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
		"Every flag but the last three is also a key of the configuration file, and an\n"+
		"environment variable as in %s. A flag beats the environment, the\n"+
		"environment beats the file.\n",
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
