package sign

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// Bounds of a key store.
const (
	// MaxKeys is the number of keys a store may hold.
	MaxKeys = 10_000
	// MaxKeysPerDomain is the number of signatures a message may get.
	MaxKeysPerDomain = 8

	keySuffix    = ".private"
	maxFolder    = 100_000 // entries of one folder
	maxLoadError = 20      // errors that one load reports
)

// KeySource says where private keys are. At least one of Dir and KeyTable is
// needed for a store that is not empty.
type KeySource struct {
	// Dir holds DIR/<domain>/<selector>.private.
	Dir string
	// KeyTable and SigningTable are OpenDKIM's files of these names.
	// SigningTable may begin with "refile:", as it does there.
	KeyTable, SigningTable string
	// Group is the group whose members may read keys besides their owner: the
	// daemon's own. A negative number means none.
	Group int
}

// Keys is one load of all keys. It never changes.
type Keys struct {
	byDomain map[string][]*Key // of the folder
	table    signingTable
	all      []*Key
	files    []string
	dirs     []string
}

// LoadKeys reads all keys. Every problem is an error, so that a key that cannot
// be used is noticed when it is put there and not when mail goes out unsigned;
// the error joins the first of them.
func LoadKeys(src KeySource) (*Keys, error) {
	l := &loader{src: src, keys: &Keys{byDomain: make(map[string][]*Key)}, byName: make(map[string]*Key)}
	if src.Dir != "" {
		l.loadDir(src.Dir)
	}
	if src.KeyTable != "" || src.SigningTable != "" {
		l.loadTables()
	}
	if len(l.errs) > 0 {
		return nil, fmt.Errorf("DKIM keys: %w", errors.Join(l.errs...))
	}
	return l.finish(), nil
}

// All returns the keys by domain and selector.
func (k *Keys) All() []*Key { return slices.Clone(k.all) }

// Domains returns the domains that have a key, sorted.
func (k *Keys) Domains() []string {
	domains := make(map[string]bool)
	for _, key := range k.all {
		domains[key.Domain] = true
	}
	return slices.Sorted(maps.Keys(domains))
}

// Without returns the keys but for those that out names. Files and folders stay
// those that were read.
func (k *Keys) Without(out func(*Key) bool) *Keys {
	rest := &Keys{
		byDomain: make(map[string][]*Key, len(k.byDomain)),
		table:    make(signingTable, len(k.table)),
		all:      slices.DeleteFunc(slices.Clone(k.all), out),
		files:    k.files,
		dirs:     k.dirs,
	}
	for domain, keys := range k.byDomain {
		rest.byDomain[domain] = slices.DeleteFunc(slices.Clone(keys), out)
	}
	for pattern, keys := range k.table {
		rest.table[pattern] = slices.DeleteFunc(slices.Clone(keys), out)
	}
	return rest
}

// Files returns the files that were read: keys and tables.
func (k *Keys) Files() []string { return slices.Clone(k.files) }

// Dirs returns the folders in which a change calls for a new load.
func (k *Keys) Dirs() []string { return slices.Clone(k.dirs) }

// choose returns the keys for mail of an author. The keys of his own domain come
// from the folder and from the signing table; with subdomains, the nearest
// parent that has keys in the folder stands in for a domain that has none.
func (k *Keys) choose(a author.Mailbox, subdomains bool) []*Key {
	keys := slices.Clone(k.table.choose(a))
	for domain := a.Domain; ; {
		for _, key := range k.byDomain[domain] {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		_, parent, ok := strings.Cut(domain, ".")
		if len(keys) > 0 || !subdomains || !ok {
			break
		}
		domain = parent
	}
	return keys[:min(len(keys), MaxKeysPerDomain)]
}

// loader gathers keys and errors.
type loader struct {
	src    KeySource
	keys   *Keys
	errs   []error
	byName map[string]*Key // a table may name a key of the folder again
}

func (l *loader) fail(err error) {
	if len(l.errs) < maxLoadError {
		l.errs = append(l.errs, err)
	}
}

func (l *loader) finish() *Keys {
	k := l.keys
	slices.SortFunc(k.all, func(a, b *Key) int {
		return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Selector, b.Selector))
	})
	// What every verifier knows comes first: some look at no other signature.
	for _, keys := range k.byDomain {
		slices.SortFunc(keys, func(a, b *Key) int {
			return cmp.Or(cmp.Compare(b.Algorithm, a.Algorithm), cmp.Compare(a.Selector, b.Selector))
		})
	}
	for _, key := range k.all {
		k.files = append(k.files, key.Path)
	}
	for _, path := range k.files {
		k.dirs = append(k.dirs, filepath.Dir(path))
	}
	slices.Sort(k.files)
	slices.Sort(k.dirs)
	k.files, k.dirs = slices.Compact(k.files), slices.Compact(k.dirs)
	return k
}

// loadDir reads DIR/<domain>/<selector>.private. It looks at these two levels
// only, so symbolic links, which it follows, cannot lead it in circles.
func (l *loader) loadDir(dir string) {
	l.keys.dirs = append(l.keys.dirs, dir)
	for _, entry := range l.list(dir) {
		path := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(entry.Name(), keySuffix) {
			l.fail(fmt.Errorf("%s: a key outside a domain's folder; move it to %s", path, filepath.Join(dir, "<domain>", entry.Name())))
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			l.fail(openError(path, err))
			continue
		}
		if info.IsDir() {
			l.loadDomain(path, entry.Name())
		}
	}
}

func (l *loader) loadDomain(dir, name string) {
	l.keys.dirs = append(l.keys.dirs, dir)
	domain, domainErr := mailaddr.ParseDomain(name)
	for _, entry := range l.list(dir) {
		selector, isKey := strings.CutSuffix(entry.Name(), keySuffix)
		if !isKey {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		if domainErr != nil {
			l.fail(fmt.Errorf("%s: the folder is not named like a domain", path))
			continue
		}
		if key := l.load(domain, selector, path); key != nil {
			l.addToDomain(key)
		}
	}
}

func (l *loader) addToDomain(key *Key) {
	keys := append(l.keys.byDomain[key.Domain], key)
	if len(keys) == MaxKeysPerDomain+1 {
		l.fail(fmt.Errorf("%s: more than %d keys for %s", key.Path, MaxKeysPerDomain, key.Domain))
	}
	l.keys.byDomain[key.Domain] = keys
}

// list returns the entries of a folder that are not hidden, in their order.
func (l *loader) list(dir string) []fs.DirEntry {
	if err := checkFolder(dir); err != nil {
		l.fail(err)
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		l.fail(openError(dir, err))
		return nil
	}
	defer f.Close()
	entries, err := f.ReadDir(maxFolder + 1)
	if len(entries) > maxFolder {
		l.fail(fmt.Errorf("%s: more than %d entries", dir, maxFolder))
		return nil
	}
	if len(entries) == 0 && err != nil && err != io.EOF {
		l.fail(err)
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries
}

// load reads the key of a selector, once, or returns nil after an error.
func (l *loader) load(domain, selector, path string) *Key {
	selector = strings.ToLower(selector)
	id := selector + "._domainkey." + domain
	if key := l.byName[id]; key != nil {
		if key.Path == path {
			return key
		}
		l.fail(fmt.Errorf("%s: %s has its key in %s already", path, id, key.Path))
		return nil
	}
	if _, err := mailaddr.ParseDomain(id); err != nil {
		l.fail(fmt.Errorf("%s: %q is not a selector", path, selector))
		return nil
	}
	if len(l.keys.all) == MaxKeys {
		l.fail(fmt.Errorf("%s: more than %d keys", path, MaxKeys))
		return nil
	}
	signer, err := readKeyFile(path, l.src.Group)
	if err != nil {
		l.fail(err)
		return nil
	}
	key, err := newKey(domain, selector, path, signer)
	if err != nil {
		l.fail(err)
		return nil
	}
	l.byName[id] = key
	l.keys.all = append(l.keys.all, key)
	return key
}
