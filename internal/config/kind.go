package config

import (
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"
)

// kind is how a flag's value is written in TOML.
type kind struct {
	scalar  []unstable.Kind // kinds of a value that is alone; none for a pure list
	element []unstable.Kind // kinds of an element of an array
	list    bool
	example string // for the fix
}

// kindOf derives the kind from pflag's type name. An unknown type is written as a
// string.
func kindOf(f *pflag.Flag) kind {
	text := []unstable.Kind{unstable.String}
	integer := []unstable.Kind{unstable.Integer}
	t := f.Value.Type()
	if _, ok := f.Value.(pflag.SliceValue); ok {
		k := kind{element: text, list: true, example: `["…", "…"]`}
		switch {
		case t == typeWords:
			k.scalar = text // commas separate, as on the command line
		case strings.HasPrefix(t, "int") || strings.HasPrefix(t, "uint"):
			k.element, k.example = integer, "[1, 2]"
		}
		return k
	}
	switch {
	case t == "bool":
		return kind{scalar: []unstable.Kind{unstable.Bool}, example: "true or false, without quotes"}
	case t == typeMode:
		return kind{scalar: []unstable.Kind{unstable.String, unstable.Integer}, example: `"0660"`}
	case t == typeDuration:
		return kind{scalar: text, example: `"` + exampleOf(f, "3m") + `"`}
	case t == typeSize:
		return kind{scalar: []unstable.Kind{unstable.String, unstable.Integer}, example: `"` + exampleOf(f, "512M") + `"`}
	case t == "count" || strings.HasPrefix(t, "int") || strings.HasPrefix(t, "uint"):
		return kind{scalar: integer, example: exampleOf(f, "1") + ", without quotes"}
	case strings.HasPrefix(t, "float"):
		return kind{scalar: []unstable.Kind{unstable.Float, unstable.Integer}, example: exampleOf(f, "1.5") + ", without quotes"}
	default:
		return kind{scalar: text, example: `"` + exampleOf(f, "…") + `"`}
	}
}

// exampleOf prefers the default, because it is valid for this flag.
func exampleOf(f *pflag.Flag, otherwise string) string {
	if f.DefValue == "" {
		return otherwise
	}
	return f.DefValue
}

func kindName(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "a boolean"
	case unstable.Integer:
		return "an integer"
	case unstable.Float:
		return "a float"
	case unstable.Array:
		return "an array"
	case unstable.InlineTable:
		return "an inline table"
	default:
		return "a date or time"
	}
}
