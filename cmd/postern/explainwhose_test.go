package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-mail/postern/milter"
)

func TestExplainWhose(t *testing.T) {
	config := filepath.Join(t.TempDir(), "milterd.toml")
	if err := os.WriteFile(config, []byte("listen = [\"inet:127.0.0.1:7\"]\ninternal-networks = [\"192.0.2.0/24\"]\noriginating = [\"OURS\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want milter.Whose
	}{
		{nil, ""},
		{[]string{"--socket=sign"}, milter.WhoseSignSocket},
		{[]string{"--socket=verify", "--login=alice"}, milter.WhoseVerifySocket},
		{[]string{"--login=alice", "--ip=192.0.2.1"}, milter.WhoseLogin},
		{[]string{"--daemon-name=ours"}, milter.WhoseDaemonName},
		{[]string{"--ip=192.0.2.1"}, milter.WhoseInternalNetwork},
		{[]string{"--socket=any", "--ip=127.0.0.1"}, milter.WhoseNone},
	} {
		code, out, stderr := postern(t, append([]string{"explain", "whose", "--config", config}, tt.args...)...)
		if code != exitYes || stderr != "" || !strings.Contains(out, "--listen inet:127.0.0.1:7") || !strings.Contains(out, "(192.0.2.0/24)") || !strings.Contains(out, "(OURS)") {
			t.Fatalf("%q: exit %d, %q, %q", tt.args, code, out, stderr)
		}
		for _, row := range milter.WhoseRows() {
			if marked := strings.Contains(out, "\n* "+string(row.Whose)+" "); marked != (row.Whose == tt.want) {
				t.Errorf("%q: row %s is marked: %v\n%s", tt.args, row.Whose, marked, out)
			}
		}
		for _, row := range milter.OwnMailRows() {
			if !strings.Contains(out, string(row.Reason)) {
				t.Errorf("row %s is missing", row.Reason)
			}
		}
	}
	for _, args := range [][]string{{"--socket=other"}, {"--ip=x"}, {"file"}} {
		if code, _, stderr := postern(t, append([]string{"explain", "whose", "--config", config}, args...)...); code != exitFailed || stderr == "" {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
}
