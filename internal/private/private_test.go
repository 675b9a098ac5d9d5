package private

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChecks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode                  fs.FileMode
		alone, group, perhaps string // parts of the errors of Check without and with a group, and of CheckShared
	}{
		{0o600, "", "", ""},
		{0o400, "", "", ""},
		{0o640, "the group", "", ""},
		{0o660, "the group", "the group", ""},
		{0o604, "everybody", "everybody", "everybody"},
		{0o602, "everybody", "everybody", "everybody"},
		{0o644, "everybody", "everybody", "chmod o-rwx " + path},
	} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for want, err := range map[*string]error{
			&tt.alone:   Check(path, info, -1, "the secret"),
			&tt.group:   Check(path, info, os.Getegid(), "the secret"),
			&tt.perhaps: CheckShared(path, info, "the secret"),
		} {
			if (err == nil) != (*want == "") || err != nil && !strings.Contains(err.Error(), *want) {
				t.Errorf("mode %o: %v, want %q", tt.mode, err, *want)
			}
		}
	}
}

// In a folder that everybody may write to, everybody can put another file in the
// place of this one, or another link.
func TestFoldersOfOthers(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	for _, folder := range []string{ours, theirs} {
		if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "secret"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	toTheirs, toOurs := filepath.Join(ours, "link"), filepath.Join(theirs, "link")
	if err := errors.Join(os.Symlink(filepath.Join(theirs, "secret"), toTheirs), os.Symlink(filepath.Join(ours, "secret"), toOurs)); err != nil {
		t.Fatal(err)
	}
	for mode, refused := range map[fs.FileMode]bool{0o777: true, 0o777 | fs.ModeSticky: false, 0o775: false} {
		if err := os.Chmod(theirs, mode); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]bool{filepath.Join(ours, "secret"): false, filepath.Join(theirs, "secret"): refused, toTheirs: refused, toOurs: refused} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{Check(path, info, -1, "the secret"), CheckShared(path, info, "the secret")} {
				if (err != nil) != want || err != nil && !strings.Contains(err.Error(), "chmod o-w "+theirs) {
					t.Errorf("%s in a folder of mode %v: %v", path, mode, err)
				}
			}
		}
	}
}

// list is an access control list as the kernel stores it.
func list(entries ...[3]uint32) []byte {
	l := []byte{2, 0, 0, 0}
	for _, e := range entries {
		l = binary.LittleEndian.AppendUint16(l, uint16(e[0]))
		l = binary.LittleEndian.AppendUint16(l, uint16(e[1]))
		l = binary.LittleEndian.AppendUint32(l, e[2])
	}
	return l
}

// An access control list may give a file to our own user, as systemd does with a
// credential, and to no one else.
func TestAccessControlList(t *testing.T) {
	const mask, other, none = 0x10, 0x20, 0xffffffff
	us, group := uint32(os.Geteuid()), uint32(os.Getegid())
	if us == 0 {
		us = 4711
	}
	for _, tt := range []struct {
		name    string
		entries [][3]uint32 // beside those of the owner and of everybody
		want    string      // part of the error of Check with our group
	}{
		{"our user", [][3]uint32{{aclUser, 4, us}, {aclGroupOwn, 0, none}, {mask, 4, none}}, ""},
		{"root", [][3]uint32{{aclUser, 6, 0}, {aclGroupOwn, 0, none}, {mask, 6, none}}, ""},
		{"our group", [][3]uint32{{aclGroupOwn, 0, none}, {aclGroup, 4, group + 1}, {mask, 4, none}}, ""},
		{"another user", [][3]uint32{{aclUser, 4, us + 1}, {aclGroupOwn, 0, none}, {mask, 4, none}}, "user " + strconv.Itoa(int(us)+1)},
		{"another user, masked", [][3]uint32{{aclUser, 4, us}, {aclUser, 7, us + 1}, {aclGroupOwn, 0, none}, {mask, 0, none}}, ""},
		{"another group", [][3]uint32{{aclGroupOwn, 0, none}, {aclGroup, 4, group + 2}, {mask, 4, none}}, "group " + strconv.Itoa(int(group)+2)},
		{"our group may write", [][3]uint32{{aclGroupOwn, 0, none}, {aclGroup, 6, group + 1}, {mask, 6, none}}, "group "},
		{"the owning group", [][3]uint32{{aclUser, 4, us}, {aclGroupOwn, 4, none}, {mask, 4, none}}, "the group"},
		{"everybody", [][3]uint32{{aclUser, 4, us}, {aclGroupOwn, 0, none}, {mask, 4, none}, {other, 4, none}}, "everybody"},
	} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		entries := append([][3]uint32{{1, 6, none}}, tt.entries...)
		if entries[len(entries)-1][0] != other {
			entries = append(entries, [3]uint32{other, 0, none})
		}
		if err := unix.Setxattr(path, "system.posix_acl_access", list(entries...), 0); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		err = check(path, info, int(us), int(group)+1, "the secret")
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// A list that is cut off gives nothing that is not in it, and does no harm.
func TestBrokenList(t *testing.T) {
	whole := list([3]uint32{aclUser, 4, 1}, [3]uint32{aclGroupOwn, 0, 0})
	for n := range whole {
		a := access{group: 4}.withList(whole[:n], 2, -1)
		if n >= 12 && a.others != "user 1" || a.group != 4 {
			t.Errorf("%d octets: %+v", n, a)
		}
	}
}
