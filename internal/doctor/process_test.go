package doctor

import (
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
)

// After a restart it is the successor that is looked at: neither the process that has ended,
// nor the one that only waits for its sessions. The admin socket is still theirs to the kernel.
func TestProcessAfterRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.save()
	s.start()
	session, err := net.Dial("tcp", s.verify)
	s.must(err)
	defer session.Close()
	for name, socket := range map[string]string{api.Policyd: "run/policyd.sock", api.Milterd: "run/milterd.sock"} {
		client := admin.Client{Path: s.path(socket), Daemon: name}
		var before, after admin.Info
		s.must(client.Call(t.Context(), "version", nil, &before, nil))
		s.must(client.Call(t.Context(), api.Restart, nil, nil, nil))
		s.must(client.Call(t.Context(), "version", nil, &after, nil))
		t.Cleanup(func() { _ = syscall.Kill(after.PID, syscall.SIGKILL) })
		if before.PID == after.PID {
			t.Fatalf("%s: process %d answers again", name, after.PID)
		}
		if name == api.Policyd { // the other one waits for the session
			for len(procList(before.PID, "cmdline")) > 0 && t.Context().Err() == nil {
				runtime.Gosched()
			}
		}
		f := gather(t.Context(), s.options())
		d := map[string]*Daemon{api.Policyd: f.Policyd, api.Milterd: f.Milterd}[name]
		if d.PID != after.PID || d.IdentityErr != nil || d.ArgsGuessed || d.Runs != d.Version || len(d.Args) != 2 || strconv.Itoa(d.Identity.UID) == "0" {
			t.Errorf("%s: process %d, not %d; arguments %q, user %+v, %v; %q runs", name, d.PID, after.PID, d.Args, d.Identity, d.IdentityErr, d.Runs)
		}
	}
}
