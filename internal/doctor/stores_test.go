package doctor

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/admin"
)

func TestStoresInTrouble(t *testing.T) {
	const full = "database or disk is full"
	for _, tt := range []struct {
		name    string
		unsaved bool
		down    string
		err     error
		want    string
	}{
		{name: "all is well"},
		{name: "nothing new is kept", unsaved: true, want: "the limit-store of postern-policyd is full or cannot be written"},
		{name: "it does not answer the daemon", down: "OOM command not allowed", want: "limit-store is out of service: OOM"},
		{name: "the daemon cannot list it", err: &admin.Error{Code: admin.CodeFailed, Message: full}, want: full},
		{name: "the daemon has ended meanwhile", err: errors.New("connection refused")},
	} {
		found := make(map[string]Finding)
		(&Daemon{Name: "postern-policyd"}).trouble(found, "limit-store", tt.down, tt.unsaved, tt.err)
		f, ok := found["limit-store"]
		if ok != (tt.want != "") || !strings.Contains(f.Text, tt.want) || ok && (f.Level != Fail || !strings.Contains(f.Fix, "make room")) {
			t.Errorf("%s: found %+v", tt.name, found)
		}
	}
}
