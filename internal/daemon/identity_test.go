package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

type identityResult struct {
	UIDs, GIDs []string // of every thread, without repetition
	Groups     []int
	SetUID     string // the error of becoming root again
	Again      string // the error of becoming the same once more
	Other      string // the error of becoming another user
	Close      string // the error of closing a socket bound as root
}

// identityChild binds a socket at SOCKET as root and becomes uid 65534, gid
// 65533, with group 4242 besides.
func identityChild(w io.Writer) error {
	listeners, err := Listen([]Socket{{Endpoint: Endpoint{Network: NetworkUnix, Address: os.Getenv("SOCKET")}, Flag: "--listen"}})
	if err != nil {
		return err
	}
	id := Identity{Name: "test", UID: 65534, GID: 65533, Groups: []int{65533, 4242}}
	if err := id.Become(); err != nil {
		return err
	}
	var r identityResult
	if r.UIDs, r.GIDs, err = threadIdentities(); err != nil {
		return err
	}
	if r.Groups, err = syscall.Getgroups(); err != nil {
		return err
	}
	slices.Sort(r.Groups)
	r.SetUID = fmt.Sprint(syscall.Setuid(0))
	r.Again = fmt.Sprint(id.Become())
	r.Other = fmt.Sprint(Identity{Name: "other", UID: 12345, GID: 12345}.Become())
	r.Close = fmt.Sprint(listeners[0].Close())
	return json.NewEncoder(w).Encode(r)
}

// threadIdentities reads the real, effective, saved and filesystem numbers of
// every thread from /proc.
func threadIdentities() (uids, gids []string, err error) {
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread ended
		}
		if err != nil {
			return nil, nil, err
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch key {
			case "Uid":
				uids = append(uids, value)
			case "Gid":
				gids = append(gids, value)
			}
		}
	}
	slices.Sort(uids)
	slices.Sort(gids)
	return slices.Compact(uids), slices.Compact(gids), nil
}

// needRoot skips the test without root, or fails where a skip would hide that
// nothing was tested.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const reason = "giving up root needs root"
	if os.Getenv("CI") != "" {
		t.Fatal(reason + ", and CI is set")
	}
	t.Skip(reason)
}

func TestBecome(t *testing.T) {
	needRoot(t)
	dir := sockDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	var got identityResult
	output(t, child(t, "identity", "SOCKET="+path), &got)
	if want := []string{"65534\t65534\t65534\t65534"}; !reflect.DeepEqual(got.UIDs, want) {
		t.Errorf("uids %q", got.UIDs)
	}
	if want := []string{"65533\t65533\t65533\t65533"}; !reflect.DeepEqual(got.GIDs, want) {
		t.Errorf("gids %q", got.GIDs)
	}
	if !reflect.DeepEqual(got.Groups, []int{4242, 65533}) {
		t.Errorf("groups %v", got.Groups)
	}
	if got.SetUID != syscall.EPERM.Error() {
		t.Errorf("becoming root again: %s", got.SetUID)
	}
	if got.Again != "<nil>" {
		t.Errorf("becoming the same once more: %s", got.Again)
	}
	if !strings.Contains(got.Other, "become user other: only root can, and this process runs as uid 65534") {
		t.Errorf("becoming somebody else: %s", got.Other)
	}
	if got.Close != "<nil>" {
		t.Errorf("closing a socket whose directory is root's: %s", got.Close)
	}
	// It could not be removed; the next start replaces it.
	if conn, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, %v", conn, err)
	}
	listen(t, socket(t, "unix:"+path))
}

func TestBecomeCurrentIsNothing(t *testing.T) {
	id := Identity{Name: "me", UID: os.Getuid(), GID: os.Getgid(), Groups: nil}
	if err := id.Become(); err != nil {
		t.Error(err)
	}
}

func TestLookupIdentity(t *testing.T) {
	me, err := user.LookupId("0")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := me.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	var groups []int
	for _, id := range ids {
		n, err := strconv.Atoi(id)
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, n)
	}
	withPrimary := func(gid int) []int {
		rest := slices.DeleteFunc(slices.Clone(groups), func(g int) bool { return g == gid })
		return append([]int{gid}, rest...)
	}
	rootGroup, err := user.LookupGroupId("0")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		spec string
		want Identity
		err  string
	}{
		{spec: me.Username, want: Identity{UID: 0, GID: 0, Groups: withPrimary(0)}},
		{spec: "0", want: Identity{UID: 0, GID: 0, Groups: withPrimary(0)}},
		{spec: me.Username + ":4242", want: Identity{UID: 0, GID: 4242, Groups: withPrimary(4242)}},
		{spec: "987654321:" + rootGroup.Name, want: Identity{UID: 987654321, GID: 0, Groups: []int{0}}},
		{spec: "987654321:4242", want: Identity{UID: 987654321, GID: 4242, Groups: []int{4242}}},
		{spec: "", err: "NAME:GROUP"},
		{spec: ":4242", err: "NAME:GROUP"},
		{spec: me.Username + ":", err: "NAME:GROUP"},
		{spec: "987654321", err: "needs a group too"},
		{spec: "no-such-user-here", err: "useradd --system"},
		{spec: me.Username + ":no-such-group-here", err: "getent group"},
		{spec: "-1:0", err: `user "-1:0"`},
		{spec: "4294967295:0", err: "useradd"}, // "leave as it is" to the kernel
		{spec: "0:4294967295", err: "getent group"},
	}
	for _, tt := range tests {
		t.Run(tt.spec, func(t *testing.T) {
			got, err := LookupIdentity(tt.spec)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %+v, %v; want an error with %q", got, err, tt.err)
				}
				return
			}
			tt.want.Name = tt.spec
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}
