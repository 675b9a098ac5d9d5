package setup

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// aclOf returns an access control list, as the kernel has it, by which one more user may
// read a file of mode 0640.
func aclOf(uid uint32) []byte {
	const undefined = 0xffffffff
	list := binary.LittleEndian.AppendUint32(nil, 2) // version
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 6, undefined}, {0x02, 4, uid}, {0x04, 4, undefined}, {0x10, 4, undefined}, {0x20, 0, undefined}} {
		list = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(list, e.tag), e.perm), e.id)
	}
	return list
}

// A file that takes the place of another has its access control list: a program that
// reads main.cf by it, such as a backup, goes on to.
func TestAccessControlListsStay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const acl = "system.posix_acl_access"
	want := aclOf(65533)
	names := []string{filepath.Join(s.ConfigDirectory, "main.cf"), filepath.Join(s.ConfigDirectory, "master.cf"), s.Policyd.Config}
	for _, name := range names {
		if err := unix.Setxattr(name, acl, want, 0); err != nil {
			t.Fatal(err)
		}
	}
	before := s.tree(t)
	keep := func(when string) {
		t.Helper()
		for _, name := range names {
			got := make([]byte, 256)
			n, err := unix.Getxattr(name, acl, got)
			if err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("%s after %s: %x, %v", name, when, got[:n], err)
			}
		}
	}
	if err := s.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	keep("apply")
	if err := s.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	keep("undo")
	sameTree(t, before, s.tree(t))
}

// A master.cf that nothing can take the place of, as a file that a container mounts,
// ends a run; what was written before is taken back, and no journal is left that could
// not be.
func TestFileThatIsMounted(t *testing.T) {
	for _, name := range []string{"main.cf", "master.cf"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			path := filepath.Join(s.ConfigDirectory, name)
			if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			before := s.tree(t)
			err := s.apply(t.Context())
			if err == nil || !strings.Contains(err.Error(), "mount its folder instead") {
				t.Errorf("apply: %v", err)
			}
			sameTree(t, before, s.tree(t))
			if recovered, err := s.Recover(t.Context()); recovered || err != nil {
				t.Errorf("a journal is left: %t, %v", recovered, err)
			}
		})
	}
}

// Nothing is lost that someone writes between the plan and its application, while the
// administrator is asked.
func TestChangedSinceThePlan(t *testing.T) {
	for _, test := range []struct {
		name string
		path func(*site) string
	}{
		{"main.cf", func(s *site) string { return filepath.Join(s.ConfigDirectory, "main.cf") }},
		{"master.cf", func(s *site) string { return filepath.Join(s.ConfigDirectory, "master.cf") }},
		{"policyd.toml", func(s *site) string { return s.Policyd.Config }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			plan, err := MakePlan(t.Context(), s.Options)
			if err != nil {
				t.Fatal(err)
			}
			path := test.path(s)
			text, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, append(text, "\n# mine\n"...), 0o640)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := s.tree(t)
			if err := s.Apply(t.Context(), plan); err == nil || !strings.Contains(err.Error(), path+" has been changed since the plan was made; run this command again") {
				t.Errorf("apply: %v", err)
			}
			sameTree(t, before, s.tree(t))
			if err := s.apply(t.Context()); err != nil {
				t.Errorf("a new plan: %v", err)
			}
		})
	}
}

// A journal that cannot be ended, as on a full disk, would have the next run take this one
// back: it is taken back at once.
func TestJournalThatCannotBeEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	before := s.tree(t)
	var inTheWay string
	s.step = func(name string) {
		if name == "end the journal" {
			inTheWay = filepath.Join(s.Journals.folder, "1.json"+temporary)
			if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
				t.Error(err)
			}
		}
	}
	if err := s.apply(t.Context()); err == nil || inTheWay == "" || !strings.Contains(err.Error(), inTheWay) {
		t.Errorf("apply: %v", err)
	}
	if err := os.RemoveAll(s.Journals.root); err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, s.tree(t))
}
