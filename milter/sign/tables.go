package sign

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds of OpenDKIM's tables.
const (
	maxTableLines = 100_000
	maxTableLine  = 4 << 10 // octets
)

// signingTable says which keys an author's mail gets. A pattern is a local part
// or nothing, "@", and a domain, a domain with a dot before it for all that is
// below it, or "*" for all.
type signingTable map[string][]*Key

// choose returns the keys of the most specific pattern, without those whose
// domain would not align with the author's.
func (t signingTable) choose(a author.Mailbox) []*Key {
	if len(t) == 0 {
		return nil
	}
	for _, pattern := range patternsFor(mailaddr.Fold(a.Local), a.Domain) {
		if keys, ok := t[pattern]; ok {
			return slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return !covers(k.Domain, a.Domain) })
		}
	}
	return nil
}

// covers tells whether a signature of domain can speak for an author's domain.
func covers(domain, authors string) bool {
	return domain == authors || strings.HasSuffix(authors, "."+domain)
}

// patternsFor lists what can match an address, the most specific first, in the
// order in which OpenDKIM asks its tables.
func patternsFor(local, domain string) []string {
	var patterns []string
	add := func(domain string) {
		if local != "" {
			patterns = append(patterns, local+"@"+domain)
		}
		patterns = append(patterns, "@"+domain)
	}
	add(domain)
	for parent := strings.TrimPrefix(domain, "."); ; {
		_, next, ok := strings.Cut(parent, ".")
		if !ok {
			break
		}
		add("." + next)
		parent = next
	}
	add("*")
	return patterns
}

// tableLine is a line of a table: a key and what it stands for.
type tableLine struct {
	file       string
	number     int
	key, value string
}

func (t tableLine) errorf(format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", t.file, t.number, fmt.Errorf(format, args...))
}

// loadTables reads OpenDKIM's KeyTable and SigningTable.
func (l *loader) loadTables() {
	if l.src.KeyTable == "" || l.src.SigningTable == "" {
		l.fail(errors.New("a key table and a signing table are needed together"))
		return
	}
	named := l.loadKeyTable()
	path, patterns := strings.CutPrefix(l.src.SigningTable, "refile:")
	l.loadSigningTable(path, patterns, named)
}

// loadKeyTable reads lines of the form "name domain:selector:/path".
func (l *loader) loadKeyTable() map[string]*Key {
	named := make(map[string]*Key)
	for _, line := range l.readTable(strings.TrimPrefix(l.src.KeyTable, "refile:")) {
		if _, ok := named[line.key]; ok {
			l.fail(line.errorf("the name %q occurs twice", line.key))
			continue
		}
		key, err := l.loadTableKey(line)
		if err != nil {
			l.fail(err)
		}
		named[line.key] = key
	}
	return named
}

func (l *loader) loadTableKey(line tableLine) (*Key, error) {
	part := strings.SplitN(line.value, ":", 3)
	if len(part) != 3 {
		return nil, line.errorf("want domain:selector:/path/to/key")
	}
	if part[0] == "%" {
		return nil, line.errorf("the domain is %%; write a line for each domain that signs")
	}
	domain, err := mailaddr.ParseDomain(part[0])
	if err != nil {
		return nil, line.errorf("the domain is not one: %w", err)
	}
	// Older tables hold the key itself, so the third part is not shown.
	if !filepath.IsAbs(part[2]) {
		return nil, line.errorf("the key is not the absolute path of a file; keys within the table are not read")
	}
	return l.load(domain, part[1], filepath.Clean(part[2])), nil
}

// rule is a pattern of the signing table and the line that made it.
type rule struct {
	line    tableLine
	pattern string
}

func (l *loader) loadSigningTable(path string, wildcards bool, named map[string]*Key) {
	table := make(signingTable)
	var rules []rule
	for _, line := range l.readTable(path) {
		pattern, err := parsePattern(line.key, wildcards)
		if err != nil {
			l.fail(line.errorf("%q: %w", line.key, err))
			continue
		}
		if err := table.add(pattern, line, named); err != nil {
			l.fail(err)
			continue
		}
		rules = append(rules, rule{line, pattern})
	}
	if wildcards {
		l.checkOrder(table, rules)
	}
	l.keys.table = table
}

// add gives the keys of a line to a pattern. A pattern may stand on several
// lines: its mail then gets all the signatures, which have to be of one domain.
func (t signingTable) add(pattern string, line tableLine, named map[string]*Key) error {
	for name := range strings.SplitSeq(line.value, ",") {
		name = strings.TrimSpace(name)
		key, ok := named[name]
		if !ok {
			if strings.Contains(name, ":") {
				return line.errorf("%q: signer identities are not used; write the key's name only", name)
			}
			return line.errorf("no key is named %q", name)
		}
		if key == nil {
			continue // refused already
		}
		_, domain, _ := strings.Cut(pattern, "@")
		if domain = strings.TrimPrefix(domain, "."); domain != "*" && !covers(key.Domain, domain) {
			return line.errorf("the key %q is of %s, which does not align with %s", name, key.Domain, domain)
		}
		keys := t[pattern]
		if len(keys) > 0 && keys[0].Domain != key.Domain {
			return line.errorf("ambiguous: an earlier line signs the same mail for %s", keys[0].Domain)
		}
		if len(keys) == MaxKeysPerDomain {
			return line.errorf("more than %d keys", MaxKeysPerDomain)
		}
		if !slices.Contains(keys, key) {
			t[pattern] = append(keys, key)
		}
	}
	return nil
}

// checkOrder refuses a table in which the first match, which OpenDKIM takes, is
// not the most specific one, which is taken here.
func (l *loader) checkOrder(table signingTable, rules []rule) {
	first := make(map[string]tableLine)
	for _, r := range rules {
		if _, ok := first[r.pattern]; !ok {
			first[r.pattern] = r.line
		}
		local, domain, _ := strings.Cut(r.pattern, "@")
		for _, wider := range patternsFor(local, domain) {
			line, ok := first[wider]
			if ok && wider != r.pattern && !slices.Equal(table[wider], table[r.pattern]) {
				l.fail(r.line.errorf("ambiguous: line %d matches the same mail first; move it below this one", line.number))
				break
			}
		}
	}
}

// parsePattern reads the key of a signing table, with the syntax of its kind.
func parsePattern(s string, wildcards bool) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	switch {
	case s == "*":
		return "@*", nil
	case !ok && wildcards && strings.HasPrefix(s, "*."):
		local, domain = "*", s
	case !ok && wildcards:
		return "", errors.New("a pattern matches whole addresses; write *@domain")
	case !ok:
		local, domain = "*", s
	}
	if domain == "*" && local == "*" {
		return "@*", nil
	}
	name := domain
	if wildcards && strings.HasPrefix(domain, "*.") {
		domain, name = domain[1:], domain[2:]
	} else if !wildcards && strings.HasPrefix(domain, ".") {
		name = domain[1:]
	}
	if domain != "*" {
		canonical, err := mailaddr.ParseDomain(name)
		if err != nil {
			return "", errors.New("only *@domain, *@*.domain, user@domain and * are read")
		}
		domain = domain[:len(domain)-len(name)] + canonical
	}
	if local == "*" {
		return "@" + domain, nil
	}
	if local == "" || strings.Contains(local, "*") || wildcards && (domain == "*" || domain[0] == '.') {
		return "", errors.New("only *@domain, *@*.domain, user@domain and * are read")
	}
	return mailaddr.Fold(local) + "@" + domain, nil
}

// readTable reads lines of two words; "#" begins a comment.
func (l *loader) readTable(path string) []tableLine {
	path = strings.TrimPrefix(path, "file:")
	f, err := os.Open(path)
	if err != nil {
		l.fail(openError(path, err))
		return nil
	}
	defer f.Close()
	l.keys.files = append(l.keys.files, path)
	lines, err := parseTable(path, f)
	if err != nil {
		l.fail(err)
	}
	return lines
}

func parseTable(path string, r io.Reader) ([]tableLine, error) {
	var lines []tableLine
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxTableLine)
	number := 0
	for scanner.Scan() {
		number++
		text, _, _ := strings.Cut(scanner.Text(), "#")
		key, value, _ := strings.Cut(strings.ReplaceAll(strings.TrimSpace(text), "\t", " "), " ")
		if key == "" {
			continue
		}
		line := tableLine{file: path, number: number, key: key, value: strings.TrimSpace(value)}
		if line.value == "" {
			return lines, line.errorf("want two words")
		}
		if number > maxTableLines {
			return lines, line.errorf("more than %d lines", maxTableLines)
		}
		lines = append(lines, line)
	}
	if err := scanner.Err(); err != nil {
		return lines, fmt.Errorf("%s:%d: %w", path, number+1, err)
	}
	return lines, nil
}
