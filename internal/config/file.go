package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"
)

// maxFileSize bounds the configuration file, in bytes.
const maxFileSize = 1 << 20

// assignment is one value for one flag, before it is set.
type assignment struct {
	flag   *pflag.Flag
	values []string // one for a scalar
	lines  []int    // of each value, when from a file
	origin Origin
}

// readFile chooses the file and reads its assignments.
func (s *Set) readFile(flags, variables []assignment, l *problems) []assignment {
	name, origin := s.program.DefaultFile, Origin{Level: Default}
	for _, level := range [][]assignment{variables, flags} {
		for _, a := range level {
			if a.flag.Name == flagConfig {
				name, origin = a.values[0], a.origin
			}
		}
	}
	if name == "" {
		return nil
	}
	data, err := readBounded(name, maxFileSize)
	switch {
	case err == nil:
	case origin.Level == Default && errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		l.addError(&Error{Flag: flagConfig, Origin: origin, err: err})
		return nil
	}
	return s.parseFile(name, data, l)
}

// readBounded reads a regular file (or /dev/null) of at most limit bytes. Its
// errors name the file and the reason, but not the system call.
func readBounded(name string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK the open of a FIFO would wait for a writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, readError(name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, readError(name, err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name a file", name)
	}
	if !info.Mode().IsRegular() && name != os.DevNull {
		return nil, fmt.Errorf("%s is not a regular file: a reload could not read it again", name)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, readError(name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, limit)
	}
	return data, nil
}

func readError(name string, err error) error {
	return &unreadable{fmt.Sprintf("cannot read %s: %v", name, reason(err)), err}
}

// reason returns err without the system call and the path.
func reason(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// unreadable keeps the error of the system, which is needed to know whether the
// problem can be temporary.
type unreadable struct {
	text  string
	cause error
}

func (e *unreadable) Error() string { return e.text }
func (e *unreadable) Unwrap() error { return e.cause }

// parseFile reads the keys of a TOML document. It goes on after a bad key, so
// that an operator sees all of them, but not after a syntax error.
func (s *Set) parseFile(name string, data []byte, l *problems) []assignment {
	p := &document{set: s, name: name, seen: make(map[string]int)}
	p.Reset(bytes.TrimPrefix(data, []byte("\ufeff")))
	var out []assignment
	for p.NextExpression() {
		n := p.Expression()
		a, err := p.assignment(n)
		l.addError(err)
		if err == nil {
			out = append(out, a)
		}
		if n.Kind != unstable.KeyValue {
			break // what follows belongs to the table, and its errors would only confuse
		}
	}
	l.addError(p.syntaxError())
	return out
}

// document is a TOML file that is being read.
type document struct {
	unstable.Parser
	set  *Set
	name string
	seen map[string]int // key to its line

	// The place up to which line has counted. The parser only moves forward, and
	// counting from the start for every key would take quadratic time.
	offset uint32
	lines  int
}

func (d *document) line(r unstable.Range) int {
	if r.Offset < d.offset {
		d.offset, d.lines = 0, 0
	}
	d.lines += bytes.Count(d.Data()[d.offset:r.Offset], []byte{'\n'})
	d.offset = r.Offset
	return d.lines + 1
}

func (d *document) errorf(line int, flag, format string, args ...any) error {
	return &Error{
		Flag:   flag,
		Origin: Origin{Level: File, Name: d.name, Line: line},
		err:    fmt.Errorf(format, args...),
		redact: d.set.redact,
	}
}

func (d *document) syntaxError() error {
	err := d.Error()
	if err == nil {
		return nil
	}
	line := 1
	var pe *unstable.ParserError
	if errors.As(err, &pe) && len(d.Data()) > 0 {
		line = d.line(d.Range(pe.Highlight))
	}
	return d.errorf(line, "", "not valid TOML: %s", err)
}

func (d *document) assignment(n *unstable.Node) (assignment, error) {
	key, line := d.key(n)
	switch {
	case n.Kind != unstable.KeyValue:
		return assignment{}, d.errorf(line, "", "tables are not used here: write the keys in full, without [%s]", key)
	case n.Value().Next().Next() != nil:
		return assignment{}, d.errorf(line, "", "a key has no dots: write %s", quoteKey(strings.ReplaceAll(key, ".", "-")))
	}
	f := d.set.Lookup(key)
	switch {
	case f == nil:
		return assignment{}, d.errorf(line, "", "unknown key %s%s", quoteKey(key), d.set.suggest(key, ""))
	case !isSetting(key):
		return assignment{}, d.errorf(line, key, "not a setting of the file: give --%s on the command line", key)
	case d.seen[key] != 0:
		return assignment{}, d.errorf(line, key, "given twice, first in line %d: keep one%s", d.seen[key], listHint(f))
	}
	d.seen[key] = line
	return d.values(f, n.Value(), line)
}

// key returns the dotted key of an expression and its line.
func (d *document) key(n *unstable.Node) (key string, line int) {
	var parts []string
	for it := n.Key(); it.Next(); {
		parts = append(parts, string(it.Node().Data))
		if line == 0 {
			line = d.line(it.Node().Raw)
		}
	}
	return strings.Join(parts, "."), line
}

func (d *document) values(f *pflag.Flag, n *unstable.Node, line int) (assignment, error) {
	a := assignment{flag: f, origin: Origin{Level: File, Name: d.name, Line: line}}
	k := kindOf(f)
	if n.Kind != unstable.Array {
		if err := d.scalar(&a, k.scalar, n, line); err != nil {
			return a, d.errorf(line, f.Name, "%s: write %s = %s", err, f.Name, k.example)
		}
		return a, nil
	}
	if !k.list {
		return a, d.errorf(line, f.Name, "takes one value, not a list: write %s = %s", f.Name, k.example)
	}
	a.values = []string{}
	for it := n.Children(); it.Next(); {
		at := line
		if e := it.Node(); e.Raw.Length > 0 {
			at = d.line(e.Raw)
		}
		if err := d.scalar(&a, k.element, it.Node(), at); err != nil {
			return a, d.errorf(at, f.Name, "%s in the list: write %s = %s", err, f.Name, k.example)
		}
	}
	return a, nil
}

// scalar appends the value of n when its kind is one of those accepted.
func (d *document) scalar(a *assignment, accepted []unstable.Kind, n *unstable.Node, line int) error {
	for _, k := range accepted {
		if n.Kind != k {
			continue
		}
		v := string(n.Data)
		if k == unstable.Integer || k == unstable.Float {
			v = strings.ReplaceAll(v, "_", "")
		}
		if err := checkText(v); err != nil {
			return err
		}
		a.values = append(a.values, v)
		a.lines = append(a.lines, line)
		return nil
	}
	return fmt.Errorf("%s is the wrong type", kindName(n.Kind))
}

// checkText refuses text that is invalid in every setting and would break a log
// line.
func checkText(v string) error {
	if !utf8.ValidString(v) {
		return errors.New("a value that is not UTF-8")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
		return errors.New("a value with a line break or another control character")
	}
	return nil
}

// quoteKey returns a key, in quotes unless it is a plain word.
func quoteKey(key string) string {
	plain := key != "" && !strings.ContainsFunc(key, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && !(r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)))
	})
	if plain {
		return key
	}
	return fmt.Sprintf("%q", key)
}

func listHint(f *pflag.Flag) string {
	if _, ok := f.Value.(pflag.SliceValue); ok {
		return ", as an array of all values"
	}
	return ""
}
