package author

import (
	"strings"
	"testing"
)

func BenchmarkParseFrom(b *testing.B) {
	for name, value := range map[string]string{
		"plain":    ` "Alice, of Example" <alice@example.com>`,
		"thousand": strings.Repeat(" Alice <alice@example.com>,", MaxAddresses-1) + " x@example.com",
		"comments": strings.Repeat("(", 20_000) + "a@example.com",
		"quotes":   strings.Repeat(`"a`, 20_001) + "a@example.com",
		"unicode":  strings.Repeat("@\u00fc", 20_000),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			header := only("From", value)
			for b.Loop() {
				ParseFrom(header)
			}
		})
	}
}
