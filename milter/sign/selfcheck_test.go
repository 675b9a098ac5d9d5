package sign

import (
	"crypto"
	"io"
	"strings"
	"testing"
)

// wrongSigner makes signatures of another digest.
type wrongSigner struct{ crypto.Signer }

func (w wrongSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest = append([]byte(nil), digest...)
	digest[0]++
	return w.Signer.Sign(random, digest, opts)
}

// New signatures are verified. One that does not verify is an error, and the mail is
// still sent.
func TestSelfCheck(t *testing.T) {
	keys := bothKeys(t)
	s := New(Options{SelfCheck: true}, keys)
	for _, body := range bodies() {
		if r := sign(t, s, fields(plainHeader), body); !r.Checked || r.CheckErr != nil || len(r.Fields) != 2 {
			t.Errorf("%.20q: checked %t, %v", body, r.Checked, r.CheckErr)
		}
	}
	if r := sign(t, New(Options{}, keys), fields(plainHeader), ""); r.Checked {
		t.Error("checked without being asked")
	}
	first := signed(t, sign(t, s, fields(plainHeader), "one\r\n"), 2)
	again := sign(t, s, append(first.Fields, fields(plainHeader)...), "another\r\n")
	if len(again.Fields) != 2 || again.CheckErr != nil {
		t.Errorf("with older signatures that fail: %d, %v", len(again.Fields), again.CheckErr)
	}
	keys.byDomain["example.com"][0].Signer = wrongSigner{keys.byDomain["example.com"][0].Signer}
	r := sign(t, s, fields(plainHeader), "x\r\n")
	if len(r.Fields) != 2 || r.CheckErr == nil || strings.Count(r.CheckErr.Error(), "does not verify") != 1 || r.Err == nil {
		t.Errorf("a signer that is wrong: %d fields, %v", len(r.Fields), r.CheckErr)
	}
}
