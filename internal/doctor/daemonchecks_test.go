package doctor

import (
	"path/filepath"
	"strings"
	"testing"
)

// A service requires its socket, and a connection to the socket starts the service: one of
// them that is enabled is enough.
func TestUnitsThatStartEachOther(t *testing.T) {
	unit := func(name, state string) Unit {
		return Unit{Name: name, Descriptor: "policy", Properties: map[string]string{"LoadState": "loaded", "ActiveState": "active", "UnitFileState": state}}
	}
	for _, test := range []struct{ service, socket, want string }{
		{"enabled", "enabled", ""},
		{"enabled", "disabled", ""},
		{"disabled", "enabled", ""},
		{"disabled", "disabled", "postern-policyd.service is not enabled"},
	} {
		d := &Daemon{Name: "postern-policyd", Args: []string{"--listen", "systemd:policy"}, Unit: unit("postern-policyd.service", test.service), Sockets: []Unit{unit("postern-policyd.socket", test.socket)}}
		if got := show(d.unitFindings()); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("service %s, socket %s: %q, want %q", test.service, test.socket, got, test.want)
		}
	}
}

// A daemon that ends at each start is not one that someone has stopped.
func TestUnitThatDoesNotStart(t *testing.T) {
	for _, state := range []string{"auto-restart", "auto-restart-queued"} {
		d := &Daemon{Name: "postern-policyd", Unit: Unit{Name: "postern-policyd.service", Properties: map[string]string{
			"LoadState": "loaded", "ActiveState": "activating", "SubState": state, "UnitFileState": "enabled", "Result": "exit-code", "ExecMainStatus": "75",
		}}}
		const want = "postern-policyd.service does not start (exit-code, status 75)"
		if got := show(d.unitFindings()); !strings.Contains(got, want) || !strings.Contains(got, "journalctl -u postern-policyd.service") || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: %q, want one finding %q", state, got, want)
		}
	}
}

// systemd runs the commands that postern setup has copied, whatever becomes of the drop-in
// that it has copied them from.
func TestDropInThatSetupHasCopied(t *testing.T) {
	root := t.TempDir()
	f := &Facts{Options: Options{Root: root}}
	const dropIns = "etc/systemd/system/postern-milterd.service.d/"
	write := func(name, text string) { writeFile(t, filepath.Join(root, name), []byte(text)) }
	write("usr/lib/systemd/system/postern-milterd.service", "[Service]\nExecStart=/a --listen-verify systemd:verify\n")
	write(dropIns+"override.conf", "[Service]\nExecStart=\nExecStart=/b --listen-verify systemd:verify\n")
	write(dropIns+"setup.conf", "[Service]\nSupplementaryGroups=x\n")
	if found := f.dropIn(); len(found) > 0 {
		t.Errorf("without commands in it: %s", show(found))
	}
	write(dropIns+"setup.conf", "[Service]\nExecStart=\nExecStart=/b --listen systemd:verify\n")
	if found := f.dropIn(); len(found) > 0 {
		t.Errorf("as setup has written it: %s", show(found))
	}
	write(dropIns+"override.conf", "[Service]\nExecStart=\nExecStart=/b --listen-verify systemd:verify --workers 8\n")
	if found := f.dropIn(); len(found) != 1 || found[0].Level != Warn || !strings.Contains(found[0].Text, filepath.Join(root, dropIns, "setup.conf")) {
		t.Errorf("after a change: %s", show(found))
	}
	write(dropIns+"override.conf", "[Service]\nExecStart=\nExecStart=/b --listen-verify systemd:verify\n")
	write(dropIns+"zz.conf", "[Service]\nExecStart=\nExecStart=/b --listen-verify systemd:verify\n")
	if found := f.dropIn(); len(found) != 1 || found[0].Level != Fail || !strings.Contains(found[0].Text, filepath.Join(root, dropIns, "zz.conf")) {
		t.Errorf("with one after it: %s", show(found))
	}
}
