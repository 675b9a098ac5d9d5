package manual

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/milterd"
	"github.com/postern-mail/postern/internal/policyd"
	"github.com/postern-mail/postern/internal/service"
)

// setting matches a line of a settings file in a document.
var setting = regexp.MustCompile(`^(?:    )?([a-z][a-z-]*) += +(?:["\[0-9]|true|false)`)

// settingBlocks returns the settings of a page, those of lines in a row together.
func settingBlocks(page Page) (blocks [][]string) {
	var block []string
	for line := range strings.Lines(page.Text + "\n\n") {
		if setting.MatchString(line) {
			block = append(block, strings.TrimSpace(line))
			continue
		}
		if len(block) > 0 {
			blocks = append(blocks, block)
		}
		block = nil
	}
	return blocks
}

// missing matches the error for a file that exists only where the document is followed.
var missing = regexp.MustCompile(`settings\.toml:(\d+): .*: no such file or directory`)

// madeUp replaces what a document leaves to its reader, and the folders and secrets that
// a daemon wants to find.
func madeUp(t *testing.T, lines []string) []string {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("x7", 13)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("$domain", "example.org", "/var/lib/postern", dir).Replace(strings.Join(lines, "\n"))
	text = regexp.MustCompile(`(?m)^((?:dqs-key|status-token)-file +=) +"[^"]*"`).ReplaceAllString(text, `$1 "`+secret+`"`)
	text = regexp.MustCompile(`"(?:hash|texthash|mysql):/etc/[^"]*"`).ReplaceAllString(text, `"inline:{a@example.org=off}"`) // a login, and no limits
	return strings.Split(text, "\n")
}

// checkSettings returns what a daemon has against settings, apart from missing files.
func checkSettings(t *testing.T, d daemon, lines []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.toml")
	lines = madeUp(t, lines)
	for {
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if d.main(service.Process{Args: []string{"--config", path, "--check-config"}, Stdout: &out, Stderr: &out}) == 0 {
			return ""
		}
		m := missing.FindStringSubmatch(out.String())
		if m == nil {
			return out.String()
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > len(lines) || lines[n-1] == "" {
			return out.String()
		}
		lines[n-1] = ""
	}
}

// daemon is a daemon with settings for what a document leaves out.
type daemon struct {
	main  func(service.Process) int
	flags map[string]bool
	rest  []string
}

// complete adds to a block the settings that it does not have.
func (d daemon) complete(block []string) []string {
	block = slices.Clone(block)
	for _, line := range d.rest {
		name, _, _ := strings.Cut(line, " ")
		if !slices.ContainsFunc(block, func(have string) bool { return strings.HasPrefix(have, name+" ") }) {
			block = append(block, line)
		}
	}
	return block
}

// credentials makes the credentials that the documents name.
func credentials(t *testing.T) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	for name, data := range map[string][]byte{
		"marks":                         []byte(strings.Repeat("0123456789abcdef", 4) + "\n"),
		"dkim_example.org_mail.private": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The settings that a document shows can be copied: a daemon accepts them as they are.
func TestSettingsCanBeCopied(t *testing.T) {
	credentials(t)
	owners, memory := `owner-aliases = ["inline:{a@example.org=a}"]`, `greylist-store = "memory:"`
	ofPolicyd, ofMilterd := flags(t, policyd.Main), flags(t, milterd.Main)
	daemons := []daemon{
		{policyd.Main, ofPolicyd, []string{owners, memory}},
		{policyd.Main, ofPolicyd, []string{owners, memory, `limit-store = "memory:"`}},
		{milterd.Main, ofMilterd, nil},
		{milterd.Main, ofMilterd, []string{owners}},
	}
	pages, err := Pages(root)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, page := range pages {
		for _, block := range settingBlocks(page) {
			tried++
			if errs := refusals(t, daemons, block); len(errs) > 0 {
				t.Errorf("%s: %q: %s", page.Path, block, strings.Join(errs, "; "))
			}
		}
	}
	if tried < 15 {
		t.Errorf("%d blocks of settings were found", tried)
	}
}

// refusals returns why each daemon refuses a block of settings, or nothing if one accepts it.
func refusals(t *testing.T, daemons []daemon, block []string) (errs []string) {
	t.Helper()
	for _, d := range daemons {
		if !allKnown(block, d.flags) {
			errs = append(errs, "a setting is unknown to the daemon")
			continue
		}
		text := checkSettings(t, d, d.complete(block))
		if text == "" {
			return nil
		}
		errs = append(errs, text)
	}
	return errs
}

// allKnown reports whether a daemon has all settings of a block.
func allKnown(block []string, flags map[string]bool) bool {
	for _, line := range block {
		if !flags[setting.FindStringSubmatch(line)[1]] {
			return false
		}
	}
	return true
}
