package sign

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds of OpenDKIM's tables.
const (
	maxTableLines = 100_000
	maxTableLine  = 4 << 10 // octets
)

// DataSet is one of OpenDKIM's data sets: a file or a list.
type DataSet struct {
	Path     string // "" for a list
	List     string // the text after "csl:"
	Patterns bool   // the keys are patterns ("refile:")
}

// ParseDataSet reads the name of a data set as in opendkim.conf(5).
func ParseDataSet(text string) (DataSet, error) {
	kind, rest, ok := strings.Cut(text, ":")
	switch {
	case strings.HasSuffix(text, ".db"):
		return DataSet{}, fmt.Errorf("%s: database files are not read; write its entries into a file, two words on a line", text)
	case ok && rest == "":
		return DataSet{}, fmt.Errorf("%s: the name of a file or a list is missing; write one", text)
	case !ok && !strings.HasPrefix(text, "/") && strings.Contains(text, ","):
		return DataSet{List: text}, nil
	case !ok || strings.HasPrefix(text, "/"):
		return DataSet{Path: text}, nil
	case kind == "file":
		return DataSet{Path: rest}, nil
	case kind == "refile":
		return DataSet{Path: rest, Patterns: true}, nil
	case kind == "csl":
		return DataSet{List: rest}, nil
	}
	return DataSet{}, fmt.Errorf("%s: tables are not read; write its entries into a file, two words on a line", kind)
}

// tableLine is a line of a table: a key and its value.
type tableLine struct {
	file       string
	number     int
	key, value string
}

func (t tableLine) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", t.file, t.number, fmt.Errorf(format, args...))
}

// Table is the rows of a file.
type Table struct {
	path  string
	lines []tableLine
	errs  []error // of the rows that cannot be read
}

// ReadTable reads the rows of a file, and leaves out those that cannot be parsed.
func ReadTable(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, openError(path, err)
	}
	defer f.Close()
	t := &Table{path: path}
	t.lines, t.errs = parseTable(path, f)
	return t, nil
}

// Len returns the number of rows.
func (t *Table) Len() int { return len(t.lines) }

// readTable returns the rows of a data set. If a file cannot be read at all, it
// returns the rows of the previous load.
func (l *loader) readTable(set DataSet) []tableLine {
	if set.Path == "" {
		lines, errs := parseTable("csl", strings.NewReader(listRows(set.List)))
		return l.rows(&Table{lines: lines, errs: errs})
	}
	for _, t := range l.src.Tables {
		if t.path == set.Path {
			l.keys.rows[set.Path] = l.rows(t)
			return t.lines
		}
	}
	t, err := ReadTable(set.Path)
	if err != nil {
		l.fail(err)
		t = &Table{lines: l.before.rows[set.Path]}
	}
	l.keys.rows[set.Path] = l.rows(t)
	return t.lines
}

// listRows returns the entries of a list as lines of a table. In a list, opendkim has
// "=" between the two words.
func listRows(list string) string {
	var b strings.Builder
	for entry := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(entry, "=")
		if key = strings.TrimSpace(key); !ok {
			key, _, _ = strings.Cut(key, " ") // "=" is missing, and so is the value
		}
		b.WriteString(key + " " + strings.TrimSpace(value) + "\n")
	}
	return b.String()
}

// rows returns the rows of a table, and reports its errors.
func (l *loader) rows(t *Table) []tableLine {
	for _, err := range t.errs {
		l.fail(err)
	}
	return t.lines
}

// parseTable reads lines of two words; "#" begins a comment. A line that is wrong
// is left out.
func parseTable(path string, r io.Reader) (lines []tableLine, errs []error) {
	reader := bufio.NewReaderSize(r, maxTableLine)
	for number := 1; ; number++ {
		text, err := readTableLine(reader)
		if err != nil && !errors.Is(err, bufio.ErrTooLong) {
			if err != io.EOF {
				errs = append(errs, fmt.Errorf("%s:%d: %w", path, number, err))
			}
			return lines, errs
		}
		line := tableLine{file: path, number: number}
		if number > maxTableLines {
			return lines, append(errs, line.errorf("more than %d lines", maxTableLines))
		}
		text, _, _ = strings.Cut(text, "#")
		line.key, line.value, _ = strings.Cut(strings.ReplaceAll(strings.TrimSpace(text), "\t", " "), " ")
		line.value = strings.TrimSpace(line.value)
		switch {
		case err != nil:
			errs = append(errs, line.errorf("%w", err))
		case line.key == "":
		case line.value == "":
			errs = append(errs, line.errorf("want two words"))
		default:
			lines = append(lines, line)
		}
	}
}

// readTableLine returns a line. It skips a line that is too long and returns
// bufio.ErrTooLong.
func readTableLine(r *bufio.Reader) (string, error) {
	text, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		if err == io.EOF && len(text) > 0 {
			err = nil
		}
		return string(text), err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	if err != nil && err != io.EOF {
		return "", err
	}
	return "", bufio.ErrTooLong
}
