package sign

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// namedKey is a row of the key table. It has no key if that was refused.
type namedKey struct {
	domain string // the domain it signs for, "%" for the author's, "" if it could not be read
	fixed  *Key
	// byDomain are the keys of a row for "%", by the domain of the author. A nil key
	// does not sign.
	byDomain map[string]*Key
	// any is the key for the domains that byDomain lacks; it has no Domain.
	any *Key
}

// key returns the key for mail of a domain, or nil.
func (n *namedKey) key(domain string) *Key {
	if n.fixed != nil {
		return n.fixed
	}
	if key, ok := n.byDomain[domain]; ok {
		return key
	}
	if n.any == nil {
		return nil
	}
	key := *n.any
	key.Domain = domain
	return &key
}

// keys returns the keys of the row that have a domain.
func (n *namedKey) keys() []*Key {
	all := slices.Collect(maps.Values(n.byDomain))
	if n.fixed != nil {
		all = append(all, n.fixed)
	}
	return all
}

func (n *namedKey) without(out func(*Key) bool) *namedKey {
	rest := &namedKey{domain: n.domain, any: n.any, byDomain: maps.Clone(n.byDomain)}
	if n.fixed != nil && !out(n.fixed) {
		rest.fixed = n.fixed
	}
	for domain, key := range n.byDomain {
		if key != nil && out(key) {
			rest.byDomain[domain] = nil
		}
	}
	return rest
}

// loadTables reads OpenDKIM's KeyTable and SigningTable.
func (l *loader) loadTables() {
	if l.src.KeyTable == "" || l.src.SigningTable == "" {
		l.fail(errors.New("a key table and a signing table are needed together"))
		return
	}
	keys, err := ParseDataSet(l.src.KeyTable)
	senders, sendersErr := ParseDataSet(l.src.SigningTable)
	if err := errors.Join(err, sendersErr); err != nil {
		l.fail(err)
		return
	}
	l.loadSigningTable(senders, l.loadKeyTable(keys))
}

// loadKeyTable reads lines of the form "name domain:selector:/path".
func (l *loader) loadKeyTable(set DataSet) map[string]*namedKey {
	named := make(map[string]*namedKey)
	for _, line := range l.readTable(set) {
		if _, ok := named[line.key]; ok {
			l.fail(line.errorf("the name %q occurs twice", line.key))
			continue
		}
		key, err := l.loadTableKey(set, line)
		if err != nil {
			l.fail(err)
			key = new(namedKey)
		}
		named[line.key] = key
	}
	return named
}

func (l *loader) loadTableKey(set DataSet, line tableLine) (*namedKey, error) {
	part := strings.SplitN(line.value, ":", 3)
	if len(part) != 3 {
		return nil, line.errorf("want domain:selector:/path/to/key")
	}
	path, err := keyPath(set, part[2])
	if err != nil {
		return nil, line.errorf("%w", err)
	}
	if part[0] != "%" {
		domain, err := mailaddr.ParseDomain(part[0])
		if err != nil {
			return nil, line.errorf("the domain is not one: %w", err)
		}
		return &namedKey{domain: domain, fixed: l.load(domain, part[1], strings.ReplaceAll(path, "%", domain))}, nil
	}
	if strings.Contains(path, "%") {
		return l.loadKeyOfEach(line, part[1], path), nil
	}
	return l.loadKeyOfAny(line, part[1], path)
}

// keyPath returns the file of a key. For opendkim a relative path begins at its
// working directory; here it begins at the folder of the table.
func keyPath(set DataSet, text string) (string, error) {
	relative := strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../")
	switch {
	case filepath.IsAbs(text):
		return filepath.Clean(text), nil
	case relative && set.Path != "":
		return filepath.Join(filepath.Dir(set.Path), text), nil
	}
	// Older tables hold the key itself, so the text is not shown.
	return "", errors.New("the key is not the absolute path of a file, nor one that begins with ./ or ../ from the folder of the table; keys within the table are not read: move it to a file")
}

// loadKeyOfAny reads a key that signs for any domain of an author.
func (l *loader) loadKeyOfAny(line tableLine, selector, path string) (*namedKey, error) {
	selector = strings.ToLower(selector)
	if _, err := mailaddr.ParseDomain(selector + "._domainkey.example"); err != nil {
		return nil, line.errorf("%q is not a selector", selector)
	}
	n := &namedKey{domain: "%", byDomain: make(map[string]*Key)}
	signer := l.readKey(path)
	if signer == nil {
		return n, nil
	}
	l.keys.signers[path] = signer
	var err error
	n.any, err = newKey("", selector, path, signer)
	return n, err
}

// loadKeyOfEach reads the keys of a row with "%" as the domain and within the path:
// one for each domain that has such a file now.
func (l *loader) loadKeyOfEach(line tableLine, selector, path string) *namedKey {
	n := &namedKey{domain: "%", byDomain: make(map[string]*Key)}
	found, err := l.expand(path)
	if err != nil {
		l.fail(err)
		if before := l.before.table.named[line.key]; before != nil {
			for domain := range before.byDomain {
				found[domain] = strings.ReplaceAll(path, "%", domain)
			}
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(found)) {
		file := found[domain]
		if key := l.load(domain, selector, file); key != nil {
			n.byDomain[domain] = key
		}
	}
	return n
}

// expand finds the domains for which a file exists when the domain replaces "%". A
// file of the previous load counts even if it cannot be seen now.
func (l *loader) expand(path string) (map[string]string, error) {
	before, _, _ := strings.Cut(path, "%")
	dir, _ := filepath.Split(before)
	pattern, below, _ := strings.Cut(path[len(dir):], "/")
	found := make(map[string]string)
	entries, err := l.list(filepath.Clean(dir))
	for _, entry := range entries {
		domain, ok := domainIn(entry.Name(), pattern)
		if !ok {
			continue
		}
		file := strings.ReplaceAll(path, "%", domain)
		if below != "" {
			l.keys.dirs = append(l.keys.dirs, filepath.Dir(file)) // the key may be added later
		}
		if _, err := os.Lstat(file); err == nil || l.before.signers[file] != nil {
			found[domain] = file
		}
	}
	return found, err
}

// domainIn returns the domain that turns pattern into name when it replaces "%".
// opendkim asks for it in lower case.
func domainIn(name, pattern string) (string, bool) {
	count := strings.Count(pattern, "%")
	start, size := strings.IndexByte(pattern, '%'), (len(name)-len(pattern)+count)/count
	if size < 1 || start+size > len(name) {
		return "", false
	}
	domain, err := mailaddr.ParseDomain(name[start : start+size])
	return domain, err == nil && strings.ReplaceAll(pattern, "%", domain) == name
}

// settle makes a named copy of each key for any domain, for every domain that the
// signing table names. So they are listed and watched like other keys.
func (l *loader) settle(t *signingTable) {
	for _, pattern := range slices.Sorted(maps.Keys(t.rules)) {
		_, domain, _ := strings.Cut(pattern, "@")
		if domain == "*" || domain[0] == '.' {
			continue
		}
		for _, e := range t.rules[pattern].entries {
			named := t.named[e.nameFor(domain)]
			if named == nil || named.any == nil || named.byDomain[domain] != nil {
				continue
			}
			if key := l.keep(domain, named.any.Selector, named.any.Path, named.any.Signer); key != nil {
				named.byDomain[domain] = key
			}
		}
	}
}
