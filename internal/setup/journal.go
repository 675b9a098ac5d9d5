// The journal: what apply is going to write, and what the files held before.

package setup

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultJournal is the folder of the journals. It belongs to root, because undo writes
// what the journals hold into Postfix's folder.
const DefaultJournal = "/etc/postern/setup"

// content is the state of a file at one time.
type content struct {
	Exists   bool        `json:"exists"`
	Text     []byte      `json:"text,omitempty"`
	Mode     fs.FileMode `json:"mode,omitempty"`
	UID      int         `json:"uid"`
	GID      int         `json:"gid"`
	Modified time.Time   `json:"modified,omitzero"`
}

// written is a file that apply writes.
type written struct {
	Path   string  `json:"path"` // symbolic links are resolved
	Before content `json:"before"`
	After  content `json:"after"`
	// Kind decides how undo keeps what others have changed meanwhile: "main.cf",
	// "master.cf", the name of the daemon whose settings the file holds, or "" for a
	// file that is ours alone.
	Kind string `json:"kind,omitempty"`
	// Folders are the folders that were made for it, the outermost first.
	Folders []string `json:"folders,omitempty"`
}

// journal is one run of apply.
type journal struct {
	Postfix string    `json:"postfix"` // the first field: the package's prerm reads it
	Time    time.Time `json:"time"`
	Changes []Change  `json:"changes"`
	Files   []written `json:"files"`
	Units   []string  `json:"units,omitempty"`  // units that apply enables
	Ran     []string  `json:"ran,omitempty"`    // those of them that ran before
	Reload  []string  `json:"reload,omitempty"` // units of other programs that read a file of ours
	Done    bool      `json:"done"`

	path string
}

// Journals are the journals of one Postfix.
type Journals struct {
	root   string
	folder string
}

// JournalsOf returns the journals of the Postfix with a configuration folder. root is
// the folder of all journals.
func JournalsOf(root, postfix string) Journals {
	return Journals{root, filepath.Join(root, url.PathEscape(postfix))}
}

// lock makes sure that only one setup runs at a time. The lock is held until unlock is
// called or the process ends.
func (j Journals) lock() (unlock func(), err error) {
	if err := j.makeFolder(); errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w; run this command as root", err)
	} else if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(j.root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errors.New("another postern setup is running; wait for it"), f.Close())
	}
	if err := j.sweep(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		// A child that is being forked has the file open, too, until it executes its program.
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		_ = f.Close()
		j.clean()
	}, nil
}

// makeFolder makes the folder of the journals, which only root may read. The daemons
// read their settings in the folder above it, which stays readable for them.
func (j Journals) makeFolder() error {
	above := filepath.Dir(j.root)
	if err := os.MkdirAll(filepath.Dir(above), 0o755); err != nil {
		return err
	}
	if err := makeFolder(above, 0o755, os.Geteuid(), os.Getegid()); err != nil {
		return err
	}
	return os.MkdirAll(j.folder, 0o700)
}

// makeFolder makes a folder with a mode, whatever the umask. An existing folder is not
// changed.
func makeFolder(path string, mode fs.FileMode, uid, gid int) error {
	if err := os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	// The folder above may belong to the daemons' user: no link is followed.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		err = f.Chown(uid, gid)
	}
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// sweep removes temporary files of a run that was cut short.
func (j Journals) sweep() error {
	files, err := os.ReadDir(j.folder)
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "stage-") || strings.HasSuffix(f.Name(), temporary) {
			if err := os.RemoveAll(filepath.Join(j.folder, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// clean removes the folders if they are empty.
func (j Journals) clean() {
	if os.Remove(j.folder) != nil {
		return
	}
	if others, err := os.ReadDir(j.root); err == nil && len(others) == 1 && others[0].Name() == "lock" {
		_ = os.Remove(filepath.Join(j.root, "lock"))
		_ = os.Remove(j.root)
	}
}

// all returns the journals, the oldest first.
func (j Journals) all() ([]*journal, error) {
	files, err := filepath.Glob(filepath.Join(escapeGlob(j.folder), "*.json"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(files, func(a, b string) int { return number(a) - number(b) })
	var all []*journal
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		one := &journal{path: file}
		if err := json.Unmarshal(data, one); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, one)
	}
	return all, nil
}

func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func number(file string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(file), ".json"))
	return n
}

// begin writes a journal before the first change.
func (j Journals) begin(one *journal) error {
	before, err := j.all()
	if err != nil {
		return err
	}
	next := 1
	if len(before) > 0 {
		next = number(before[len(before)-1].path) + 1
	}
	one.path = filepath.Join(j.folder, strconv.Itoa(next)+".json")
	return one.save()
}

func (one *journal) save() error {
	data, err := json.Marshal(one)
	if err != nil {
		return err
	}
	return replace(one.path, content{Text: data, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()})
}

// heir returns the journal of another Postfix on this machine that uses our daemons, or nil:
// the latest one before a time, else the oldest one.
func (j Journals) heir(before time.Time) (*journal, error) {
	folders, err := filepath.Glob(filepath.Join(escapeGlob(j.root), "*"))
	if err != nil {
		return nil, err
	}
	for _, folder := range folders {
		if folder == j.folder {
			continue
		}
		all, err := Journals{j.root, folder}.all()
		if err != nil {
			return nil, err
		}
		for i, one := range slices.Backward(all) {
			if i == 0 || one.Time.Before(before) {
				return one, nil
			}
		}
	}
	return nil, nil
}

// inherit takes over what the journal of another Postfix, which is undone, says about the
// files that both share. So the last undo restores the daemons' files as they were before
// the first apply.
func (one *journal) inherit(from *journal) error {
	later := from.Time.After(one.Time)
	for _, w := range from.Files {
		if isPostfix(w.Kind) {
			continue
		}
		i := slices.IndexFunc(one.Files, func(have written) bool { return have.Path == w.Path })
		if i < 0 {
			one.Files = append(one.Files, w)
			continue
		}
		if later { // it found what this one had written
			one.Files[i].After = w.After
			one.Files[i].Folders = append(one.Files[i].Folders, w.Folders...)
			continue
		}
		one.Files[i].Before, one.Files[i].Folders = w.Before, w.Folders
	}
	for _, unit := range from.Units {
		addOnce(&one.Units, unit)
	}
	for _, unit := range from.Ran {
		addOnce(&one.Ran, unit)
	}
	return one.save()
}

// look returns the current content of a file.
func look(path string) (content, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return content{}, nil
	}
	if err != nil {
		return content{}, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return content{}, err
	}
	c := content{Exists: true, Text: text, Mode: info.Mode().Perm(), Modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		c.UID, c.GID = int(stat.Uid), int(stat.Gid)
	}
	return c, nil
}

// sameText reports whether two files have the same text.
func (c content) sameText(other content) bool {
	return c.Exists == other.Exists && bytes.Equal(c.Text, other.Text)
}

// same reports whether a file has a content, with its mode, owner and, if they are known,
// times.
func (c content) same(want content) bool {
	return c.sameText(want) && c.Mode == want.Mode && c.UID == want.UID && c.GID == want.GID &&
		(want.Modified.IsZero() || c.Modified.Equal(want.Modified))
}

// remove removes a file, if it is there. Without one it needs no rights.
func remove(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return os.Remove(path)
}

// temporary is the suffix of a new file until it is renamed.
const temporary = ".postern-new"

// replace writes a file to the disk and renames it into place, so that it changes in
// one step. Its folder may belong to the daemons' user, so an existing file or link is
// never written through.
func replace(path string, c content) (err error) {
	if err := remove(path + temporary); err != nil {
		return err
	}
	f, err := os.OpenFile(path+temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path + temporary)
		}
	}()
	_, err = f.Write(c.Text)
	if os.Geteuid() == 0 {
		err = errors.Join(err, f.Chown(c.UID, c.GID))
	}
	if err = errors.Join(err, f.Chmod(c.Mode), keepAttributes(path, f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if !c.Modified.IsZero() {
		if err = os.Chtimes(path+temporary, time.Time{}, c.Modified); err != nil {
			return err
		}
	}
	if err = os.Rename(path+temporary, path); errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%w: the file is a mount of its own, as a volume of a container can be; mount its folder instead", err)
	} else if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// kept matches the extended attributes that a file keeps: its access control list, its
// label of SELinux, and those of users.
var kept = regexp.MustCompile(`^(?:system\.posix_acl_access|security\.selinux|user\..*)$`)

// keepAttributes gives a new file the extended attributes of the file at path, which it
// is going to replace, if there is one.
func keepAttributes(path string, f *os.File) error {
	names := make([]byte, maxAttributes)
	n, err := unix.Listxattr(path, names)
	if err != nil { // there is no file, or no attributes in its file system
		return nil
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !kept.MatchString(name) {
			continue
		}
		value := make([]byte, maxAttributes)
		size, err := unix.Getxattr(path, name, value)
		if err == nil {
			err = unix.Fsetxattr(int(f.Fd()), name, value[:size], 0)
		}
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("%s: extended attribute %s: %w", path, name, err)
		}
	}
	return nil
}

// maxAttributes is the kernel's bound of the names, and of a value.
const maxAttributes = 64 << 10

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// put writes, or removes, a file so that it has a content.
// A file that has the content already is not touched: its folder may be one that nothing
// can be written into.
func (w *written) put(c content) error {
	if err := remove(w.Path + temporary); err != nil {
		return err
	}
	if now, err := look(w.Path); err == nil && c.Exists && now.same(c) {
		return nil
	}
	if c.Exists {
		return replace(w.Path, c)
	}
	if err := remove(w.Path); err != nil {
		return err
	}
	for _, folder := range slices.Backward(w.Folders) {
		_ = os.Remove(folder) // fails if others have put something in: then it stays
	}
	return nil
}

// makeFolders makes the missing folders of new files. A folder that several files need
// gets the widest of their modes, because the daemons read their settings beside
// secrets.
func (j *journal) makeFolders() error {
	widest := slices.Clone(j.Files)
	slices.SortStableFunc(widest, func(a, b written) int { return cmp.Compare(b.folderMode(), a.folderMode()) })
	for _, w := range widest {
		for _, folder := range w.Folders {
			if err := makeFolder(folder, w.folderMode(), w.After.UID, w.After.GID); err != nil {
				return err
			}
		}
	}
	return nil
}

// folderMode returns the mode of the file's folder. Others cannot read the folder of a
// secret.
func (w *written) folderMode() fs.FileMode {
	if w.After.Mode&0o077 == 0 {
		return 0o700
	}
	return 0o755
}
