package arc

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dkimpyVerify prints each golden message's file name and what dkimpy makes of
// its chain.
const dkimpyVerify = `
import glob, sys, dkim
zone = {}
for line in open("zone"):
    name, record = line.rstrip("\n").split(" TXT ", 1)
    zone[name] = record.encode()
def txt(name, timeout=5):
    return zone.get(name.decode().rstrip("."))
for file in sorted(glob.glob("*.eml")):
    message = open(file, "rb").read().split(b"\n\n", 1)[1].replace(b"\n", b"\r\n")
    try:
        cv = (dkim.ARC(message).verify(dnsfunc=txt)[0] or b"none").decode()
    except Exception as e:
        cv = "exception"
    print(file, cv)
`

// TestDkimpyAgrees holds the golden cases against dkimpy (Debian's
// python3-dkim, which .ci/setup installs). Without it the test is skipped, but
// for continuous integration.
func TestDkimpyAgrees(t *testing.T) {
	for _, path := range []string{"/usr/bin/python3", "/usr/lib/python3/dist-packages/dkim"} {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	// Where dkimpy differs, and why we do not follow.
	differences := map[string]string{
		"pass-ed25519.eml":                  "fail",      // knows no Ed25519 for ARC (RFC 8463 section 6 has it for DKIM, whose algorithms ARC takes)
		"pass-field-order.eml":              "fail",      // takes the fields of a set as they are; RFC 8617 section 5.1.1 orders them
		"fail-51.eml":                       "pass",      // has no limit of 50 (section 4.2.1)
		"fail-control.eml":                  "pass",      // does not read results, whose syntax section 4.1.1 gives
		"fail-results-comment.eml":          "pass",      // likewise
		"fail-from-unsigned.eml":            "pass",      // does not ask for From (RFC 6376 section 5.4)
		"fail-empty-name-from-unsigned.eml": "pass",      // likewise
		"fail-key-algorithm.eml":            "exception", // applies the key without comparing k=
		"fail-sealed-as-failed.eml":         "none",      // calls a chain that was sealed as failed none; section 5.2 step 3 fails it
	}
	cmd := exec.Command("/usr/bin/python3", "-c", dkimpyVerify)
	cmd.Dir = "testdata/golden"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for line := range strings.Lines(string(out)) {
		file, got, _ := strings.Cut(strings.TrimSpace(line), " ")
		want := readGolden(t, filepath.Join(cmd.Dir, file)).expect["want"]
		if differs, ok := differences[file]; ok {
			want = differs
		}
		if got != want {
			t.Errorf("%s: dkimpy says %s, want %s", file, got, want)
		}
		compared++
	}
	if compared < minGolden {
		t.Errorf("%d messages were compared", compared)
	}
}
