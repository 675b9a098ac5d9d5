package manual

import (
	"slices"
	"testing"
)

const sample = "# Top\n\nSee [a](other.md#b), `[c](code.md)`.\n\n```\n# no heading\n[d](fenced.md)\n```\n\n## What it's (`about`)\n\n" +
	"| flag | |\n|---|---|\n| `--a x\\|y`, `--b` | text `c` |\n| **bold** | |\n\nText.\n\n### Below\n\nmore\n\n## Next\n\nend\n"

func TestReading(t *testing.T) {
	p := Page{"a.md", sample}
	if got := p.Links(); !slices.Equal(got, []string{"other.md#b"}) {
		t.Errorf("links %q", got)
	}
	if got := p.Anchors(); len(got) != 4 || !got["what-its-about"] || !got["below"] || got["no-heading"] {
		t.Errorf("anchors %v", got)
	}
	section, ok := p.Section("## What it's (`about`)")
	if want := "\n| flag | |\n|---|---|\n| `--a x\\|y`, `--b` | text `c` |\n| **bold** | |\n\nText.\n\n### Below\n\nmore\n\n"; !ok || section != want {
		t.Errorf("section %t, %q", ok, section)
	}
	if _, ok := p.Section("## Missing"); ok {
		t.Error("a section that is not there was found")
	}
	rows := Rows(sample)
	if len(rows) != 2 || !slices.Equal(Code(rows[0].First), []string{`--a x\|y`, "--b"}) || !slices.Equal(Code(rows[0].Rest), []string{"c"}) {
		t.Errorf("rows %q", rows)
	}
}
