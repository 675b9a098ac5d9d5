package spf

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	reader "github.com/postern-mail/postern/internal/golden"
)

// golden is one case of testdata/golden: a file holds a zone and cases on it.
// The keys are those of the struct; "why" says what the case shows.
type golden struct {
	name   string
	fields map[string]string
}

var goldenKeys = []string{
	"ip", "helo", "from", "identity", "voidlimit", // given
	"want", "mechanism", "network", "path", "broad", "lookups", "voids", "queries", "explanation", "error", // expected
	"why",
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	total, statuses, kinds := 0, map[Status]int{}, map[Kind]int{}
	for _, file := range files {
		z, cases := readGolden(t, file)
		for _, g := range cases {
			total++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+g.name, func(t *testing.T) {
				got := g.run(t, z)
				statuses[got.Status]++
				kinds[got.Kind]++
			})
		}
	}
	if total < 60 {
		t.Errorf("%d golden cases, want at least 60", total)
	}
	for _, s := range []Status{None, Neutral, Pass, Fail, SoftFail, TempError, PermError} {
		if statuses[s] < 2 {
			t.Errorf("status %s in %d cases", s, statuses[s])
		}
	}
	for _, k := range []Kind{KindAll, KindA, KindMX, KindPTR, KindIP4, KindIP6, KindExists, ""} {
		if kinds[k] == 0 {
			t.Errorf("mechanism %q in no case", k)
		}
	}
}

func readGolden(t testing.TB, file string) (*zone, []golden) {
	world, all := reader.List(t, file)
	z := newZone()
	for _, f := range world {
		qtype, data, _ := strings.Cut(f.Value, " ")
		z.Add(goldenText(t, f, f.Key), qtype, goldenText(t, f, strings.TrimSpace(data)))
	}
	var cases []golden
	for _, c := range all {
		g := golden{c.Name, map[string]string{}}
		for _, f := range c.Fields {
			if !slices.Contains(goldenKeys, f.Key) {
				t.Fatalf("%s: unknown key %q", f.At, f.Key)
			}
			g.fields[f.Key] = reader.Text(t, f)
		}
		cases = append(cases, g)
	}
	return z, cases
}

// goldenText reads a part of a field.
func goldenText(t testing.TB, f reader.Field, part string) string {
	f.Value = part
	return reader.Text(t, f)
}

func (g golden) run(t *testing.T, z *zone) Result {
	if g.fields["why"] == "" || g.fields["want"] == "" || g.fields["mechanism"] == "" {
		t.Fatal("a case needs want, mechanism and why")
	}
	got := g.check(t.Context(), t, z)
	actual := map[string]string{
		"want":        string(got.Status),
		"mechanism":   orDash(got.Mechanism),
		"network":     "-",
		"path":        orDash(strings.Join(got.Path, " ")),
		"broad":       map[bool]string{true: "yes", false: "no"}[got.Broad()],
		"lookups":     fmt.Sprint(got.Lookups),
		"voids":       fmt.Sprint(got.Voids),
		"queries":     fmt.Sprint(got.Queries),
		"explanation": orDash(got.Explanation),
	}
	if got.Network.IsValid() {
		actual["network"] = got.Network.String()
	}
	for key, value := range actual {
		if want, ok := g.fields[key]; ok && want != value {
			t.Errorf("%s: got %q, want %q (error: %v)", key, value, want, got.Err)
		}
	}
	want, asked := g.fields["error"]
	if asked && !strings.Contains(fmt.Sprint(got.Err), want) {
		t.Errorf("error %v, want one with %q", got.Err, want)
	}
	if hasErr := got.Status == None || got.Status == TempError || got.Status == PermError; hasErr != (got.Err != nil) {
		t.Errorf("status %s with error %v", got.Status, got.Err)
	}
	return got
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (g golden) check(ctx context.Context, t *testing.T, z *zone) Result {
	args := g.args(t)
	if g.fields["identity"] == "helo" {
		return CheckHelo(ctx, z, args).Result
	}
	return CheckMailFrom(ctx, z, args).Result
}

func (g golden) args(t *testing.T) Args {
	args := Args{
		IP:       netip.MustParseAddr(g.fields["ip"]),
		Helo:     g.fields["helo"],
		Receiver: "mail.receiver.example",
		Now:      time.Unix(1_700_000_000, 0),
	}
	if limit := g.fields["voidlimit"]; limit != "" {
		n, err := strconv.Atoi(limit)
		if err != nil {
			t.Fatal(err)
		}
		args.MaxVoids = n
	}
	if from := g.fields["from"]; from != "<>" {
		at := strings.LastIndexByte(from, '@')
		args.Sender = Sender{Local: from[:max(at, 0)], Domain: from[at+1:]}
	}
	return args
}
