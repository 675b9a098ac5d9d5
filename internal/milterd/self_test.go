package milterd

import (
	"net"
	"testing"

	"github.com/postern-mail/postern/internal/daemon"
)

// The daemon's question to itself is answered, and leaves no trace in the log.
func TestAskSelf(t *testing.T) {
	d, _, logs := start(t, "--dkim-keys=")
	before := logs.Len()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.traffic.Handler(t.Context(), &daemon.Conn{Conn: theirs, Socket: daemon.NewSelf().Listener().Socket})
	}()
	if err := d.traffic.Ask(ours); err != nil {
		t.Error(err)
	}
	<-done // it was told to quit
	if logs.Len() != before {
		t.Errorf("logged: %v", logs.All()[before:])
	}
}

// A daemon that answers with anything else is not well.
func TestAskSelfGetsNoAnswer(t *testing.T) {
	for _, answer := range []string{"", "\x00\x00\x00\x01c", "\x00\x00\x00\x00O", "\xff\xff\xff\xffO"} {
		ours, theirs := net.Pipe()
		go func() {
			_, _ = theirs.Read(make([]byte, 64))
			_, _ = theirs.Write([]byte(answer))
			_ = theirs.Close()
		}()
		if err := askSelf(ours); err == nil {
			t.Errorf("%q is an answer", answer)
		}
	}
}
