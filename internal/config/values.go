package config

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Names of the value types below, for help texts.
const (
	typeDuration = "duration"
	typeWords    = "words"
	typeMode     = "mode"
	typeSize     = "size"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// maxDurationLength bounds the text of a duration, in bytes.
const maxDurationLength = 64

// Duration registers a flag for a duration from lo to hi, in the notation of
// ParseDuration.
func Duration(fs *pflag.FlagSet, p *time.Duration, name string, value, lo, hi time.Duration, usage string) {
	*p = value
	fs.Var(&durationValue{p, lo, hi}, name, usage)
}

type durationValue struct {
	p      *time.Duration
	lo, hi time.Duration
}

func (v *durationValue) Set(s string) error {
	d, err := ParseDuration(s)
	if err != nil {
		return err
	}
	if d < v.lo || d > v.hi {
		return fmt.Errorf("%s is out of bounds: %s to %s", FormatDuration(d), FormatDuration(v.lo), FormatDuration(v.hi))
	}
	*v.p = d
	return nil
}

func (v *durationValue) String() string {
	if v.p == nil {
		return "" // pflag calls it on a zero value
	}
	return FormatDuration(*v.p)
}

func (v *durationValue) Type() string { return typeDuration }

// ParseDuration parses a non-negative duration in Go's notation, with the
// additional units d for 24 hours and w for 7 days, as in 35d or 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	if len(s) > maxDurationLength {
		return 0, fmt.Errorf("a duration of more than %d characters", maxDurationLength)
	}
	if s == "0" {
		return 0, nil
	}
	var sum time.Duration
	for rest := s; ; {
		d, tail, err := leadingDuration(rest)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration: %w", s, err)
		}
		sum += d
		if sum < 0 {
			return 0, fmt.Errorf("%q is too long for a duration", s)
		}
		if rest = tail; rest == "" {
			return sum, nil
		}
	}
}

var errDuration = errors.New("write it as 90s, 3m, 12h, 35d or 1d12h")

// leadingDuration parses the first number of s with its unit, and returns the
// rest of s.
func leadingDuration(s string) (d time.Duration, tail string, err error) {
	isNumber := func(r rune) bool { return r == '.' || '0' <= r && r <= '9' }
	unitAt := strings.IndexFunc(s, func(r rune) bool { return !isNumber(r) })
	if unitAt <= 0 {
		return 0, "", errDuration
	}
	end := len(s)
	if i := strings.IndexFunc(s[unitAt:], isNumber); i >= 0 {
		end = unitAt + i
	}
	number, unit, factor := s[:unitAt], s[unitAt:end], time.Duration(1)
	switch unit {
	case "d":
		unit, factor = "h", day/time.Hour
	case "w":
		unit, factor = "h", week/time.Hour
	}
	d, err = time.ParseDuration(number + unit)
	if err != nil || d > (1<<63-1)/factor {
		return 0, "", errDuration
	}
	return d * factor, s[end:], nil
}

// FormatDuration returns d in a short form that ParseDuration accepts: 35d,
// 1d12h, 1m30s, 0s.
func FormatDuration(d time.Duration) string {
	days := d / day
	if d < 0 || days == 0 {
		return trimZeroUnits(d)
	}
	out := strconv.FormatInt(int64(days), 10) + "d"
	if rest := d % day; rest > 0 {
		out += trimZeroUnits(rest)
	}
	return out
}

// trimZeroUnits changes Go's 3m0s and 2h0m0s into 3m and 2h.
func trimZeroUnits(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Choice registers a flag that takes one of words. The first one is the default.
func Choice[T ~string](fs *pflag.FlagSet, p *T, name, usage string, words ...T) {
	*p = words[0]
	fs.Var(&choiceValue[T]{p, words}, name, usage)
}

type choiceValue[T ~string] struct {
	p     *T
	words []T
}

func (v *choiceValue[T]) Set(s string) error {
	if !slices.Contains(v.words, T(s)) {
		return fmt.Errorf("%q is not one of %s", s, strings.ReplaceAll(v.Type(), "|", ", "))
	}
	*v.p = T(s)
	return nil
}

func (v *choiceValue[T]) String() string {
	if v.p == nil {
		return ""
	}
	return string(*v.p)
}

// Type returns the list of words, for the help text.
func (v *choiceValue[T]) Type() string {
	words := make([]string, len(v.words))
	for i, w := range v.words {
		words[i] = string(w)
	}
	return strings.Join(words, "|")
}

// Words registers a list of words that is written with commas (a,b), as a
// repeated flag, or as an array. With allowed, only those words are accepted. A
// repeated word is an error.
func Words(fs *pflag.FlagSet, p *[]string, name string, value []string, usage string, allowed ...string) {
	*p = slices.Clone(value)
	fs.Var(&wordsValue{p: p, allowed: allowed}, name, usage)
}

// wordsValue is a pflag.SliceValue.
type wordsValue struct {
	p       *[]string
	allowed []string
	changed bool
}

func (v *wordsValue) Set(s string) error {
	if !v.changed {
		*v.p, v.changed = nil, true
	}
	if strings.TrimSpace(s) == "" {
		return nil // --shadow= empties the list
	}
	for w := range strings.SplitSeq(s, ",") {
		if err := v.Append(strings.TrimSpace(w)); err != nil {
			return err
		}
	}
	return nil
}

func (v *wordsValue) Append(w string) error {
	switch {
	case w == "":
		return errors.New("an empty word between commas")
	case slices.Contains(*v.p, w):
		return fmt.Errorf("%q is given twice", w)
	case v.allowed != nil && !slices.Contains(v.allowed, w):
		hint := ""
		if best := nearest(w, v.allowed); best != "" {
			hint = ": did you mean " + best + "?"
		}
		return fmt.Errorf("%q is not one of %s%s", w, strings.Join(v.allowed, ", "), hint)
	}
	*v.p = append(*v.p, w)
	return nil
}

func (v *wordsValue) Replace(words []string) error {
	*v.p, v.changed = nil, true
	for _, w := range words {
		if err := v.Append(w); err != nil {
			return err
		}
	}
	return nil
}

func (v *wordsValue) GetSlice() []string { return slices.Clone(*v.p) }

func (v *wordsValue) String() string {
	if v.p == nil {
		return ""
	}
	return strings.Join(*v.p, ",")
}

func (v *wordsValue) Type() string { return typeWords }

// Int registers a flag for a whole number between lo and hi, both included.
func Int(fs *pflag.FlagSet, p *int, name string, value, lo, hi int, usage string) {
	*p = value
	fs.Var(&intValue{p, lo, hi}, name, usage)
}

type intValue struct {
	p      *int
	lo, hi int
}

func (v *intValue) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, strconv.IntSize)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%q is not a whole number", s)
	}
	if err != nil || int(n) < v.lo || int(n) > v.hi {
		return fmt.Errorf("%s is out of bounds: %d to %d", s, v.lo, v.hi)
	}
	*v.p = int(n)
	return nil
}

func (v *intValue) String() string {
	if v.p == nil {
		return ""
	}
	return strconv.Itoa(*v.p)
}

func (v *intValue) Type() string { return "int" }

// Size registers a flag for an amount of memory from lo to hi octets, in the notation of
// ParseSize.
func Size(fs *pflag.FlagSet, p *int64, name string, value, lo, hi int64, usage string) {
	*p = value
	fs.Var(&sizeValue{p, lo, hi}, name, usage)
}

type sizeValue struct {
	p      *int64
	lo, hi int64
}

func (v *sizeValue) Set(s string) error {
	n, err := ParseSize(s)
	if err != nil {
		return err
	}
	if n < v.lo || n > v.hi {
		return fmt.Errorf("%s is out of bounds: %s to %s", s, FormatSize(v.lo), FormatSize(v.hi))
	}
	*v.p = n
	return nil
}

func (v *sizeValue) String() string {
	if v.p == nil {
		return ""
	}
	return FormatSize(*v.p)
}

func (v *sizeValue) Type() string { return typeSize }

// sizeUnits are the units of a size, each 1024 times the one before.
const sizeUnits = "KMGT"

// ParseSize parses an amount of memory, such as 512M: a whole number of octets, or of
// K, M, G or T, each 1024 times the one before. A B or iB may follow the unit.
func ParseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTBikmgtb")
	number, err := strconv.ParseUint(digits, 10, 63)
	unit := strings.ToUpper(s[len(digits):])
	factor := int64(1)
	if unit != "" && unit != "B" {
		unit, _ = strings.CutSuffix(unit, "B")
		unit, _ = strings.CutSuffix(unit, "I")
		power := strings.Index(sizeUnits, unit)
		if len(unit) != 1 || power < 0 {
			return 0, errSize(s)
		}
		factor <<= 10 * (power + 1)
	}
	if err != nil || number > math.MaxInt64/uint64(factor) {
		return 0, errSize(s)
	}
	return int64(number) * factor, nil
}

func errSize(s string) error {
	return fmt.Errorf("%.40q is not an amount of memory; write it as 512M or 2G", s)
}

// FormatSize returns n in a short form that ParseSize accepts.
func FormatSize(n int64) string {
	unit := ""
	for i := 0; i < len(sizeUnits) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, sizeUnits[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// Mode registers a flag for permission bits, always read as octal: 0660, 660
// and 0o660 are the same.
func Mode(flags *pflag.FlagSet, p *fs.FileMode, name string, value fs.FileMode, usage string) {
	*p = value
	flags.Var((*modeValue)(p), name, usage)
}

type modeValue fs.FileMode

func (v *modeValue) Set(s string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > uint64(fs.ModePerm) {
		return fmt.Errorf("%q is not a file mode: write it in octal, as 0660", s)
	}
	*v = modeValue(n)
	return nil
}

func (v *modeValue) String() string { return fmt.Sprintf("%04o", uint32(*v)) }

func (v *modeValue) Type() string { return typeMode }
