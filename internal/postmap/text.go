// Text tables: the source texts of indexed tables.
//
// postmap(1) compiles hash:, btree:, lmdb:, cdb: and dbm: tables from a text of "key
// whitespace value" lines; texthash: is that text itself. This package reads the text,
// by postmap's rules: the first white space outside of double quotes ends the key,
// keys are folded, and of two entries with one key the first counts. A line that
// postmap skips with a warning is an error here, because an ownership table with
// skipped lines would not protect all of its addresses.
//
// Invariants: an open table never changes and needs no lock; its memory is one
// string, slices of entries without pointers and one index; size, entries and
// key length are bounded.

package postmap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/postmap/mapfile"
)

// Bounds of one table.
const (
	MaxEntries  = 4_000_000
	MaxKey      = 4096 // octets of a folded key
	maxWarnings = 10   // of one kind, from one file
)

// textOptions of [Open].
type textOptions struct {
	Type string       // "hash", "texthash", …: which compiled files to look for
	Warn func(string) // is called with each warning; may be nil
}

// textTable is an indexed table in memory.
type textTable struct {
	path    string
	text    string // folded key and value of every entry, one after the other
	entries []textEntry
	lengths []uint16 // of the keys of entries; not in textEntry, where 2 octets would take 4
	index   []uint32 // open addressing: 1 + position in entries, 0 is free; a third is free
	seed    maphash.Seed
}

// textEntry has no pointers, so the garbage collector does not visit the entries. The
// value ends where the key of the next entry begins.
type textEntry struct {
	offset uint32
	line   uint32
}

// openTextFile reads the text at path. The error is a [*mapfile.Error].
func openTextFile(path string, o textOptions) (*textTable, error) {
	file, err := mapfile.Open(path)
	if err != nil {
		return nil, explainMissing(path, o.Type, err)
	}
	defer file.Close()
	l := newTextLoader(path, o.Warn)
	if err := l.reserve(file); err != nil {
		return nil, err
	}
	l.aliases = l.aliases && compiledFiles(o.Type, path) != nil // postalias(1) makes no texthash:
	lines, err := file.Lines()
	if err != nil {
		return nil, err
	}
	if err := l.load(lines); err != nil {
		return nil, err
	}
	warnCompiled(file, o)
	return l.finish(), nil
}

// parseText reads a table from in; path is for messages only.
func parseText(path string, in io.Reader, warn func(string)) (*textTable, error) {
	l := newTextLoader(path, warn)
	if err := l.load(mapfile.NewScanner(path, in)); err != nil {
		return nil, err
	}
	return l.finish(), nil
}

// Len returns the number of entries.
func (t *textTable) Len() int { return len(t.entries) }

// Keys returns all keys in the order of the text.
func (t *textTable) Keys() (iter.Seq[string], bool) {
	return func(yield func(string) bool) {
		for i := range t.entries {
			if !yield(t.key(i)) {
				return
			}
		}
	}, true
}

// Close has nothing to do: the table is memory.
func (t *textTable) Close() error { return nil }

// Lookup returns the value of a folded key (see [mailaddr.FoldKey]), or none.
func (t *textTable) Lookup(_ context.Context, key string) ([]string, error) {
	i := t.find(key)
	if i < 0 {
		return nil, nil
	}
	return []string{t.value(i)}, nil
}

// Locate returns the "path:line" of the entry of a key, or "".
func (t *textTable) Locate(key string) string {
	i := t.find(key)
	if i < 0 {
		return ""
	}
	return mapfile.Where(t.path, int(t.entries[i].line))
}

// find returns the position of a key's entry, or -1.
func (t *textTable) find(key string) int {
	if len(t.index) == 0 {
		return -1
	}
	slot, taken := t.slot(key)
	if !taken {
		return -1
	}
	return int(t.index[slot]) - 1
}

// slot returns the place in the index where the key is or would be. The index is never
// full, so the search ends.
func (t *textTable) slot(key string) (slot int, taken bool) {
	// The upper half of the product is below the number of slots.
	slot = int(uint64(uint32(maphash.String(t.seed, key))) * uint64(len(t.index)) >> 32)
	for t.index[slot] != 0 {
		if t.key(int(t.index[slot])-1) == key {
			return slot, true
		}
		if slot++; slot == len(t.index) {
			slot = 0
		}
	}
	return slot, false
}

func (t *textTable) key(i int) string {
	start := t.entries[i].offset
	return t.text[start : start+uint32(t.lengths[i])]
}

func (t *textTable) value(i int) string {
	end := len(t.text)
	if i+1 < len(t.entries) {
		end = int(t.entries[i+1].offset)
	}
	return t.text[t.entries[i].offset+uint32(t.lengths[i]) : end]
}

// textLoader builds a table.
type textLoader struct {
	path     string
	aliases  bool // the text is that of aliases(5)
	warn     func(string)
	warnings int
	text     strings.Builder
	table    textTable
}

func newTextLoader(path string, warn func(string)) *textLoader {
	if warn == nil {
		warn = func(string) {}
	}
	return &textLoader{path: path, warn: warn, table: textTable{path: path, seed: maphash.MakeSeed()}}
}

// reserve reads the file once to size text and entries, so that they need not grow
// while loading. The size is only a hint, because the file may change meanwhile.
func (l *textLoader) reserve(file *mapfile.File) error {
	lines, err := file.Lines()
	if err != nil {
		return err
	}
	count, size, aliases := 0, 0, 0
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		count++
		size += len(line.Text)
		if isAliasLine(line.Text) {
			aliases++
		}
	}
	l.aliases = count > 0 && aliases == count
	l.text.Grow(size)
	l.table.entries = make([]textEntry, 0, min(count, MaxEntries))
	l.table.lengths = make([]uint16, 0, min(count, MaxEntries))
	l.table.index = make([]uint32, indexSize(count))
	return nil
}

// indexSize returns the number of slots of which entries fill two thirds.
func indexSize(entries int) int { return max(8, entries*3/2+1) }

func (l *textLoader) load(lines *mapfile.Scanner) error {
	for {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.loadLine(line); err != nil {
			return err
		}
	}
}

func (l *textLoader) loadLine(line mapfile.Line) error {
	split := splitText
	if l.aliases {
		split = splitAlias
	}
	key, value, problem := split(line.Text)
	if problem != nil {
		problem.Path, problem.Line = l.path, line.Number
		return problem
	}
	if key[len(key)-1] == ':' {
		l.note(line.Number, fmt.Sprintf("key %q ends with a colon; is this an aliases(5) file?", key))
	}
	folded := foldText(key)
	if len(folded) > MaxKey {
		return &mapfile.Error{Path: l.path, Line: line.Number, What: "key is too long", Fix: fmt.Sprintf("a key may have %d octets", MaxKey)}
	}
	if len(l.table.entries) >= MaxEntries {
		return &mapfile.Error{Path: l.path, Line: line.Number, What: "too many entries", Fix: fmt.Sprintf("a table may have %d", MaxEntries)}
	}
	l.store(folded, value, line.Number)
	return nil
}

// store appends an entry, unless there is one with the same key.
func (l *textLoader) store(key string, value []byte, line int) {
	t := &l.table
	if indexSize(len(t.entries)+1) > len(t.index) {
		l.reindex()
	}
	slot, taken := t.slot(key)
	if taken {
		first := t.entries[t.index[slot]-1].line
		l.note(line, fmt.Sprintf("duplicate entry %q; the one in line %d counts, as in Postfix", key, first))
		return
	}
	t.entries = append(t.entries, textEntry{offset: uint32(l.text.Len()), line: uint32(line)})
	t.lengths = append(t.lengths, uint16(len(key)))
	t.index[slot] = uint32(len(t.entries))
	l.text.WriteString(key)
	l.text.Write(value)
	t.text = l.text.String()
}

func (l *textLoader) reindex() {
	t := &l.table
	t.index = make([]uint32, indexSize(2*len(t.entries)+1))
	for i := range t.entries {
		slot, _ := t.slot(t.key(i))
		t.index[slot] = uint32(i + 1)
	}
}

// note passes on a warning, but only the first few.
func (l *textLoader) note(line int, what string) {
	l.warnings++
	if l.warnings <= maxWarnings {
		l.warn(mapfile.Where(l.path, line) + ": " + what)
	}
}

func (l *textLoader) finish() *textTable {
	if more := l.warnings - maxWarnings; more > 0 {
		l.warn(fmt.Sprintf("%s: %d more warnings of this kind", l.path, more))
	}
	table := l.table
	return &table
}

// splitText separates key and value. The caller adds path and line to the problem.
func splitText(text []byte) (key, value []byte, problem *mapfile.Error) {
	if !utf8.Valid(text) {
		return nil, nil, &mapfile.Error{What: "invalid UTF-8", Fix: "save the file as UTF-8"}
	}
	end, quoted := textKeyEnd(text)
	if quoted {
		return nil, nil, &mapfile.Error{What: `unbalanced '"' in the key`, Fix: `close the quote, or write \"`}
	}
	key, value = text[:end], bytes.Trim(text[end:], mapfile.Space)
	if len(key) == 0 || len(value) == 0 {
		return nil, nil, &mapfile.Error{What: fmt.Sprintf("no value after key %.64q", key), Fix: "write: key, white space, value"}
	}
	return key, value, nil
}

// textKeyEnd returns the index of the first white space outside of quotes, or the end,
// and whether a quote is still open there.
func textKeyEnd(text []byte) (end int, quoted bool) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case mapfile.IsSpace(c) && !quoted:
			return i, false
		}
	}
	return len(text), quoted
}

func foldText(key []byte) string { return mailaddr.FoldKey(string(key)) }
