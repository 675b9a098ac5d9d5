package policyd

import (
	"net"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/postern-mail/postern/internal/daemon"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
)

// The daemon's question to itself is answered, and leaves no record: neither while a
// state is in force, nor when there is none.
func TestAskSelf(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	c, _ := inForceWith(t, "--checks=greylist", "--greylist-store=memory:")
	traffic := app{}.Start(service.NewRuntime(zap.New(core), metrics.New(metrics.Options{Daemon: daemonName})), c.Current)
	for _, what := range []string{"a state", "no state"} {
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			traffic.Handler(t.Context(), &daemon.Conn{Conn: theirs, Socket: daemon.NewSelf().Listener().Socket})
		}()
		if err := traffic.Ask(ours); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		_ = ours.Close()
		<-done
		c.Close()
	}
	if logs.Len() != 0 {
		t.Errorf("logged: %v", logs.All())
	}
}

// A daemon that answers with anything else is not well.
func TestAskSelfGetsNoAnswer(t *testing.T) {
	for _, answer := range []string{"", "\n", "action", "250 ok\n"} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 256))
			_, _ = theirs.Write([]byte(answer))
			_ = theirs.Close()
		}()
		if err := askSelf(ours); err == nil {
			t.Errorf("%q is an answer", answer)
		}
	}
}
