package dnslists

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/service"
)

func TestZonesAreReportedOnce(t *testing.T) {
	var out bytes.Buffer
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{LevelKey: "level", EncodeLevel: zapcore.LowercaseLevelEncoder}), zapcore.AddSync(&out), zapcore.InfoLevel))
	report := report(log)
	broken := dnsbl.Change{Status: dnsbl.Status{Zone: "zen.spamhaus.org", Problem: dnsbl.SharedResolver, Cause: "answered 127.255.255.254"}}
	report(broken)
	report(broken)
	report(dnsbl.Change{Status: dnsbl.Status{Zone: "zen.spamhaus.org"}, Before: dnsbl.SharedResolver})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"level":"error"`) || !strings.Contains(lines[0], `"state":"public_resolver"`) || !strings.Contains(lines[0], `"fix":"the list does not serve public`) ||
		!strings.Contains(lines[1], `"state":"in service"`) || !strings.Contains(lines[1], `"level":"info"`) {
		t.Errorf("%q", lines)
	}
}

func TestCollector(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(NewCollector(func() []dnsbl.Status {
		return []dnsbl.Status{{Zone: "zen.example", Kind: dnsbl.KindAddress}, {Zone: "dbl.example", Kind: dnsbl.KindName, Problem: dnsbl.SharedResolver}}
	}))
	want := `# HELP postern_dnsbl_zone_up 1 while the DNS list is in service, 0 while its breaker is open.
# TYPE postern_dnsbl_zone_up gauge
postern_dnsbl_zone_up{kind="address",zone="zen.example"} 1
postern_dnsbl_zone_up{kind="name",zone="dbl.example"} 0
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// The key is read from a file, which is watched, and is never shown.
func TestReadKey(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxy9"
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	life := service.NewLife()
	got, err := readKey(path, life)
	if err != nil || !slices.Equal(life.Files(), []string{path}) || got.Reveal() != key || strings.Contains(got.String(), key) {
		t.Errorf("%s from %s: %v", got, life.Files(), err)
	}
	if err := os.WriteFile(path, []byte("UNFIT "+key), 0o600); err != nil {
		t.Fatal(err)
	}
	life = service.NewLife()
	if _, err := readKey(path, life); err == nil || strings.Contains(err.Error(), key) || !slices.Equal(life.Files(), []string{path}) {
		t.Errorf("an unfit key: %v", err)
	}
	if _, err := readKey("/nonexistent/key", life); err == nil {
		t.Error("a file that is not there was read")
	}
}
