package checks

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

func TestLongestPart(t *testing.T) {
	for expression, want := range map[string]string{
		`/^ms-smtp.*\.rr\.com$/`:                "ms-smtp",
		`/^mail\d+\.Telekom\.de$/`:              ".telekom.de",
		`/^(?:smtp\w*|postfix)-g\d\.free\.fr$/`: ".free.fr",
		`/^(mail)(\.)example$/`:                 "mail.example",
		`/a|b/`:                                 "",
		`/(abc)?x/`:                             "x",
		`/(abc)+x/`:                             "x",
		`/ülm\.example/`:                        "",
		`/.*/`:                                  "",
	} {
		var p patterns
		if ok, err := p.addPattern(expression); !ok || err != nil {
			t.Errorf("%s: %v, %v", expression, ok, err)
			continue
		}
		if p[0].part != want {
			t.Errorf("%s: %q, want %q", expression, p[0].part, want)
		}
	}
}

// The search for the part must not change a result.
func FuzzPatterns(f *testing.F) {
	f.Add(`^mail\d+\.example\.org$`, "MAIL7.example.org")
	f.Add(`k`, "\u212a")
	f.Add(`s+x`, "\u017fx")
	f.Add(`(?-i:A)b`, "ab")
	f.Add(`(?-i:A)b`, "AB")
	f.Add(`x\Q.y\E`, "X.Y")
	f.Add("\u0130", "i\u0307")
	f.Add(`(a|b)c{2}`, "bcc")
	f.Fuzz(func(t *testing.T, expression, subject string) {
		var p patterns
		if ok, err := p.addPattern("/" + expression + "/"); !ok || err != nil {
			return
		}
		if got, want := p.match(subject), p[0].expression.MatchString(subject); got != want {
			t.Errorf("%q and %q: %v with the part %q, %v without", expression, subject, got, p[0].part, want)
		}
	})
}

// BenchmarkPatterns searches postgrey's own list in Debian for a name that is
// not in it.
func BenchmarkPatterns(b *testing.B) {
	file, err := os.Open("/etc/postgrey/whitelist_clients")
	if err != nil {
		b.Skip(err)
	}
	defer file.Close()
	var p patterns
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if _, err := p.addPattern(strings.TrimSpace(lines.Text())); err != nil {
			b.Fatal(err)
		}
	}
	const name = "mail-out-17.customers.hosting.example.com"
	b.Run("parts", func(b *testing.B) {
		for b.Loop() {
			p.match(name)
		}
	})
	b.Run("expressions", func(b *testing.B) {
		for b.Loop() {
			for _, one := range p {
				one.expression.MatchString(name)
			}
		}
	})
}
