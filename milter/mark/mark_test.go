package mark

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

var (
	keys    = New([]byte("0123456789abcdef0123456789abcdef"))
	content = Content{HashOf(" boss@home.example"), HashOf("boss"), HashOf(" mx; dmarc=fail"), HashOf("body")}
	failed  = Verdict{"fail", Quarantined, now}
)

func TestRoundTrip(t *testing.T) {
	for _, v := range []Verdict{failed, {"pass", Delivered, now}, {"none", Delivered, now}, {"permerror", Held, now}} {
		value := keys.Seal(v, content)
		for _, folded := range []string{value, " " + value, strings.ReplaceAll(value, "; ", ";\r\n\t"), strings.ReplaceAll(value, "\n\t", " ")} {
			s, err := keys.Open(folded, now)
			if err != nil || s.DMARC != v.DMARC || s.Done != v.Done || !s.At.Equal(now) || !s.Whole(content) {
				t.Errorf("%q: %+v, %v", folded, s, err)
			}
		}
	}
}

func TestForgeries(t *testing.T) {
	value := keys.Seal(failed, content)
	tests := map[string]string{
		"another verdict":     strings.Replace(value, "dmarc=fail", "dmarc=pass", 1),
		"another disposition": strings.Replace(value, "dis=mark", "dis=none", 1),
		"a longer life":       strings.Replace(value, "x=1", "x=2", 1),
		"another From":        strings.Replace(value, content.From, HashOf("x"), 1),
		"other local parts":   strings.Replace(value, content.Locals, HashOf("x"), 1),
		"no local parts":      strings.Replace(value, "u="+content.Locals, "u=", 1),
		"another body":        strings.Replace(value, content.Body, HashOf("x"), 1),
		"a tag more":          strings.Replace(value, "v=1;", "v=1; dmarc=pass;", 1),
		"no hash":             value[:strings.Index(value, "b=")],
		"an empty hash":       value[:strings.Index(value, "b=")+2],
		"half a hash":         value[:len(value)-20],
		"nothing":             "",
		"long":                value + strings.Repeat(" ", maxField),
	}
	for name, forged := range tests {
		if s, err := keys.Open(forged, now); err == nil {
			t.Errorf("%s: %q is genuine: %+v", name, forged, s)
		}
	}
	if _, err := New([]byte("another key, another key")).Open(value, now); err == nil {
		t.Error("another key opens it")
	}
	for _, k := range []*Keys{nil, {}} {
		if _, err := k.Open(value, now); err == nil {
			t.Error("no key opens it")
		}
	}
}

func TestTime(t *testing.T) {
	value := keys.Seal(failed, content)
	for at, valid := range map[time.Duration]bool{
		0: true, Lifetime: true, Lifetime + time.Second: false, -4 * time.Minute: true, -6 * time.Minute: false,
	} {
		if _, err := keys.Open(value, now.Add(at)); (err == nil) != valid {
			t.Errorf("after %v: %v", at, err)
		}
	}
}

// A clock that was set back does not make a bad verdict, or an open one, invalid.
func TestFindEarly(t *testing.T) {
	for v, counts := range map[Verdict]bool{
		failed: true, {"permerror", Held, now}: true, {"temperror", Delivered, now}: true, {"pass", Delivered, now}: false,
	} {
		header := func(yield func(name, value string) bool) { yield(Field, keys.Seal(v, content)) }
		for at, found := range map[time.Duration]bool{-24 * time.Hour: counts, 0: true, Lifetime + time.Second: false} {
			if s, _ := keys.Find(header, now.Add(at)); (s != nil) != found {
				t.Errorf("%+v after %s: %+v", v, at, s)
			}
		}
	}
}

func TestSeveralKeys(t *testing.T) {
	older := New([]byte("an older key, an older key"))
	both := New([]byte("the newest key, the newest key"), []byte("an older key, an older key"))
	if _, err := both.Open(older.Seal(failed, content), now); err != nil {
		t.Error(err)
	}
	if _, err := older.Open(both.Seal(failed, content), now); err == nil {
		t.Error("the old key makes marks")
	}
}

func TestHashIgnoresWhiteSpace(t *testing.T) {
	if HashOf("a b\r\n\tc") != HashOf("abc") || HashOf("abc") == HashOf("abd") || HashOf("a", "b") == HashOf("ab") {
		t.Error("white space, or the bounds of fields")
	}
	body := strings.Repeat("text of a line\r\n", 1000)
	whole, pieces := NewHash(), NewHash()
	_, _ = whole.Write([]byte(body))
	for c := range slices.Chunk([]byte(body), 7) {
		_, _ = pieces.Write(c)
	}
	if whole.Sum() != pieces.Sum() {
		t.Error("the hash depends on the pieces")
	}
}

// Exactly the white space is dropped, for any octets.
func TestSqueeze(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	into := make([]byte, 108)
	for range 20_000 {
		from := make([]byte, random.IntN(100))
		var want []byte
		for i := range from {
			if from[i] = byte(random.Uint32()); random.IntN(3) > 0 {
				from[i] = "\t\n\r \x00\x08\x0b\x1f!a\x7f\x80\x89\xa0\xff"[random.IntN(15)]
			}
			if !blank(from[i]) {
				want = append(want, from[i])
			}
		}
		if got := into[:squeeze(into, from)]; !bytes.Equal(got, want) {
			t.Fatalf("%q of %q, want %q", got, from, want)
		}
	}
}

// BenchmarkHash shows what the body of each mail costs: lines of text, and those of
// an attachment.
func BenchmarkHash(b *testing.B) {
	for name, line := range map[string]string{
		"text":   "some words of a line that is typical\r\n",
		"base64": strings.Repeat("QmFzZTY0", 9) + "YQ==\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			body := []byte(strings.Repeat(line, 40_000/len(line)))
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				h := NewHash()
				_, _ = h.Write(body)
				h.Sum()
			}
		})
	}
}

func TestFind(t *testing.T) {
	good := keys.Seal(Verdict{"pass", Delivered, now}, content)
	bad := keys.Seal(failed, content)
	find := func(values ...string) (string, int) {
		s, index := keys.Find(func(yield func(string, string) bool) {
			for _, v := range values {
				if !yield("Subject", "x") || !yield("x-postern-MARK", v) {
					return
				}
			}
		}, now)
		if s == nil {
			return "", index
		}
		return s.DMARC, index
	}
	tests := []struct {
		values []string
		dmarc  string
		index  int
	}{
		{nil, "", 0},
		{[]string{"v=1"}, "", 0},
		{[]string{"v=1", good}, "pass", 2},
		{[]string{good, bad}, "fail", 2},
		{[]string{bad, good}, "fail", 1},
		{append(slices.Repeat([]string{"v=1"}, MaxMarks), bad), "", 0},
	}
	for _, test := range tests {
		if dmarc, index := find(test.values...); dmarc != test.dmarc || index != test.index {
			t.Errorf("%q: %s at %d", test.values, dmarc, index)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mark.key")
	if err := MakeFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	first, err := ReadFile(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if err := MakeFile(path); err != nil {
		t.Fatal(err)
	}
	second, err := ReadFile(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Open(first.Seal(failed, content), now); err != nil {
		t.Error("a file that was there is another one now:", err)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	for name, test := range map[string]struct {
		text, want string
		mode       fs.FileMode
	}{
		"everybody reads": {"MDEyMzQ1Njc4OWFiY2RlZg==", "chmod 0600", 0o644},
		"group writes":    {"MDEyMzQ1Njc4OWFiY2RlZg==", "chmod 0600", 0o660},
		"short":           {"# x\nMDEy", ":2: not a key", 0o600},
		"no base64":       {"#\n\nsecret!", ":3: not a key", 0o600},
		"empty":           {"# nothing", "has 0 keys", 0o600},
		"many":            {strings.Repeat("MDEyMzQ1Njc4OWFiY2RlZg==\n", 9), "has 9 keys", 0o600},
		"large":           {strings.Repeat("#\n", maxKeyFile), "not a file", 0o600},
	} {
		path := filepath.Join(t.TempDir(), "mark.key")
		if err := os.WriteFile(path, []byte(test.text), test.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path, -1); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "secret!") || strings.Contains(err.Error(), "MDEy") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(keys.Seal(failed, content))
	f.Add("v=1; t=1; x=2; dmarc=pass; dis=none; f=; r=; bh=; b=")
	f.Fuzz(func(t *testing.T, value string) {
		s, err := keys.Open(value, now)
		if err == nil && bare(keys.Seal(s.Verdict, s.Content)) != bare(value) {
			t.Fatalf("%q is genuine and nothing that we write", value)
		}
	})
}
