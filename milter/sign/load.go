package sign

import (
	"cmp"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

const (
	keySuffix    = ".private"
	maxFolder    = 100_000 // entries of one folder
	maxLoadError = 20      // errors that one load reports
)

// LoadKeys reads all keys. A file, folder or row that cannot be used affects only its
// own keys. The error joins the first such problems and is returned beside the other
// keys. Keys are nil when there are problems and no key could be read.
func LoadKeys(src KeySource) (*Keys, error) {
	l := newLoader(src)
	switch {
	case src.Dir == "":
	case src.Credential != "":
		l.loadCredentials(src.Dir, src.Credential)
	default:
		l.loadDir(src.Dir)
	}
	if src.KeyTable != "" || src.SigningTable != "" {
		l.loadTables()
	}
	keys := l.finish()
	switch {
	case keys.problems == 0:
		return keys, nil
	case l.read == 0:
		keys = nil
	}
	return keys, fmt.Errorf("DKIM keys: %w", errors.Join(l.errs...))
}

// loader gathers keys and errors.
type loader struct {
	src     KeySource
	before  *Keys
	keys    *Keys
	errs    []error
	byName  map[string]*Key // a table may name a key of the folder again
	read    int             // files that hold a key
	refused map[string]bool // files that could not be read
}

func newLoader(src KeySource) *loader {
	l := &loader{src: src, before: src.Before, byName: make(map[string]*Key), refused: make(map[string]bool), keys: &Keys{
		byDomain: make(map[string][]*Key),
		signers:  make(map[string]crypto.Signer),
		rows:     make(map[string][]tableLine),
	}}
	if l.before == nil {
		l.before = new(Keys)
	}
	return l
}

func (l *loader) fail(err error) {
	l.keys.problems++
	if len(l.errs) < maxLoadError {
		l.errs = append(l.errs, err)
	}
}

func (l *loader) warn(err error) {
	if len(l.keys.warnings) < maxLoadError {
		l.keys.warnings = append(l.keys.warnings, err.Error())
	}
}

func (l *loader) finish() *Keys {
	k := l.keys
	slices.SortFunc(k.all, byDomain)
	// The algorithm that every verifier knows comes first: some verify only the first
	// signature.
	for _, keys := range k.byDomain {
		slices.SortFunc(keys, func(a, b *Key) int {
			return cmp.Or(cmp.Compare(b.Algorithm, a.Algorithm), cmp.Compare(a.Selector, b.Selector))
		})
	}
	slices.Sort(k.dirs)
	k.dirs = slices.Compact(k.dirs)
	return k
}

// byDomain orders keys by domain and selector.
func byDomain(a, b *Key) int {
	return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Selector, b.Selector))
}

// loadDir reads DIR/<domain>/<selector>.private. It reads only these two levels. So
// it can follow symbolic links without a loop.
func (l *loader) loadDir(dir string) {
	entries, err := l.list(dir)
	if err != nil {
		l.fail(err)
		l.carry(dir)
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if strings.HasSuffix(entry.Name(), keySuffix) {
			l.fail(fmt.Errorf("%s: a key outside a domain's folder; move it to %s", path, filepath.Join(dir, "<domain>", entry.Name())))
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			l.fail(openError(path, err))
			l.carry(path)
			continue
		}
		if info.IsDir() {
			l.loadDomain(path, entry.Name())
		}
	}
}

func (l *loader) loadDomain(dir, name string) {
	domain, domainErr := mailaddr.ParseDomain(name)
	entries, err := l.list(dir)
	if err != nil {
		l.fail(err)
		l.carry(dir)
	}
	for _, entry := range entries {
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

// loadCredentials reads the keys among the credentials of a service. A domain has no
// underscore, but a selector may.
func (l *loader) loadCredentials(dir, name string) {
	entries, err := l.list(dir)
	if err != nil {
		l.fail(err)
		return
	}
	found := false
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), name+"_")
		file, isKey := strings.CutSuffix(rest, keySuffix)
		if !ours || !isKey {
			continue
		}
		found = true
		path := filepath.Join(dir, entry.Name())
		text, selector, _ := strings.Cut(file, "_")
		if strings.HasPrefix(selector, ".") {
			continue // from a hidden folder, which is skipped in a folder of keys too
		}
		domain, err := mailaddr.ParseDomain(text)
		if err != nil || selector == "" {
			l.fail(fmt.Errorf("%s: the credential is not named %s_<domain>_<selector>%s; in the unit, write LoadCredential=%s:FOLDER for a folder of keys", path, name, keySuffix, name))
			continue
		}
		if key := l.load(domain, selector, path); key != nil {
			l.addToDomain(key)
		}
	}
	if !found {
		l.fail(fmt.Errorf("%s: no credential is named %s_<domain>_<selector>%s; in the unit, write LoadCredential=%s:FOLDER for a folder of keys", dir, name, keySuffix, name))
	}
}

// carry keeps the keys of the previous load from a folder, or from the folders of
// domains in it, when the folder cannot be read now.
func (l *loader) carry(dir string) {
	for _, path := range slices.Sorted(maps.Keys(l.before.signers)) {
		folder := filepath.Dir(path)
		selector, isKey := strings.CutSuffix(filepath.Base(path), keySuffix)
		domain, err := mailaddr.ParseDomain(filepath.Base(folder))
		if !isKey || err != nil || folder != dir && filepath.Dir(folder) != dir {
			continue
		}
		if key := l.keep(domain, selector, path, l.before.signers[path]); key != nil {
			l.addToDomain(key)
		}
	}
}

// addToDomain adds a key of the folder, unless the domain has too many.
func (l *loader) addToDomain(key *Key) {
	keys := l.keys.byDomain[key.Domain]
	if len(keys) == MaxKeysPerDomain {
		l.fail(fmt.Errorf("%s: more than %d keys for %s", key.Path, MaxKeysPerDomain, key.Domain))
		return
	}
	l.keys.byDomain[key.Domain] = append(keys, key)
}

// list returns the entries of a folder that are not hidden, in their order.
func (l *loader) list(dir string) ([]fs.DirEntry, error) {
	l.keys.dirs = append(l.keys.dirs, dir)
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, openError(dir, err)
	}
	defer f.Close()
	entries, err := f.ReadDir(maxFolder + 1)
	if len(entries) > maxFolder {
		return nil, fmt.Errorf("%s: more than %d entries", dir, maxFolder)
	}
	if len(entries) == 0 && err != nil && err != io.EOF {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// load reads the key of a selector, once, or returns nil after an error.
func (l *loader) load(domain, selector, path string) *Key {
	if signer := l.readKey(path); signer != nil {
		return l.keep(domain, selector, path, signer)
	}
	return nil
}

// readKey reads a key file. If that fails, it returns the file's key of the previous
// load.
func (l *loader) readKey(path string) crypto.Signer {
	l.keys.dirs = append(l.keys.dirs, filepath.Dir(path))
	if signer := l.keys.signers[path]; signer != nil {
		return signer
	}
	if l.refused[path] {
		return l.before.signers[path]
	}
	signer, err := readKeyFile(path, l.src.Group)
	if err != nil {
		l.fail(err)
		l.refused[path] = true
		return l.before.signers[path]
	}
	l.read++
	return rsaEngine(l.src.RSA).signer(signer)
}

// rsaEngine returns the signer that uses an RSA key; nil uses the key itself.
type rsaEngine func(*rsa.PrivateKey) crypto.Signer

// signer returns the signer that uses a key.
func (e rsaEngine) signer(key crypto.Signer) crypto.Signer {
	if key, ok := key.(*rsa.PrivateKey); ok && e != nil {
		return e(key)
	}
	return key
}

// keep adds the key of a selector to all keys, once.
func (l *loader) keep(domain, selector, path string, signer crypto.Signer) *Key {
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
	key, err := newKey(domain, selector, path, signer)
	if err != nil {
		l.fail(err)
		return nil
	}
	l.byName[id] = key
	l.keys.all = append(l.keys.all, key)
	l.keys.signers[path] = signer
	return key
}
