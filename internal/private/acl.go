package private

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// maxACL bounds the access control list of a file, in octets.
const maxACL = 4 << 10

// The kinds of entries of a POSIX access control list, acl(5).
const (
	aclUser     = 0x02
	aclGroupOwn = 0x04
	aclGroup    = 0x08
)

// access is what the mode and the access control list of a file allow for others
// than its owner and everybody.
type access struct {
	group  fs.FileMode // of the owning group, as in the mode's last three bits
	others string      // another user or group in the list, except root; "" for none
}

// accessOf reads the access control list of a file. Usually there is none, and
// only the mode counts. With a list, the group bits of the mode are the most that
// any entry of the list allows. systemd uses a list to make a credential readable
// for the daemon's user.
func accessOf(path string, mode fs.FileMode, user, group int) (access, error) {
	a := access{group: mode >> 3 & 7}
	if a.group == 0 {
		return a, nil // the list allows nothing
	}
	list := make([]byte, maxACL)
	n, err := unix.Getxattr(path, "system.posix_acl_access", list)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return a, nil
	case err != nil:
		return a, fmt.Errorf("%s: access control list: %w", path, err)
	}
	return a.withList(list[:n], user, group), nil
}

// withList applies a list in the form of the kernel: a version, then entries of
// kind, rights and id.
func (a access) withList(list []byte, user, group int) access {
	const head, size = 4, 8
	most := a.group
	for e := list[min(head, len(list)):]; len(e) >= size; e = e[size:] {
		id := binary.LittleEndian.Uint32(e[4:])
		rights := fs.FileMode(binary.LittleEndian.Uint16(e[2:])) & most
		switch kind := binary.LittleEndian.Uint16(e); {
		case kind == aclGroupOwn:
			a.group = rights
		case rights == 0:
		case kind == aclUser && id != 0 && int(id) != user:
			a.others = fmt.Sprintf("user %d", id)
		case kind == aclGroup && id != 0 && (int(id) != group || rights&^4 != 0):
			a.others = fmt.Sprintf("group %d", id)
		}
	}
	return a
}
