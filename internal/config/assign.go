package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// parseArgs collects the flags without setting them, because the lower levels
// must be set first. A repeated list becomes one assignment. Of a repeated scalar
// the last one counts, as is usual on a command line.
func (s *Set) parseArgs(args []string) ([]assignment, error) {
	var out []assignment
	err := s.ParseAll(args, func(f *pflag.Flag, value string) error {
		origin := Origin{Level: Flag, Name: "--" + f.Name}
		i := slices.IndexFunc(out, func(a assignment) bool { return a.flag == f })
		_, list := f.Value.(pflag.SliceValue)
		switch {
		case i < 0:
			out = append(out, assignment{flag: f, values: []string{value}, origin: origin})
		case list:
			out[i].values = append(out[i].values, value)
		default:
			out[i].values = []string{value}
		}
		if f.Name == flagVersion {
			s.version, _ = strconv.ParseBool(value)
		}
		return nil
	})
	switch {
	case errors.Is(err, ErrHelp):
		return nil, ErrHelp
	case err != nil:
		return out, s.flagError(err)
	case s.NArg() > 0:
		return out, argumentError("command line", "%q is not a flag: settings are given as --name value", s.Arg(0))
	}
	return out, nil
}

// flagError returns an error of pflag in the words of this package.
func (s *Set) flagError(err error) error {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return argumentError("-"+unknown.GetSpecifiedShortnames(), "unknown flag: flags have two dashes")
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		return argumentError("--"+name, "unknown flag%s", s.suggest(name, "--"))
	case errors.As(err, &bare):
		return argumentError("--"+bare.GetFlag().Name, "needs a value")
	default:
		return argumentError("command line", "%w", err)
	}
}

func argumentError(argument, format string, args ...any) error {
	return &Error{Origin: Origin{Level: Flag, Name: argument}, err: fmt.Errorf(format, args...)}
}

// serviceLink matches the variables that Kubernetes sets for a Service. A Service
// called postern-policyd sets POSTERN_POLICYD_SERVICE_HOST and the like in every
// pod of the namespace, also in ours. They are not misspelt settings.
var serviceLink = regexp.MustCompile(`^(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// parseEnviron collects the variables with the program's prefix, sorted by name,
// because environ has no order.
func (s *Set) parseEnviron(environ []string, l *problems) []assignment {
	var out []assignment
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		suffix, ours := strings.CutPrefix(name, s.program.EnvPrefix)
		if !ours {
			continue
		}
		flag := strings.ToLower(strings.ReplaceAll(suffix, "_", "-"))
		f := s.Lookup(flag)
		known := f != nil && s.variable(flag) == name && (isSetting(flag) || flag == flagConfig)
		switch {
		case known:
			origin := Origin{Level: Environment, Name: name}
			out = append(out, assignment{flag: f, values: splitVariable(f, value), origin: origin})
		case serviceLink.MatchString(suffix):
		default:
			l.addError(&Error{
				Origin: Origin{Level: Environment, Name: name},
				err:    errors.New("unknown variable" + s.suggestVariable(flag)),
			})
		}
	}
	return out
}

func splitVariable(f *pflag.Flag, value string) []string {
	if _, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Fields(value)
	}
	return []string{value}
}

// assign sets a flag and drops the values of a lower level.
func (s *Set) assign(a assignment) error {
	delete(s.origins, a.flag.Name)
	if list, ok := a.flag.Value.(pflag.SliceValue); ok {
		if err := list.Replace(nil); err != nil {
			return s.valueError(a, 0, "", err)
		}
		// Set does this too, but it is not called for an empty list.
		a.flag.Changed = true
		s.origins[a.flag.Name] = []Origin{a.origin}
	}
	var origins []Origin
	for i, v := range a.values {
		err := checkText(v)
		if err == nil && strings.HasPrefix(a.flag.Value.Type(), "float") {
			err = checkFinite(v)
		}
		if err == nil {
			err = s.FlagSet.Set(a.flag.Name, v)
		}
		if err != nil {
			return s.valueError(a, i, v, err)
		}
		origins = append(origins, a.at(i))
	}
	if len(origins) > 0 {
		s.origins[a.flag.Name] = origins
	}
	return nil
}

// checkFinite refuses NaN and infinities, which would pass the checks of bounds.
// A text that is not a number is left to Set.
func checkFinite(v string) error {
	if n, err := strconv.ParseFloat(v, 64); err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
		return fmt.Errorf("%q is not a finite number", v)
	}
	return nil
}

// at returns the origin of one value.
func (a assignment) at(i int) Origin {
	o := a.origin
	if i < len(a.lines) {
		o.Line = a.lines[i]
	}
	return o
}

func (s *Set) valueError(a assignment, i int, value string, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		err = errors.Unwrap(invalid)
		// The errors of pflag's own types are those of strconv.
		if kindOf(a.flag).scalar != nil && strings.HasPrefix(err.Error(), "strconv.") {
			err = fmt.Errorf("%q is not a value of type %s: write %s", value, a.flag.Value.Type(), kindOf(a.flag).example)
		}
	}
	return &Error{Flag: a.flag.Name, Origin: a.at(i), err: err, redact: s.redact}
}

func (s *Set) suggest(name, prefix string) string {
	if best := s.nearestFlag(name); best != "" {
		return ": did you mean " + prefix + best + "?"
	}
	return ""
}

func (s *Set) suggestVariable(flag string) string {
	if best := s.nearestFlag(flag); best != "" {
		return ": did you mean " + s.variable(best) + "?"
	}
	return ""
}

func (s *Set) nearestFlag(name string) string {
	var names []string
	s.settings(func(f *pflag.Flag) { names = append(names, f.Name) })
	return nearest(strings.ReplaceAll(strings.ToLower(name), "_", "-"), names)
}

// maxNameLength bounds the words that nearest compares, in bytes.
const maxNameLength = 64

// nearest returns the word with the smallest edit distance to name, or "" when no
// word is near enough to be meant.
func nearest(name string, words []string) string {
	if len(name) > maxNameLength {
		return ""
	}
	best, limit := "", max(2, len(name)/3)+1
	for _, w := range words {
		if d := editDistance(name, w); d < limit {
			best, limit = w, d
		}
	}
	return best
}

// editDistance returns the number of insertions, deletions and replacements of
// bytes between two words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
