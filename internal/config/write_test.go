package config

import "testing"

// What an edit has added goes without a trace, and what was there stays.
func TestEditAndBack(t *testing.T) {
	const comment = "Set by postern setup."
	for _, before := range []string{
		"# heading\n\n# shadow = []\n",
		"checks = [\n  \"dnsbl\", # first\n]\n\n# the end\n",
		"user = \"postern\"\n",
	} {
		added := edit(t, before, nil, []Line{{"shadow", `shadow = ["all"]`}, {"listen", `listen = "x"`}}, comment)
		if want := before + "\n# " + comment + "\nshadow = [\"all\"]\nlisten = \"x\"\n"; added != want {
			t.Errorf("with two settings:\n%s\nwant:\n%s", added, want)
		}
		if again := edit(t, added, []string{"listen"}, []Line{{"shadow", "shadow = []"}}, comment); again != before+"\n# "+comment+"\nshadow = []\n" {
			t.Errorf("one setting left:\n%s", again)
		}
		if back := edit(t, added, []string{"shadow", "listen"}, nil, comment); back != before {
			t.Errorf("back:\n%q\nwant:\n%q", back, before)
		}
		other := edit(t, added, []string{"shadow", "listen"}, []Line{{"mydomain", `mydomain = "a.example"`}}, comment)
		if want := before + "\n# " + comment + "\nmydomain = \"a.example\"\n"; other != want {
			t.Errorf("another setting instead:\n%s\nwant:\n%s", other, want)
		}
	}
}

func edit(t *testing.T, text string, remove []string, set []Line, comment string) string {
	t.Helper()
	d, err := ParseDocument("policyd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return string(d.Edit(remove, set, comment))
}
