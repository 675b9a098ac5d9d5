package milterd

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/rsaengine"
	"github.com/postern-mail/postern/milter/sign"
)

// builtIn reports whether this program has OpenSSL.
func builtIn(t *testing.T) bool {
	t.Helper()
	e, err := rsaengine.New(rsaengine.Auto, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return e.Name() == rsaengine.OpenSSL
}

// An engine that the program does not have is a mistake in the settings, with its fix.
// Elsewhere it is the one that signs.
func TestRSAEngine(t *testing.T) {
	dir := t.TempDir()
	genkey(t, dir, "home.example", sign.RSA)
	for _, name := range []string{rsaengine.Auto, rsaengine.Go, rsaengine.OpenSSL} {
		args := []string{"--dkim-keys=" + dir, "--rsa-engine=" + name}
		if name == rsaengine.OpenSSL && !builtIn(t) {
			for _, more := range []string{"", "--check-config"} {
				_, err := load(zap.NewNop(), append(args, strings.Fields(more)...)...)
				if err == nil || !strings.Contains(err.Error(), "--rsa-engine") || !strings.Contains(err.Error(), "make openssl") {
					t.Errorf("openssl %s: %v", more, err)
				}
			}
			continue
		}
		engine := rsaengine.Go
		if name != rsaengine.Go && builtIn(t) {
			engine = rsaengine.OpenSSL
		}
		a, m, _ := start(t, args...)
		if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != 1 {
			t.Errorf("%s: %d signatures, want 1", name, n)
		}
		err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(fmt.Sprintf(`
# HELP postern_rsa_engine 1 for the engine that makes RSA signatures.
# TYPE postern_rsa_engine gauge
postern_rsa_engine{engine=%q} 1
# HELP postern_rsa_engine_fallbacks_total RSA signatures that Go made because OpenSSL could not.
# TYPE postern_rsa_engine_fallbacks_total counter
postern_rsa_engine_fallbacks_total 0
`, engine)), "postern_rsa_engine", "postern_rsa_engine_fallbacks_total")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys are replaced while mail is signed.
func TestKeysAreReloadedUnderLoad(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	for _, dir := range dirs {
		genkey(t, dir, "home.example", sign.RSA)
	}
	a, _, _ := start(t, "--dkim-keys="+dirs[0])
	const workers, mails = 4, 50
	var load sync.WaitGroup
	for range workers {
		load.Go(func() {
			for range mails {
				o, release := inForce[*signPart](a.current)
				m := o.signer.Message(t.Context(), []sign.Field{{Name: "From", Value: " a@home.example"}})
				if r := m.Close(); len(r.Fields) != 1 || r.Err != nil {
					t.Errorf("%s: %d signatures, %v", r.Reason, len(r.Fields), r.Err)
				}
				release()
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		load.Wait()
		close(ended)
	}()
	for reloads := 1; ; reloads++ {
		a.reload(t, "--dkim-keys="+dirs[reloads%2])
		select {
		case <-ended:
		default:
			continue
		}
		break
	}
	o, release := inForce[*signPart](a.current)
	defer release()
	if n := o.engine.Fallbacks(); n > 0 {
		t.Errorf("%d fallbacks", n)
	}
}
