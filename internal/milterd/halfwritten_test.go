package milterd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-mail/postern/internal/admin"
	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/milter/sign"
)

// commands are what can be asked of the parts of the daemon.
func commands(c *current) map[string]admin.Handler { return service.Commands(c, rooms()) }

// writeAt writes a file in place, at a time before now.
func writeAt(t *testing.T, path, text string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

// whileWriting calls do while a file is written, of which there is a text so far. On a busy
// machine do may last longer than a file rests until it counts as whole.
func whileWriting(t *testing.T, path, text string, do func()) {
	t.Helper()
	writeAt(t, path, text, 0)
	stop := make(chan struct{})
	var writing sync.WaitGroup
	defer writing.Wait()
	defer close(stop)
	writing.Go(func() {
		often := time.NewTicker(10 * time.Millisecond)
		defer often.Stop()
		for {
			select {
			case now := <-often.C:
				if err := os.Chtimes(path, now, now); err != nil {
					t.Error(err)
				}
			case <-stop:
				return
			}
		}
	})
	do()
}

// While one of OpenDKIM's tables is written line by line, or has lost most of its
// rows, the rows of before sign on.
func TestHalfWrittenTables(t *testing.T) {
	dir := t.TempDir()
	key := genkey(t, dir, "home.example", sign.Ed25519)[0]
	keyTable, signingTable := filepath.Join(dir, "KeyTable"), filepath.Join(dir, "SigningTable")
	keys := "other other.example:postern:" + key.Path + "\nk home.example:postern:" + key.Path + "\n"
	signing := "*@other.example other\n*@third.example other\n*@home.example k\n"
	writeAt(t, keyTable, keys, time.Hour)
	writeAt(t, signingTable, signing, time.Hour)
	args := []string{"--dkim-keys=", "--dkim-key-table=" + keyTable, "--dkim-signing-table=refile:" + signingTable}
	a, _, logs := start(t, args...)
	check := func(when string, want int, again bool) {
		t.Helper()
		a.reload(t, args...)
		if n := signatures(sendOver(t, a, "--listen-sign", fromHome)); n != want || (a.life.Again() > 0) != again {
			t.Errorf("%s: %d signatures, again in %v; want %d, %t", when, n, a.life.Again(), want, again)
		}
	}
	check("whole", 1, false)
	firstOf := func(text string) string { return text[:strings.IndexByte(text, '\n')+1] }
	whileWriting(t, signingTable, firstOf(signing), func() { check("the signing table is being written", 1, true) })
	writeAt(t, signingTable, signing, time.Minute)
	check("written", 1, false)
	whileWriting(t, keyTable, firstOf(keys), func() { check("the key table is being written", 1, true) })
	writeAt(t, keyTable, "", time.Minute)
	check("an export has failed", 1, false)
	if n := logs.FilterMessageSnippet("would lose more than half").Len(); n != 1 {
		t.Errorf("%d errors about it", n)
	}
	writeAt(t, keyTable, firstOf(keys), time.Minute)
	check("a key is taken away", 0, false)
}

// While the key file of marks is being written, those of before are in use.
func TestHalfWrittenMarkKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark.key")
	const whole = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	writeAt(t, path, whole+"\n", time.Hour)
	args := []string{"--dkim-keys=", "--mark-key-file=" + path}
	a, _, _ := start(t, args...)
	marks := func() any { return partOf[*markPart](t, a.now()).keys }
	before := marks()
	whileWriting(t, path, whole[:24], func() { // a key too, and another one
		a.reload(t, args...)
		if marks() != before || a.life.Again() == 0 {
			t.Error("a half-written key is in use")
		}
	})
	whileWriting(t, path, "", func() {
		a.reload(t, args...)
		if marks() != before {
			t.Error("the key of an empty file is in use")
		}
	})
	writeAt(t, path, strings.ToLower(whole)+"\n", time.Minute)
	a.reload(t, args...)
	if marks() == before || a.life.Again() != 0 {
		t.Error("the new key is not in use")
	}
}

// Public keys that were read outlive a reload.
func TestKeyCacheIsKept(t *testing.T) {
	a, _, _ := start(t, "--dkim-keys=")
	before := partOf[*verifyPart](t, a.now()).keys
	a.reload(t, "--dkim-keys=", "--spf-reject=fail", "--dns-timeout=3s")
	if after := partOf[*verifyPart](t, a.now()).keys; before == nil || after != before {
		t.Error("a new cache")
	}
}

// The daemon has the command that uses what is held back.
func TestReloadCommand(t *testing.T) {
	a, _, _ := start(t, "--dkim-keys=")
	result, err := a.traffic.Commands[api.Reload](t.Context(), []byte(`{"force":true}`), nil)
	if err != nil || len(result.(api.ReloadResult).Held) != 0 {
		t.Errorf("%+v, %v", result, err)
	}
}
