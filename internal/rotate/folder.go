package rotate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter/sign"
)

const (
	// hidden is the folder, inside the folder of a domain, for keys that do not sign.
	// Names that begin with a dot are not read as keys.
	hidden    = ".rotation"
	keySuffix = ".private"
	txtSuffix = ".txt"
	temporary = ".new"
	maxKey    = 64 << 10 // octets
)

// domainFolder is the folder with the keys of one domain. Symbolic links in it cannot
// lead to changes outside of it.
type domainFolder struct {
	dir    string // of all domains
	domain string
	root   *os.Root
	lock   *os.File
	owner  owner
	before func(what string) error
	noSync bool
}

// owner is the owner of new files: when root runs this, the owner of the key folder.
type owner struct {
	set      bool
	uid, gid int
}

// ErrBusy means that another process is making a step for this domain.
var ErrBusy = errors.New("another process works on the rotation of this domain; try again in a minute")

// openFolder opens the folder of a domain and locks it until close is called.
func openFolder(s *Settings, domain string) (*domainFolder, error) {
	dir := s.Dir
	root, err := sign.OpenDomainFolder(dir, domain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no keys in %s; make them with `postern dkim genkey %s`", domain, dir, domain)
	}
	if err != nil {
		return nil, err
	}
	d := &domainFolder{dir: dir, domain: domain, root: root, before: s.before, noSync: s.noSync}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *domainFolder) prepare() error {
	info, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		d.owner = owner{true, int(sys.Uid), int(sys.Gid)}
	}
	switch err := d.root.Mkdir(hidden, 0o700); {
	case errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; the rotation writes into the folder of the keys: give this user access, for postern-milterd with ReadWritePaths=%s in a drop-in of its unit", err, d.dir)
	case err != nil:
		return err
	default:
		if err := d.own(hidden); err != nil {
			return err
		}
	}
	name := hidden + "/" + lockFile
	if d.lock, err = d.root.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600); err != nil {
		return err
	}
	if err := d.own(name); err != nil {
		return err
	}
	return take(d.lock)
}

// take locks a file. The lock ends with the process at the latest.
func take(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return ErrBusy
	case err != nil:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

func (d *domainFolder) close() error {
	var err error
	if d.lock != nil {
		// A child that this process forks at the moment has the file open until it
		// executes its program. Only unlocking ends the lock for both.
		err = errors.Join(syscall.Flock(int(d.lock.Fd()), syscall.LOCK_UN), d.lock.Close())
	}
	return errors.Join(err, d.root.Close())
}

// path returns the path of a file for messages.
func (d *domainFolder) path(below ...string) string {
	return filepath.Join(d.dir, d.domain, filepath.Join(below...))
}

func (d *domainFolder) own(name string) error {
	if !d.owner.set {
		return nil
	}
	return d.root.Lchown(name, d.owner.uid, d.owner.gid)
}

// look notes that a host looks at the rotation now. Only the one that has the lock may.
func (d *domainFolder) look(now time.Time) error {
	const name = hidden + "/" + lookedFile
	err := d.root.Chtimes(name, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), d.own(name), d.root.Chtimes(name, now, now))
}

// looked returns when a host has last looked, zero if that is not known.
func (d *domainFolder) looked() (time.Time, error) {
	info, err := d.root.Lstat(hidden + "/" + lookedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

func (d *domainFolder) readFile(name string, most int64) ([]byte, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: more than %d octets", d.path(name), most)
	}
	return data, err
}

// replace writes a new file and renames it over the old one.
func (d *domainFolder) replace(name string, data []byte) error {
	if err := d.before("write " + name); err != nil {
		return err
	}
	if err := d.remove(name + temporary); err != nil {
		return err
	}
	f, err := d.root.OpenFile(name+temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, d.flush(f), f.Close()); err != nil {
		return err
	}
	if err := d.own(name + temporary); err != nil {
		return err
	}
	if err := d.before("rename " + name); err != nil {
		return err
	}
	if err := d.root.Rename(name+temporary, name); err != nil {
		return err
	}
	return d.sync(filepath.Dir(name))
}

// sync makes the changes in a folder survive a crash of the machine.
func (d *domainFolder) sync(folder string) error {
	f, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.flush(f), f.Close())
}

func (d *domainFolder) flush(f *os.File) error {
	if d.noSync {
		return nil
	}
	return f.Sync()
}

func (d *domainFolder) remove(name string) error {
	if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// moveIn moves keys to the folder where they sign, and moveOut to the hidden folder.
// Both can be repeated.
func (d *domainFolder) moveIn(keys []KeyRef) error  { return d.moveAll(keys, hidden, ".") }
func (d *domainFolder) moveOut(keys []KeyRef) error { return d.moveAll(keys, ".", hidden) }

func (d *domainFolder) moveAll(keys []KeyRef, from, to string) error {
	for _, key := range keys {
		// The key is last: when it is in place, its text is in place too.
		for _, suffix := range []string{txtSuffix, keySuffix} {
			name := key.Selector + suffix
			if err := d.move(filepath.Join(from, name), filepath.Join(to, name), suffix == keySuffix); err != nil {
				return err
			}
		}
	}
	return errors.Join(d.sync(to), d.sync(from))
}

// hideStray moves out keys that are in the folder where they sign again, because another
// host has copied them there.
func (d *domainFolder) hideStray(keys []KeyRef) error {
	for _, key := range keys {
		if _, err := d.root.Lstat(key.Selector + keySuffix); err == nil {
			if err := d.moveOut([]KeyRef{key}); err != nil {
				return err
			}
		}
	}
	return nil
}

// move moves a file, unless that was done already. It removes a copy that another host
// has left at the old place.
func (d *domainFolder) move(from, to string, needed bool) error {
	_, fromErr := d.root.Lstat(from)
	_, toErr := d.root.Lstat(to)
	switch {
	case fromErr != nil && toErr == nil:
		return nil
	case fromErr != nil && needed:
		return fmt.Errorf("%s is gone: %w; put the key back, or take the rotation back with `postern dkim rotate --undo %s`", d.path(from), fromErr, d.domain)
	case fromErr != nil:
		return nil
	case toErr == nil:
		if err := d.same(from, to); err != nil {
			return err
		}
		return d.root.Remove(from)
	}
	if err := d.before("move " + from + " to " + to); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

func (d *domainFolder) same(a, b string) error {
	one, err := d.readFile(a, maxKey)
	other, otherErr := d.readFile(b, maxKey)
	if err = errors.Join(err, otherErr); err != nil {
		return err
	}
	if !bytes.Equal(one, other) {
		return fmt.Errorf("%s and %s are different files for one selector; remove the one that is not published", d.path(a), d.path(b))
	}
	return nil
}

// deleteHidden deletes keys that do not sign.
func (d *domainFolder) deleteHidden(keys []KeyRef) error {
	for _, key := range keys {
		for _, suffix := range []string{keySuffix, txtSuffix} {
			name := filepath.Join(hidden, key.Selector+suffix)
			if err := d.before("delete " + name); err != nil {
				return err
			}
			if err := d.remove(name); err != nil {
				return err
			}
		}
	}
	return d.sync(hidden)
}

// signing returns the keys that sign now, and the greatest length of a key.
func (d *domainFolder) signing() (keys []KeyRef, bits int, err error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, 0, err
	}
	for _, name := range keyFiles(entries) {
		selector := strings.TrimSuffix(name, keySuffix)
		key, err := sign.ReadKey(d.domain, strings.ToLower(selector), d.path(name), GroupOf(d.dir))
		if err != nil {
			return nil, 0, err
		}
		ref, err := refOf(key)
		if err != nil {
			return nil, 0, err
		}
		ref.Selector = selector // as in the name of the file
		keys, bits = append(keys, ref), max(bits, key.Bits)
	}
	if len(keys) == 0 {
		return nil, 0, fmt.Errorf("%s has no keys in %s; make them with `postern dkim genkey %s`", d.domain, d.dir, d.domain)
	}
	return keys, bits, nil
}

// keyFiles returns the names of those entries in the folder of a domain that are keys.
func keyFiles(entries []fs.DirEntry) (names []string) {
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, keySuffix) && !strings.HasPrefix(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// GroupOf returns the group of a key folder, whose members may read the keys. It is -1 if
// it is unknown.
func GroupOf(dir string) int {
	info, err := os.Stat(dir)
	if err != nil {
		return -1
	}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(sys.Gid)
	}
	return -1
}

func refOf(key *sign.Key) (KeyRef, error) {
	record, err := key.Record()
	return KeyRef{Selector: key.Selector, Algorithm: key.Algorithm, Record: record}, err
}

// generate makes the keys that refs name, in the hidden folder, and returns them with
// their records. It removes the keys of an earlier attempt, which were never published.
func (d *domainFolder) generate(refs []KeyRef, bits int) ([]KeyRef, error) {
	if err := d.deleteHidden(refs); err != nil {
		return nil, err
	}
	var made []KeyRef
	for _, ref := range refs {
		if err := d.before("generate " + ref.Selector); err != nil {
			return nil, err
		}
		kind := sign.RSA
		if ref.isEd25519() {
			kind = sign.Ed25519
		}
		keys, err := sign.Generate(sign.NewKeys{Dir: d.dir, Domain: d.domain, Below: hidden, Selector: ref.Selector, Type: kind, Bits: bits})
		if err != nil {
			return nil, err
		}
		one, err := refOf(keys[0].Key)
		if err != nil {
			return nil, err
		}
		made = append(made, one)
	}
	return made, d.sync(hidden)
}

// free reports whether no file has the name of a selector.
func (d *domainFolder) free(selector string) bool {
	for _, folder := range []string{".", hidden} {
		if _, err := d.root.Lstat(filepath.Join(folder, selector+keySuffix)); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// isSelector reports whether a text can be a selector, and so a file name.
func isSelector(text string) bool {
	if strings.ContainsAny(text, "/\\\x00") {
		return false
	}
	_, err := mailaddr.ParseDomain(text + "._domainkey.example")
	return err == nil
}

// domains lists the domains that have a folder.
func domains(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		domain, err := mailaddr.ParseDomain(entry.Name())
		if err != nil || domain != entry.Name() {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil && info.IsDir() {
			all = append(all, domain)
		}
	}
	slices.Sort(all)
	return all, nil
}

// readState reads the state of a domain without a lock. It returns nil if there is none.
func readState(dir, domain string) (*State, error) {
	root, err := sign.OpenDomainFolder(dir, domain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &domainFolder{dir: dir, domain: domain, root: root}
	s, err := d.load()
	return s, errors.Join(err, root.Close())
}

// signingSince returns since when the keys of a domain have signed. It is zero if there
// are no keys, or if a rotation is running.
func signingSince(dir, domain string) (time.Time, error) {
	state, err := readState(dir, domain)
	if err != nil || state.active() {
		return time.Time{}, err
	}
	var since time.Time
	if state != nil {
		since = state.Switched
	}
	folder := filepath.Join(dir, domain)
	entries, err := os.ReadDir(folder)
	files := keyFiles(entries)
	if err != nil || len(files) == 0 {
		return time.Time{}, err
	}
	for _, name := range files {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil {
			return time.Time{}, err
		}
		if info.ModTime().After(since) {
			since = info.ModTime()
		}
	}
	return since, nil
}
