package sign

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-mail/postern/internal/dkim"
)

// selfCheck verifies signatures before the mail leaves, as a receiver would: it has
// its own body hash, and the verifier reads the header.
type selfCheck struct {
	fields []dkim.Field // of the mail, without earlier signatures
	body   dkim.Bodies
}

func newSelfCheck(fields []dkim.Field) *selfCheck {
	c := &selfCheck{fields: slices.DeleteFunc(slices.Clone(fields), func(f dkim.Field) bool { return f.Is(dkim.FieldName) })}
	c.body.Want(dkim.Relaxed)
	return c
}

// verifyOwn verifies the new signatures, if Options.SelfCheck is set.
func (m *Message) verifyOwn() {
	if m.check == nil || len(m.result.Fields) == 0 {
		return
	}
	m.result.Checked = true
	if m.result.CheckErr = m.check.verify(m); m.result.CheckErr != nil {
		m.result.Err = errors.Join(m.result.Err, m.result.CheckErr)
	}
}

// verify returns an error that names the signatures that do not verify.
func (c *selfCheck) verify(m *Message) error {
	verifier := dkim.Verifier{Resolver: newOwnKeys(m.keys), Now: m.options.Now, MaxSignatures: MaxKeysPerDomain}
	// The keys are known, so this does not wait.
	report := verifier.Start(context.Background(), slices.Concat(m.result.Fields, c.fields), m.result.Domain).FinishWith(c.body.Sums())
	var errs []error
	for i := range report.Signatures {
		if s := &report.Signatures[i]; s.Status != dkim.Pass {
			errs = append(errs, fmt.Errorf("the signature of %s does not verify: %s; report this, and try rsa-engine = \"go\"", nameOf(s.Domain, s.Selector), s.Reason))
		}
	}
	if len(report.Signatures) != len(m.result.Fields) {
		errs = append(errs, fmt.Errorf("%d of %d signatures were verified", len(report.Signatures), len(m.result.Fields)))
	}
	return errors.Join(errs...)
}
