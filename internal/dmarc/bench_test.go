package dmarc

import (
	"testing"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/spf"
)

func BenchmarkParseRecord(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ParseRecord("v=DMARC1; p=reject; sp=quarantine; adkim=r; aspf=r; rua=mailto:dmarc@example.com; ruf=mailto:dmarc@example.com; fo=1")
	}
}

// BenchmarkEvaluate has the DNS in a map, as a warm cache nearly is.
func BenchmarkEvaluate(b *testing.B) {
	z := newZone()
	z.Add("_dmarc.example.com", "TXT", "v=DMARC1; p=reject; rua=mailto:dmarc@example.com")
	for name, domains := range map[string][3]string{ // author, MAIL FROM, signer
		"identical": {"example.com", "example.com", "example.com"},
		"relaxed":   {"example.com", "bounce.example.com", "example.com"},
		"walk":      {"a.b.c.d.e.f.g.h.i.j.mail.example.com", "bounce.example.com", "example.com"},
		"esp":       {"example.com", "bounce.mailer.net", "example.com"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			m := Message{Author: author.Author{Domains: []string{domains[0]}}, Signatures: []Signature{{domains[2], SignaturePass}}}
			m.SPF.Status, m.SPF.Domain = spf.Pass, domains[1]
			e := Evaluator{Resolver: z.Full()}
			for b.Loop() {
				z.ResetAsked()
				e.Evaluate(b.Context(), m)
			}
		})
	}
}
