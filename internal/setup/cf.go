// The text of main.cf and master.cf, entry by entry. Undo uses it to restore entries
// when others have changed the files since.

package setup

import (
	"maps"
	"slices"
	"strings"
)

// entry is a logical line with its continuation lines. An entry with the key "" is the
// comments and blank lines between two others.
type entry struct{ key, text string }

// parseCF parses main.cf or master.cf. Comments between the lines of an entry are part
// of it.
func parseCF(text string, master bool) []entry {
	var all []entry
	between := "" // comments and blank lines that are not part of an entry yet
	for line := range strings.Lines(text) {
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimLeft(line, " \t"), "#"):
			between += line
		case (line[0] == ' ' || line[0] == '\t') && len(all) > 0 && all[len(all)-1].key != "":
			all[len(all)-1].text += between + line
			between = ""
		default:
			all = append(all, entry{text: between}, entry{keyOf(line, master), line})
			between = ""
		}
	}
	return append(all, entry{text: between})
}

// keyOf returns the name of a parameter, or of a service with its type.
func keyOf(line string, master bool) string {
	if !master {
		name, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(name)
	}
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return strings.TrimSpace(line)
	}
	return fields[0] + "/" + fields[1]
}

// blocks maps keys to entries. Entries with the same key are joined.
func blocks(entries []entry) map[string]string {
	all := make(map[string]string)
	for _, e := range entries {
		if e.key != "" {
			all[e.key] += e.text
		}
	}
	return all
}

// words returns the words of a text without its comments. Two texts with the same words
// mean the same to Postfix.
func words(text string) string {
	var all []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			all = append(all, strings.Fields(strings.ReplaceAll(line, ",", " "))...)
		}
	}
	return strings.Join(all, " ")
}

// takeOut restores the entries that we have changed and that still have our text. left
// are the keys of the entries that others have changed too.
func takeOut(now, before, after string, master bool) (text string, left []string) {
	was, ours := blocks(parseCF(before, master)), blocks(parseCF(after, master))
	changed := func(key string) bool { return words(was[key]) != words(ours[key]) }
	var b strings.Builder
	seen := make(map[string]bool)
	for _, e := range parseCF(now, master) {
		switch {
		case e.key == "" || !changed(e.key) || words(e.text) == words(was[e.key]):
			b.WriteString(e.text)
		case words(e.text) == words(ours[e.key]):
			b.WriteString(was[e.key]) // empty if there was no such entry
		default:
			b.WriteString(e.text)
			left = append(left, e.key)
		}
		seen[e.key] = true
	}
	// Entries that we had removed.
	for _, key := range slices.Sorted(maps.Keys(was)) {
		text := was[key]
		if !seen[key] && ours[key] == "" && changed(key) {
			if written := b.String(); written != "" && !strings.HasSuffix(written, "\n") {
				b.WriteString("\n")
			}
			b.WriteString(text)
		}
	}
	return b.String(), left
}

// mergeBack returns a list that others have changed after us, with our elements
// replaced by the earlier ones. ok is false if the list has none of our elements.
func mergeBack(now, before, after string) (merged string, ok bool) {
	was, ours := elements(before), elements(after)
	minus := func(a, b []string) map[string]bool {
		set := make(map[string]bool)
		for _, x := range a {
			set[x] = true
		}
		for _, x := range b {
			delete(set, x)
		}
		return set
	}
	added, gone := minus(ours, was), minus(was, ours)
	var result []string
	for _, element := range elements(now) {
		if !added[element] {
			delete(gone, element) // already restored
			result = append(result, element)
			continue
		}
		ok = true
		for _, old := range was {
			if gone[old] {
				result = append(result, old)
				delete(gone, old)
			}
		}
	}
	return strings.Join(result, ", "), ok
}
