package arc

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/postern-mail/postern/internal/dkim"
)

// recipe builds the message of a golden case, and says what is expected.
type recipe struct {
	name, expect string
	build        func() *mail
}

type cast struct{ a, b, c sealer }

// rsaKey is made once: it takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// sealers are three servers whose keys every test run can make again.
func sealers() cast {
	named := func(domain string) sealer {
		return sealer{domain: domain, selector: "ed", key: testKey(domain)}
	}
	return cast{a: named("a.example"), b: named("b.example"), c: named("c.example")}
}

// goldenSealers are the same with RSA, which other verifiers know too. Their
// key is only there while the golden cases are being written.
func goldenSealers() cast {
	named := func(domain string) sealer {
		return sealer{domain: domain, selector: "rsa"}
	}
	return cast{a: named("a.example"), b: named("b.example"), c: named("c.example")}
}

func goldenZone(t *testing.T) string {
	var b strings.Builder
	put := func(name, record string) { fmt.Fprintf(&b, "%s TXT %s\n", name, record) }
	own := keyRecord(t, rsaKey())
	s := sealers()
	for _, s := range []sealer{s.a, s.b, s.c} {
		put("ed._domainkey."+s.domain, keyRecord(t, s.key))
		put("rsa._domainkey."+s.domain, own)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	put("other._domainkey.a.example", keyRecord(t, other))
	put("down._domainkey.a.example", "SERVFAIL")
	put("revoked._domainkey.a.example", "v=DKIM1; k=rsa; p=")
	put("two._domainkey.a.example", keyRecord(t, other))
	put("two._domainkey.a.example", own)
	put("web._domainkey.a.example", strings.Replace(own, "k=", "s=web; k=", 1))
	return b.String()
}

func recipes(t testing.TB) []recipe {
	s := goldenSealers()
	sealed := func(by ...sealer) func() *mail {
		return func() *mail {
			m := testMail()
			for _, s := range by {
				s.add(t, m)
			}
			return m
		}
	}
	// with changes a copy of s; broken changes the mail after it was sealed.
	with := func(s sealer, change func(*sealer)) sealer {
		change(&s)
		return s
	}
	broken := func(build func() *mail, change func(*mail)) func() *mail {
		return func() *mail {
			m := build()
			change(m)
			return m
		}
	}
	// edit replaces in the topmost field of a name; drop removes that field.
	edit := func(name, old, new string) func(*mail) {
		return func(m *mail) {
			f := &m.fields[indexOf(m, name)]
			changed := strings.Replace(f.Value, old, new, 1)
			if changed == f.Value {
				t.Fatalf("%s has no %q", name, old)
			}
			f.Value = changed
		}
	}
	drop := func(name string) func(*mail) {
		return func(m *mail) {
			i := indexOf(m, name)
			m.fields = append(m.fields[:i:i], m.fields[i+1:]...)
		}
	}
	twice := func(name string) func(*mail) {
		return func(m *mail) { m.push(name, m.fields[indexOf(m, name)].Value) }
	}
	listEdit := func(m *mail) {
		m.fields[indexOf(m, "Subject")].Value = " [list] A subject"
		m.body += "-- \r\nlist footer\r\n"
	}
	modified := func() *mail {
		m := sealed(s.a)()
		listEdit(m)
		s.b.add(t, m)
		return m
	}
	long := func(n int) func() *mail {
		all := make([]sealer, n)
		for i := range all {
			all[i] = []sealer{s.a, s.b, s.c}[i%3]
		}
		return sealed(all...)
	}
	return []recipe{
		{"none", "want none\nsets 0\nwhy a message without any set", sealed()},
		{"pass-1", "want pass\nsets 1\nsealer a.example\noldest 0\ntrusted a.example\nvouched a.example\nwhy one set, untouched", sealed(s.a)},
		{"pass-2", "want pass\nsets 2\nsealer b.example\noldest 0\ntrusted b.example\nvouched b.example\nwhy two sets, untouched", sealed(s.a, s.b)},
		{"pass-3", "want pass\nsets 3\nsealer c.example\noldest 0\ntrusted a.example b.example\nvouched -\nwhy the last sealer is not trusted, so nobody is heard", sealed(s.a, s.b, s.c)},
		{"pass-50", "want pass\nsets 50\noldest 0\nwhy as many sets as there may be", long(50)},
		{"fail-51", "want fail\nreason ARC-Seal: i= is not a number from 1 to 50\nwhy one more", long(51)},
		{"pass-ed25519", "want pass\nsealer b.example\nwhy the other algorithm of RFC 8463", sealed(sealers().a, sealers().b)},
		{"pass-list", "want pass\nsets 2\noldest 2\ntrusted a.example b.example\nvouched b.example\nwhy a list changed subject and body, and signed anew: the first signature is history", modified},
		{"pass-simple", "want pass\nwhy simple canonicalization of header and body", sealed(with(s.a, func(s *sealer) { s.canon = "simple/simple" }))},
		{"pass-without-c", "want pass\ntrusted a.example\nvouched a.example\nwhy as the public suite has it (ams_fields_c_na)", sealed(with(s.a, func(s *sealer) { s.noCanon = true }))},
		{"pass-empty-name", "want pass\ntrusted a.example\nvouched a.example\nwhy an empty name in h= signs nothing (ams_fields_h_mis_hdr)", sealed(with(s.a, func(s *sealer) { s.signed = "from::to:" }))},
		{"pass-no-names", "want pass\ntrusted a.example\nvouched -\nwhy likewise (ams_fields_h_empty), but then it vouches for no author", sealed(with(s.a, func(s *sealer) { s.signed = ":" }))},
		{"fail-empty-name-from-unsigned", "want fail\nreason ARC-Message-Signature: From is not signed\nwhy names that are there must hold From", sealed(with(s.a, func(s *sealer) { s.signed = "to::subject" }))},
		{"pass-mixed", "want pass\noldest 0\nwhy two signatures with different forms of the body", sealed(with(s.a, func(s *sealer) { s.canon = "simple/relaxed" }), with(s.b, func(s *sealer) { s.canon = "relaxed/simple" }))},
		{"pass-signs-arc", "want pass\noldest 0\nwhy a message signature may cover the sets before it", sealed(s.a, with(s.b, func(s *sealer) {
			s.signed = "from:to:subject:arc-authentication-results:arc-message-signature"
		}))},
		{"pass-unknown-tags", "want pass\nwhy unknown tags are ignored", sealed(with(s.a, func(s *sealer) { s.messageX, s.sealX = " xy=1;", " zz=2;" }))},
		{"pass-two-keys", "want pass\nwhy one of several keys at a name verifies", sealed(with(s.a, func(s *sealer) { s.selector = "two" }))},
		{"pass-field-order", "want pass\nwhy where the fields are does not matter", broken(sealed(s.a, s.b), func(m *mail) {
			m.fields[0], m.fields[5] = m.fields[5], m.fields[0]
			m.fields[1], m.fields[8] = m.fields[8], m.fields[1]
		})},
		{"pass-refolded", "want pass\nwhy relaxed canonicalization survives folding", broken(sealed(s.a), edit(fieldSeal, "; d=", ";\r\n\t d="))},
		{"pass-name-case", "want pass\nwhy field names are compared ignoring case", broken(sealed(s.a), func(m *mail) { m.fields[0].Name = "arc-SEAL" })},
		{"pass-results-differ", "want pass\ntrusted a.example\nvouched -\nwhy the sealer saw DMARC fail", sealed(with(s.a, func(s *sealer) {
			s.results = "mx; dmarc=fail header.from=author.example"
		}))},
		{"pass-results-quoted", "want pass\ntrusted a.example\nvouched -\nwhy a result inside of quotes or a comment is none", sealed(with(s.a, func(s *sealer) {
			s.results = `mx; spf=pass (dmarc=pass header.from=author.example) smtp.mailfrom="x; dmarc=pass header.from=author.example"`
		}))},
		{"pass-results-other-author", "want pass\ntrusted a.example\nvouched -\nwhy the sealer saw another author", sealed(with(s.a, func(s *sealer) {
			s.results = "mx; dmarc=pass header.from=other.example"
		}))},
		{"pass-invented-start", "want pass\ntrusted b.example\nvouched -\nwhy what a stranger claims to have seen is not believed because a trusted server forwards it", sealed(s.a, with(s.b, func(s *sealer) {
			s.results = "mx; dmarc=fail header.from=author.example"
		}))},
		{"fail-body", "want fail\nsets 2\nreason message signature 2: body hash did not verify\nwhy the body changed after the last seal", broken(sealed(s.a, s.b), func(m *mail) { m.body += "more\r\n" })},
		{"fail-header", "want fail\nreason message signature 1: signature did not verify\nwhy a signed field changed", broken(sealed(s.a), func(m *mail) { m.fields[indexOf(m, "From")].Value = " x@evil.example" })},
		{"fail-second-from", "want fail\nreason message signature 1: signature did not verify\nwhy a From below the signed one is the one that h= names", broken(sealed(s.a), func(m *mail) {
			m.fields = append(m.fields, dkim.Field{Name: "From", Value: " x@evil.example"})
		})},
		{"fail-results-changed", "want fail\nreason seal 1: signature did not verify\nwhy results are under the seal", broken(sealed(with(s.a, func(s *sealer) {
			s.results = "mx; dmarc=fail header.from=author.example"
		})), edit(fieldResults, "fail", "pass"))},
		{"fail-old-results-changed", "want fail\nreason seal 2: signature did not verify\nwhy the last seal covers all sets", broken(sealed(s.a, s.b), func(m *mail) {
			m.fields[5].Value = strings.Replace(m.fields[5].Value, "pass", "fail", 1)
		})},
		{"fail-old-seal", "want fail\nreason seal 1: signature did not verify\nwhy a server that seals without looking does not fix the chain", func() *mail {
			m := sealed(s.a)()
			edit(fieldSeal, "t=1700000000", "t=1700000001")(m)
			s.b.add(t, m)
			return m
		}},
		{"fail-sealed-as-failed", "want fail\nreason seal 2 has a cv= other than pass\nwhy the server before us saw the chain broken", sealed(s.a, with(s.b, func(s *sealer) { s.cv = "fail" }))},
		{"fail-first-cv-pass", "want fail\nreason seal 1 has a cv= other than none\nwhy the first server cannot have seen a chain", sealed(with(s.a, func(s *sealer) { s.cv = "pass" }))},
		{"fail-second-cv-none", "want fail\nreason seal 2 has a cv= other than pass\nwhy the second server must have seen one", sealed(s.a, with(s.b, func(s *sealer) { s.cv = "none" }))},
		{"fail-no-seal", "want fail\nreason set 1 is incomplete\nwhy a set without its seal", broken(sealed(s.a), drop(fieldSeal))},
		{"fail-no-message-signature", "want fail\nreason set 1 is incomplete\nwhy a set without its message signature", broken(sealed(s.a), drop(fieldMessage))},
		{"fail-no-results", "want fail\nreason set 2 is incomplete\nwhy a set without its results", broken(sealed(s.a, s.b), drop(fieldResults))},
		{"fail-gap", "want fail\nreason instance 2 is missing\nwhy a set was taken out", sealed(s.a, with(s.c, func(s *sealer) { s.instance = 3 }))},
		{"fail-two-seals", "want fail\nreason ARC-Seal: instance 1 occurs twice\nwhy which of the two is meant is not defined", broken(sealed(s.a), twice(fieldSeal))},
		{"fail-two-message-signatures", "want fail\nreason ARC-Message-Signature: instance 1 occurs twice\nwhy likewise", broken(sealed(s.a), twice(fieldMessage))},
		{"fail-two-results", "want fail\nreason ARC-Authentication-Results: instance 1 occurs twice\nwhy likewise", broken(sealed(s.a), twice(fieldResults))},
		{"fail-instance-zero", "want fail\nreason ARC-Seal: i= is not a number from 1 to 50\nwhy instances begin at 1", broken(sealed(s.a), edit(fieldSeal, "i=1", "i=0"))},
		{"fail-instance-missing", "want fail\nreason ARC-Message-Signature: i= is not a number from 1 to 50\nwhy a field without an instance", broken(sealed(s.a), edit(fieldMessage, "i=1; ", ""))},
		{"fail-results-instance", "want fail\nreason ARC-Authentication-Results: does not begin with i=\nwhy results that begin with something else", broken(sealed(s.a), edit(fieldResults, "i=1; ", ""))},
		{"fail-results-comment", "want fail\nreason ARC-Authentication-Results: comment without an end\nwhy results that cannot be read", sealed(with(s.a, func(s *sealer) { s.results = "mx; dmarc=pass (oops" }))},
		{"fail-seal-h", "want fail\nreason ARC-Seal: h= must not be there\nwhy what a seal covers is fixed", sealed(with(s.a, func(s *sealer) { s.sealX = " h=from;" }))},
		{"fail-message-signs-seal", "want fail\nreason ARC-Message-Signature: h= must not name ARC-Seal\nwhy seals are not for message signatures", sealed(with(s.a, func(s *sealer) { s.signed = "from:arc-seal" }))},
		{"fail-from-unsigned", "want fail\nreason ARC-Message-Signature: From is not signed\nwhy the author could be anybody (RFC 6376 section 5.4)", sealed(with(s.a, func(s *sealer) { s.signed = "to:subject" }))},
		{"fail-length", "want fail\nreason ARC-Message-Signature: l= leaves part of the body unsigned\nwhy text may have been appended", sealed(with(s.a, func(s *sealer) { s.messageX = " l=5;" }))},
		{"fail-sha1", "want fail\nreason ARC-Seal: rsa-sha1 is too weak\nwhy RFC 8301", broken(sealed(s.a), edit(fieldSeal, "rsa-sha256", "rsa-sha1"))},
		{"fail-expired", "want fail\nreason message signature 1: expired\nwhy x= has passed", sealed(with(s.a, func(s *sealer) { s.messageX = " t=1; x=1700000099;" }))},
		{"fail-duplicate-tag", "want fail\nreason ARC-Seal: a tag occurs twice\nwhy a tag list with a name twice is none", sealed(with(s.a, func(s *sealer) { s.sealX = " d=evil.example;" }))},
		{"fail-no-key", "want fail\ntemporary false\nreason seal 1: no key\nwhy nobody published the selector", sealed(with(s.a, func(s *sealer) { s.selector = "nowhere" }))},
		{"fail-revoked", "want fail\nreason seal 1: key revoked\nwhy the key was withdrawn", sealed(with(s.a, func(s *sealer) { s.selector = "revoked" }))},
		{"fail-wrong-service", "want fail\nreason seal 1: key is not for email\nwhy s= of the key record", sealed(with(s.a, func(s *sealer) { s.selector = "web" }))},
		{"fail-other-key", "want fail\nreason seal 1: signature did not verify\nwhy the key is somebody else's", sealed(with(s.a, func(s *sealer) { s.selector = "other" }))},
		{"fail-key-algorithm", "want fail\nreason seal 1: key is for another algorithm\nwhy an Ed25519 key for an RSA signature", sealed(with(s.a, func(s *sealer) { s.selector = "ed" }))},
		{"fail-servfail", "want fail\ntemporary true\nreason seal 1: the DNS lookup of the key failed\nwhy the answer is unknown now", sealed(with(s.a, func(s *sealer) { s.selector = "down" }))},
		{"fail-old-servfail", "want fail\ntemporary true\nreason seal 1: the DNS lookup of the key failed\nwhy every seal must verify", sealed(with(s.a, func(s *sealer) { s.selector = "down" }), s.b)},
		{"fail-domain", "want fail\nreason ARC-Seal: d= is not a domain\nwhy a quote is no part of a name", broken(sealed(s.a), edit(fieldSeal, "a.example", "a.exa'mple"))},
		{"fail-control", "want fail\nreason ARC-Authentication-Results: control character\nwhy a NUL in the results", sealed(with(s.a, func(s *sealer) { s.results = "mx\x00; dmarc=pass" }))},
	}
}

func indexOf(m *mail, name string) int {
	for i, f := range m.fields {
		if f.Is(name) {
			return i
		}
	}
	return -1
}
