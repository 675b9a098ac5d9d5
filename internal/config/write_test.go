package config

import (
	"slices"
	"testing"
)

// Undoing an edit removes everything that it has added, and nothing else.
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

func TestValues(t *testing.T) {
	const text = "\ufeffowners = [ # \"hash:/not/this\"\n  'hash:/a', # see https://example.org/\n  \"regexp:/b\\u0063\",\n]\n" +
		"shadow = 'all' # \"greylist\"\ndeadline = \"9s\"\nlimit = [] # [\"login=1/1d\"]\nmax-connections = 1_000\n\"user\" = \"\"\"\npostern\"\"\"\n"
	d, err := ParseDocument("policyd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"owners": {"hash:/a", "regexp:/bc"}, "shadow": {"all"}, "deadline": {"9s"}, "limit": {}, "max-connections": {"1000"}, "user": {"postern"}, "checks": nil,
	} {
		if got := d.Values(name); !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for text, want := range map[string][]string{`["a", "b"]`: {"a", "b"}, `"a"`: {"a"}, "true": {"true"}, "[]": {}, "(hidden)": {"(hidden)"}} {
		if got := Literals(text); !slices.Equal(got, want) {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}
