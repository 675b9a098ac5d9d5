package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Identity is the user and the groups of the daemon after its sockets are bound.
type Identity struct {
	Name     string // as the operator wrote it, for messages
	UID, GID int
	// Groups are all groups of the user and GID. A daemon can read Postfix's map
	// files as a member of Postfix's group.
	Groups []int
}

// LookupIdentity reads USER[:GROUP]; both are names or numbers. GROUP replaces
// the user's primary group. A number that is not in the account database needs a
// GROUP.
func LookupIdentity(spec string) (Identity, error) {
	id, err := lookupIdentity(spec)
	if err != nil {
		return Identity{}, fmt.Errorf("user %q: %w", spec, err)
	}
	return id, nil
}

func lookupIdentity(spec string) (Identity, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	if name == "" || hasGroup && group == "" {
		return Identity{}, errors.New("write NAME or NAME:GROUP")
	}
	id := Identity{Name: spec, GID: -1}
	if hasGroup {
		gid, err := lookupGroup(group)
		if err != nil {
			return Identity{}, err
		}
		id.GID, id.Groups = gid, []int{gid}
	}
	account, err := lookupUser(name)
	if err != nil {
		uid, numErr := parseID(name)
		if numErr != nil {
			return Identity{}, fmt.Errorf("%w: create it with `useradd --system --no-create-home %s`", err, name)
		}
		if !hasGroup {
			return Identity{}, fmt.Errorf("%w: a bare number needs a group too, %s:GROUP", err, name)
		}
		id.UID = uid
		return id, nil
	}
	return id.of(account)
}

func lookupUser(name string) (*user.User, error) {
	account, err := user.Lookup(name)
	if err == nil {
		return account, nil
	}
	if _, numErr := parseID(name); numErr == nil {
		return user.LookupId(name)
	}
	return nil, err
}

// of fills in what the account database has about the user.
func (id Identity) of(account *user.User) (Identity, error) {
	uid, err := parseID(account.Uid)
	if err != nil {
		return Identity{}, err
	}
	primary, err := parseID(account.Gid)
	if err != nil {
		return Identity{}, err
	}
	id.UID = uid
	if id.GID < 0 {
		id.GID, id.Groups = primary, []int{primary}
	}
	names, err := account.GroupIds()
	if err != nil {
		return Identity{}, fmt.Errorf("list groups: %w", err)
	}
	for _, name := range names {
		gid, err := parseID(name)
		if err != nil {
			return Identity{}, err
		}
		if !slices.Contains(id.Groups, gid) {
			id.Groups = append(id.Groups, gid)
		}
	}
	return id, nil
}

// UnitIdentity returns the identity that systemd gives the process of a unit with User=,
// Group= ("" for none) and SupplementaryGroups=.
func UnitIdentity(user, group string, supplementary []string) (Identity, error) {
	spec := user
	if group != "" {
		spec += ":" + group
	}
	id, err := LookupIdentity(spec)
	if err != nil {
		return id, err
	}
	for _, name := range supplementary {
		gid, err := lookupGroup(name)
		if err != nil {
			return id, fmt.Errorf("group %q: %w", name, err)
		}
		if !slices.Contains(id.Groups, gid) {
			id.Groups = append(id.Groups, gid)
		}
	}
	return id, nil
}

// AsOwner returns the attributes of a new process that has the rights of the owner of a file
// or folder and no more, nil if this process is not root's or the owner is root.
func AsOwner(info fs.FileInfo) *syscall.SysProcAttr {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 || os.Geteuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
}

// Credential returns the identity as os/exec takes it for a new process.
func (id Identity) Credential() *syscall.Credential {
	credential := &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID)}
	for _, group := range id.Groups {
		credential.Groups = append(credential.Groups, uint32(group))
	}
	return credential
}

// parseID reads a user or group number. The highest 32-bit number is refused,
// because the kernel takes it as "leave unchanged".
func parseID(s string) (int, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, fmt.Errorf("%q is not a user or group number", s)
	}
	return int(id), nil
}

// Become changes all threads of the process to the identity, permanently: first
// the supplementary groups, then the group, then the user. It then verifies that
// the process cannot become root again. It does nothing when the process has the
// identity already. After an error the state of the process is not defined, and
// it must exit.
func (id Identity) Become() error {
	if os.Getuid() == id.UID && os.Geteuid() == id.UID && os.Getgid() == id.GID && os.Getegid() == id.GID {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("become user %s: only root can, and this process runs as uid %d: start it as root, or set User= in the systemd unit and leave --user out",
			id.Name, os.Geteuid())
	}
	if err := id.set(); err != nil {
		return fmt.Errorf("become user %s: %w", id.Name, err)
	}
	if err := id.verify(); err != nil {
		return fmt.Errorf("become user %s: %w", id.Name, err)
	}
	return nil
}

// set uses package syscall, because its calls change all threads.
func (id Identity) set() error {
	if err := syscall.Setgroups(id.Groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setgid(id.GID); err != nil {
		return os.NewSyscallError("setgid", err)
	}
	if err := syscall.Setuid(id.UID); err != nil {
		return os.NewSyscallError("setuid", err)
	}
	return nil
}

func (id Identity) verify() error {
	if os.Getuid() != id.UID || os.Geteuid() != id.UID || os.Getgid() != id.GID || os.Getegid() != id.GID {
		return fmt.Errorf("the kernel did not take it: uid %d, euid %d, gid %d, egid %d",
			os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid())
	}
	if id.UID == 0 {
		return nil
	}
	if err := syscall.Setuid(0); err == nil {
		return errors.New("root could be had back: the process keeps CAP_SETUID")
	}
	if err := syscall.Setgid(0); err == nil && id.GID != 0 {
		return errors.New("group root could be had back: the process keeps CAP_SETGID")
	}
	return nil
}
