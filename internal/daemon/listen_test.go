package daemon

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func socket(t *testing.T, endpoint string) Socket {
	t.Helper()
	e, err := ParseEndpoint(endpoint, "")
	if err != nil {
		t.Fatal(err)
	}
	return Socket{Endpoint: e, Flag: "--listen"}
}

// sockDir is short: a unix socket's path has 107 bytes at most.
func sockDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func listen(t *testing.T, sockets ...Socket) []Listener {
	t.Helper()
	listeners, err := Listen(sockets)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range listeners {
			_ = l.Close() // some tests closed it
		}
	})
	return listeners
}

func TestListenBindsAll(t *testing.T) {
	path := filepath.Join(sockDir(t), "s")
	sockets := []Socket{socket(t, "inet:127.0.0.1:0=dnsbl"), socket(t, "inet:127.0.0.1:0"), socket(t, "unix:"+path)}
	listeners := listen(t, sockets...)
	if len(listeners) != 3 {
		t.Fatalf("got %d listeners", len(listeners))
	}
	for i, l := range listeners {
		if l.Socket.String() != sockets[i].String() {
			t.Errorf("listener %d is of %s", i, l.Socket)
		}
		conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if got := listeners[2].Addr().String(); got != path {
		t.Errorf("unix address %q, want %q", got, path)
	}
}

func TestListenUnixModeAndGroup(t *testing.T) {
	gid := os.Getgid()
	if os.Getuid() == 0 {
		gid = 65534
	}
	tests := []struct {
		mode, want fs.FileMode
		group      string
		gid        int
	}{
		{0, 0o660, "", os.Getegid()},
		{0o666, 0o666, "", os.Getegid()}, // the umask does not matter
		{0o600, 0o600, strconv.Itoa(gid), gid},
	}
	for _, tt := range tests {
		s := socket(t, "unix:"+filepath.Join(sockDir(t), "s"))
		s.Mode, s.Group = tt.mode, tt.group
		listen(t, s)
		info, err := os.Stat(s.Address)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != tt.want|fs.ModeSocket {
			t.Errorf("mode %v, want %v", info.Mode(), tt.want)
		}
		if got := int(info.Sys().(*syscall.Stat_t).Gid); got != tt.gid {
			t.Errorf("group %d, want %d", got, tt.gid)
		}
	}
}

// In a folder with the setgid bit new files get the group of the folder, not that
// of the process.
func TestListenUnixGroupInSetgidFolder(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: the folder gets another group")
	}
	dir := sockDir(t)
	if err := os.Chown(dir, 0, 65533); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755|fs.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	s := socket(t, "unix:"+filepath.Join(dir, "s"))
	s.Mode, s.Group = 0o600, "65534"
	listen(t, s)
	info, err := os.Stat(s.Address)
	if err != nil {
		t.Fatal(err)
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 65534 || info.Mode().Perm() != 0o600 {
		t.Errorf("group %d, mode %v", gid, info.Mode())
	}
}

// Binding does not change the umask and the group of new files of the process.
func TestBindAsChangesItsThreadOnly(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for i := range 20 {
		s := socket(t, "unix:"+filepath.Join(sockDir(t), "s"))
		s.Mode = 0o666
		if os.Getuid() == 0 {
			s.Group = "65534"
		}
		listen(t, s)
		name := filepath.Join(t.TempDir(), strconv.Itoa(i))
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if gid := int(info.Sys().(*syscall.Stat_t).Gid); info.Mode() != 0o600 || gid != os.Getegid() {
			t.Fatalf("a new file has mode %v and group %d", info.Mode(), gid)
		}
	}
}

// A file that was put at the path while the socket was made is not changed.
func TestReplacedSocketIsLeftAlone(t *testing.T) {
	dir := sockDir(t)
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "s")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link} {
		p, err := openPlace(path)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		at, err := p.open()
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		info, err := at.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if err := setGroup(at, info, 65534, socket(t, "unix:"+path)); err == nil || !strings.Contains(err.Error(), "was replaced") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if info, err := os.Stat(file); err != nil || int(info.Sys().(*syscall.Stat_t).Gid) != os.Getegid() {
		t.Errorf("the file has changed: %v, %v", info, err)
	}
}

func TestListenFailsWhole(t *testing.T) {
	dir := sockDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	live, err := net.Listen("unix", filepath.Join(dir, "live"))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	noGroup := socket(t, "unix:"+dir+"/group")
	noGroup.Group = "no-such-group-here"

	tests := []struct {
		name   string
		socket Socket
		want   []string
	}{
		{"tcp in use", socket(t, "inet:127.0.0.1:"+port), []string{"--listen inet:127.0.0.1:" + port, "address already in use", "another instance", "ss -ltnp 'sport = :" + port + "'"}},
		{"no such address", socket(t, "inet:192.0.2.1:10045"), []string{"inet:192.0.2.1:10045", "no interface"}},
		{"unix in use", socket(t, "unix:"+dir+"/live"), []string{"address already in use", "ss -lxp src " + dir + "/live"}},
		{"not a socket", socket(t, "unix:"+dir+"/file"), []string{dir + "/file exists and is not a socket"}},
		{"no directory", socket(t, "unix:"+dir+"/none/s"), []string{"directory " + dir + "/none does not exist"}},
		{"no group", noGroup, []string{"no-such-group-here", "getent group"}},
		{"given twice", socket(t, "unix:"+dir+"/first"), []string{"given twice"}},
		{"no systemd", socket(t, "systemd:x"), []string{"--listen systemd:x", "passed no sockets"}},
		{"unknown network", Socket{Endpoint: Endpoint{Network: "udp", Address: "127.0.0.1:1"}}, []string{`network "udp" is not known`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := socket(t, "unix:"+dir+"/first")
			listeners, err := Listen([]Socket{first, tt.socket})
			if err == nil || listeners != nil {
				t.Fatalf("got %v, %v", listeners, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
			if _, err := os.Lstat(first.Address); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the first socket is still there: %v", err)
			}
		})
	}
	if _, err := os.Lstat(noGroup.Address); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket without its group is still there: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "file")); string(text) != "keep" {
		t.Errorf("the file in the way was touched: %q, %v", text, err)
	}
	if conn, err := net.Dial("unix", filepath.Join(dir, "live")); err != nil {
		t.Errorf("the other instance lost its socket: %v", err)
	} else {
		conn.Close()
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(sockDir(t), "s")
	crashed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	crashed.SetUnlinkOnClose(false)
	if err := crashed.Close(); err != nil {
		t.Fatal(err)
	}
	listen(t, socket(t, "unix:"+path))
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestCloseRemovesOnlyOwnSocket(t *testing.T) {
	path := filepath.Join(sockDir(t), "s")
	old := listen(t, socket(t, "unix:"+path))[0]
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	fresh := listen(t, socket(t, "unix:"+path))[0]
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the successor lost its socket: %v", err)
	}
	conn.Close()
	for range 2 { // the second is without effect
		if err := fresh.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("path after Close: %v", err)
	}
}
