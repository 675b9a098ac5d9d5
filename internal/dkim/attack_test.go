package dkim

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	reader "github.com/postern-mail/postern/internal/golden"
	"github.com/postern-mail/postern/internal/resolver/resolvertest"
)

// FuzzVerify reads whole messages. Nothing may panic, and a message of which
// an octet that counts was changed may not pass; the seeds make that likely to
// be tried.
func FuzzVerify(f *testing.F) {
	for _, c := range goldenCases(f, "*") {
		f.Add(c.Sections["message"])
	}
	_, _, zone := golden(f, "pass-two")
	f.Fuzz(func(t *testing.T, message string) {
		r := bufio.NewReader(strings.NewReader(message))
		fields, err := reader.Header[Field](r)
		if err != nil {
			return
		}
		body, _ := io.ReadAll(r)
		v := &Verifier{Resolver: zone, Now: fixedNow}
		report := verify(t, v, fields, string(body))
		if len(report.Signatures) > DefaultMaxSignatures {
			t.Fatalf("%d signatures", len(report.Signatures))
		}
		for _, s := range report.Signatures {
			switch s.Status {
			case Pass, Fail, Policy, Neutral, TempError, PermError:
			default:
				t.Fatalf("status %q", s.Status)
			}
			if s.Status == Pass && len(fields) == 1 {
				t.Fatalf("a signature over nothing passes: %q", message)
			}
		}
	})
}

// keyOfBits is a record with an RSA key of a size that no one makes.
func keyOfBits(t testing.TB, bits uint) string {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	n.SetBit(n, 0, 1)
	der := x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: n, E: 65537})
	return "v=DKIM1; p=" + base64.StdEncoding.EncodeToString(der)
}

func TestHugeKey(t *testing.T) {
	fields, body, zone := golden(t, "pass-relaxed")
	for bits, want := range map[uint]string{16384: "RSA key over 4096 bit", 65536: "key record too long"} {
		zone.Remove("s1._domainkey.example.com")
		zone.Add("s1._domainkey.example.com", "TXT", keyOfBits(t, bits))
		if s := verify(t, &Verifier{Resolver: zone, Now: fixedNow}, fields, body).Signatures[0]; s.Reason != want {
			t.Errorf("%d bit: %s %s", bits, s.Status, s.Reason)
		}
	}
}

// The names of h= and the fields of the header do not multiply.
func attackHeader(names, fieldsOf int) []Field {
	signature := Field{FieldName, " v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1; h=from" +
		strings.Repeat(":x", names-1) + "; bh=" + strings.Repeat("A", 43) + "=; b=AAAA"}
	fields := []Field{signature, signature, signature, signature, signature, {"From", " a@example.com"}}
	for i := range fieldsOf {
		fields = append(fields, Field{"X", fmt.Sprintf(" %d", i)})
	}
	return fields
}

// cpu is the processor time that f takes, the best of three.
func cpu(t testing.TB, f func()) time.Duration {
	t.Helper()
	best := time.Duration(1<<63 - 1)
	for range 3 {
		var before, after syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
			t.Fatal(err)
		}
		f()
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Duration(after.Utime.Nano()-before.Utime.Nano()+after.Stime.Nano()-before.Stime.Nano()))
	}
	return best
}

// What an attacker can multiply is capped before it costs anything.
func TestAttackBounds(t *testing.T) {
	v := &Verifier{Resolver: tableOf(map[string][]string{"s1._domainkey.example.com": {"v=DKIM1; p="}}), Now: fixedNow}
	tests := []struct {
		names, fields int
		want          string
	}{
		{1000, 8000, "key revoked"},
		{8000, 8000, "too many names in h="},
		{1000, MaxFields, "too many header fields"},
	}
	for _, tt := range tests {
		report := verify(t, v, attackHeader(tt.names, tt.fields), "")
		if len(report.Signatures) != 5 || report.Signatures[0].Reason != tt.want {
			t.Errorf("%d names, %d fields: %s", tt.names, tt.fields, report.lines())
		}
	}
	if report := verify(t, v, manySignatures(100), ""); len(report.Signatures) != 5 || report.Skipped != 95 {
		t.Errorf("100 signatures: %d verified, %d skipped", len(report.Signatures), report.Skipped)
	}
}

// 50 MB of body allocate no more than 50 kB do.
func TestMemoryDoesNotGrow(t *testing.T) {
	fields, _, zone := golden(t, "pass-two")
	chunk := []byte(strings.Repeat(strings.Repeat("word  ", 12)+"\r\n", 900))
	allocated := func(chunks int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m := (&Verifier{Resolver: zone, Now: fixedNow}).Start(t.Context(), fields, "")
		for range chunks {
			m.Write(chunk)
		}
		m.Finish()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(1)
	if small, large := allocated(1), allocated(10<<20/len(chunk)); large > small+64<<10 {
		t.Errorf("%d octets allocated for 10 MB, %d for 64 kB", large, small)
	}
}

// BenchmarkAttacks shows that each attack costs in proportion to its size: the
// last column, per octet or field, stays where it is while the size doubles.
func BenchmarkAttacks(b *testing.B) {
	_, _, zone := golden(b, "pass-relaxed")
	v := &Verifier{Resolver: zone, Now: fixedNow}
	run := func(name string, size int, fields []Field, body string) {
		b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
			for b.Loop() {
				verify(b, v, fields, body)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/unit")
		})
	}
	for _, n := range []int{2000, 4000, 8000} {
		run("fields", n, attackHeader(1000, n), "")
	}
	for _, n := range []int{250, 500, 1000} {
		run("names", n, attackHeader(n, 8000), "")
	}
	simple, _, _ := golden(b, "pass-simple-simple")
	relaxed, _, _ := golden(b, "pass-relaxed")
	for _, n := range []int{1 << 20, 2 << 20, 4 << 20} {
		blank := strings.Repeat("\r\n", n/2)
		run("blank-simple", n, simple, blank)
		run("blank-simple-then-text", n, simple, blank+"x")
		run("blank-relaxed-then-text", n, relaxed, blank+"x")
		run("spaces-relaxed", n, relaxed, strings.Repeat(" ", n))
		run("pairs-relaxed", n, relaxed, strings.Repeat("a  ", n/3))
	}
	for _, n := range []int{25, 50, 100} {
		run("signatures", n, manySignatures(n), "x\r\n")
	}
}

func manySignatures(n int) []Field {
	var fields []Field
	for range n {
		fields = append(fields, attackHeader(1000, 0)[0])
	}
	return append(fields, Field{"From", " a@example.com"})
}

// threeSignatures is a header that three keys signed, and the zone of the keys.
func threeSignatures(b testing.TB, body string) ([]Field, *resolvertest.Table) {
	key := oracleKeys(b)["rsa2048"]
	zone := tableOf(nil)
	sum := sha256.Sum256(plainBody(Relaxed, []byte(body)))
	fields := []Field{{"From", " a@example.com"}}
	for i := range 3 {
		selector := fmt.Sprintf("s%d", i)
		zone.Add(selector+"._domainkey.example.com", "TXT", publicRecord(b, key))
		f := Field{FieldName, " v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=" + selector +
			"; h=from; bh=" + base64.StdEncoding.EncodeToString(sum[:]) + "; b="}
		data := AppendField(nil, Relaxed, Field{"From", " a@example.com"})
		data = append(data, strings.TrimSuffix(string(AppendField(nil, Relaxed, f)), crlf)...)
		digest := sha256.Sum256(data)
		signature, err := key.Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			b.Fatal(err)
		}
		f.Value += base64.StdEncoding.EncodeToString(signature)
		fields = append([]Field{f}, fields...)
	}
	return fields, zone
}

// BenchmarkVerify verifies a mail of 1 MB with three signatures and reports its
// processor time as a multiple of the floor: one SHA-256 pass over the body and
// three RSA checks, measured before and after in the same run.
func BenchmarkVerify(b *testing.B) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog, and goes home to sleep.\r\n", 1<<20/70)
	base64Text := strings.Repeat(strings.Repeat("QUJDREVG", 9)+"QUJD\r\n", 1<<20/78)
	for _, body := range []struct{ name, text string }{{"text", text}, {"base64", base64Text}} {
		b.Run(body.name, func(b *testing.B) { benchmarkVerify(b, body.text) })
	}
}

func benchmarkVerify(b *testing.B, body string) {
	const rounds = 20
	fields, zone := threeSignatures(b, body)
	v := &Verifier{Resolver: zone}
	data := []byte(body)
	m := v.Start(context.Background(), fields, "")
	m.Write(data)
	if report := m.Finish(); !slices.Equal(ours(report), []bool{true, true, true}) {
		b.Fatal(report.lines())
	}
	floor := func() time.Duration { return cpu(b, func() { floorOf(b, fields, zone, data, rounds) }) }
	before := floor()
	took := cpu(b, func() {
		for range rounds {
			m := v.Start(context.Background(), fields, "")
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 65535)
				m.Write(rest[:n])
				rest = rest[n:]
			}
			m.Finish()
		}
	})
	bottom := min(before, floor())
	for b.Loop() {
		m := v.Start(context.Background(), fields, "")
		m.Write(data)
		m.Finish()
	}
	b.ReportMetric(float64(took)/float64(bottom), "x-floor")
	b.ReportMetric(float64(bottom.Microseconds())/rounds, "floor-cpu-µs")
	b.ReportMetric(float64(took.Microseconds())/rounds, "cpu-µs")
}

func floorOf(b *testing.B, fields []Field, zone *resolvertest.Table, data []byte, rounds int) {
	records, err := zone.LookupTXT(b.Context(), "s0._domainkey.example.com")
	if err != nil {
		b.Fatal(err)
	}
	key, err := parseKey(records[0])
	if err != nil {
		b.Fatal(err)
	}
	p, _ := parseSignature(fields[0], 0)
	for range rounds {
		sum := sha256.Sum256(data)
		for range 3 {
			key.verify(sum, p.signature)
		}
	}
}
