package daemon

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

type activationResult struct {
	Flags  []string // flag and endpoint of each listener
	Addrs  []string
	Err    string
	Unset  bool // the LISTEN_ variables are gone
	Second string
}

// activationChild listens on the endpoints in ENDPOINTS, closes all, and tries
// once more.
func activationChild(w io.Writer) error {
	var sockets []Socket
	for _, s := range strings.Fields(os.Getenv("ENDPOINTS")) {
		e, err := ParseEndpoint(s, "")
		if err != nil {
			return err
		}
		sockets = append(sockets, Socket{Endpoint: e, Flag: "--listen"})
	}
	var r activationResult
	listeners, err := Listen(sockets)
	if err != nil {
		r.Err = err.Error()
	}
	for _, l := range listeners {
		r.Flags = append(r.Flags, l.Socket.String())
		r.Addrs = append(r.Addrs, l.Addr().String())
		if err := l.Close(); err != nil {
			return err
		}
	}
	r.Unset = os.Getenv("LISTEN_FDS")+os.Getenv("LISTEN_PID")+os.Getenv("LISTEN_FDNAMES") == ""
	if _, err := Listen(sockets); err != nil {
		r.Second = err.Error()
	}
	return json.NewEncoder(w).Encode(r)
}

func TestListenOnSystemdSockets(t *testing.T) {
	path := filepath.Join(sockDir(t), "s")
	policy, files := passed(t, "tcp", "127.0.0.1:0")
	admin, adminFile := passed(t, "unix", path)
	unbound, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	defer unbound.Close()
	tcp, unix := policy.Addr().String(), admin.Addr().String()

	tests := []struct {
		name, endpoints, fdnames string
		files                    []*os.File
		want                     activationResult
	}{
		{
			name: "all unnamed", endpoints: "systemd", fdnames: "a:b", files: []*os.File{files, adminFile},
			want: activationResult{Flags: []string{"systemd", "systemd"}, Addrs: []string{tcp, unix}},
		},
		{
			name: "named first", endpoints: "systemd=dnsbl systemd:admin", fdnames: "admin:policy", files: []*os.File{adminFile, files},
			want: activationResult{Flags: []string{"systemd=dnsbl", "systemd:admin"}, Addrs: []string{tcp, unix}},
		},
		{
			name: "two of one name", endpoints: "systemd:p", fdnames: "p:p", files: []*os.File{files, adminFile},
			want: activationResult{Flags: []string{"systemd:p", "systemd:p"}, Addrs: []string{tcp, unix}},
		},
		{
			name: "unknown name", endpoints: "systemd:other", fdnames: "policy", files: []*os.File{files},
			want: activationResult{Err: "--listen systemd:other: no such socket among those from systemd: policy"},
		},
		{
			name: "nobody asks", endpoints: "systemd:policy", fdnames: "policy:admin", files: []*os.File{files, adminFile},
			want: activationResult{Err: `systemd passed socket "admin" (` + unix + `), which nothing asks for: add systemd:admin`},
		},
		{
			name: "no endpoint at all", endpoints: "", fdnames: "policy", files: []*os.File{files},
			want: activationResult{Err: `systemd passed socket "policy"`},
		},
		{
			name: "not a socket", endpoints: "systemd", fdnames: "policy:file", files: []*os.File{files, unbound},
			want: activationResult{Err: `socket "file" from systemd`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := child(t, "activation", "ENDPOINTS="+tt.endpoints, "LISTEN_FDNAMES="+tt.fdnames,
				"LISTEN_FDS="+string(rune('0'+len(tt.files))))
			cmd.ExtraFiles = tt.files
			var got activationResult
			output(t, cmd, &got)
			if tt.want.Err != "" {
				if !strings.Contains(got.Err, tt.want.Err) || got.Flags != nil {
					t.Errorf("got %+v, want error %q", got, tt.want.Err)
				}
				return
			}
			if got.Err != "" || !reflect.DeepEqual(got.Flags, tt.want.Flags) || !reflect.DeepEqual(got.Addrs, tt.want.Addrs) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if !got.Unset || !strings.Contains(got.Second, "passed no sockets") {
				t.Errorf("descriptors can be taken twice: %+v", got)
			}
		})
	}
	// The children closed their copies: both sockets are still systemd's.
	for _, l := range []net.Listener{policy, admin} {
		conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Errorf("a socket of systemd's was closed or removed: %v", err)
			continue
		}
		conn.Close()
	}
}

func TestListenRefusesConnectedDescriptor(t *testing.T) {
	l, _ := passed(t, "tcp", "127.0.0.1:0")
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := child(t, "activation", "ENDPOINTS=systemd", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	var got activationResult
	output(t, cmd, &got)
	if !strings.Contains(got.Err, "Accept=no") {
		t.Errorf("got %+v", got)
	}
}

// passed listens as systemd would and returns the descriptor to pass.
func passed(t *testing.T, network, address string) (net.Listener, *os.File) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return l, f
}
