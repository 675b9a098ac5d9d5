package dmarc

import (
	"cmp"
	"context"
	"slices"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/spf"
)

// Signature is the DKIM result for one signature.
type Signature struct {
	Domain string // d=
	Status SignatureStatus
}

// SignatureStatus is the part of a DKIM result that alignment depends on.
type SignatureStatus uint8

// The zero status means that the signature did not pass, and that there was no
// temporary error. Such a signature does not count.
const (
	SignatureOther SignatureStatus = iota
	SignaturePass
	SignatureTempError
)

// Identifier is a domain for which SPF or DKIM has a result. It is compared
// with the author domain.
type Identifier struct {
	Mechanism string // "spf" or "dkim"
	Domain    string
	Passed    bool // if false, there was a temporary error, so a later try may pass
	Strict    bool // the record asks for identical domains
	Aligned   bool
	Org       string // organizational domain, "" if it was not needed
	Err       error  // the DNS did not answer, so it is not known whether it is aligned
}

// identifiers returns the domains that count, each once for each mechanism.
// SPF comes before DKIM, and a pass before a temporary error; otherwise they
// are in the order of the message.
func identifiers(result spf.MailFromResult, signatures []Signature) []Identifier {
	var list []Identifier
	switch result.Status {
	case spf.Pass, spf.TempError:
		list = addIdentifier(list, "spf", result.Domain, result.Status == spf.Pass)
	}
	for _, s := range signatures {
		if s.Status != SignatureOther {
			list = addIdentifier(list, "dkim", s.Domain, s.Status == SignaturePass)
		}
	}
	slices.SortStableFunc(list, func(a, b Identifier) int {
		return cmp.Or(-cmp.Compare(a.Mechanism, b.Mechanism), compareBool(b.Passed, a.Passed))
	})
	return list[:min(len(list), MaxIdentifiers)]
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func addIdentifier(list []Identifier, mechanism, text string, passed bool) []Identifier {
	domain, err := mailaddr.ParseDomain(text)
	if err != nil || len(list) > 4*MaxIdentifiers {
		return list
	}
	for i := range list {
		if list[i].Mechanism == mechanism && list[i].Domain == domain {
			list[i].Passed = list[i].Passed || passed
			return list
		}
	}
	return append(list, Identifier{Mechanism: mechanism, Domain: domain, Passed: passed})
}

// aligner compares identifiers with one author domain.
type aligner struct {
	*finder
	method Method
	author string
	record *Record
	walk   *Walk // of the author domain, made when first used
	walks  []Walk
}

// align decides whether one identifier is aligned (RFC 9989 sections 4.4 and
// 4.10.2). It makes a walk only if the result depends on it. Identical
// domains, strict alignment, and domains outside of the author's organization
// need no walk.
func (a *aligner) align(ctx context.Context, id *Identifier) {
	id.Strict = a.record.StrictDKIM
	if id.Mechanism == "spf" {
		id.Strict = a.record.StrictSPF
	}
	switch {
	case id.Domain == a.author:
		id.Aligned = true
	case id.Strict, !sameTop(id.Domain, a.author):
	case a.method == MethodPSL:
		id.Org = PSLOrg(id.Domain)
		id.Aligned = id.Org == PSLOrg(a.author)
	default:
		id.Org, id.Aligned, id.Err = a.alignByWalk(ctx, id.Domain)
	}
}

// alignByWalk compares organizational domains. An organizational domain is the
// domain itself or one above it. So only domains below the author's
// organizational domain can have the same one, and only for those a walk is
// made.
func (a *aligner) alignByWalk(ctx context.Context, domain string) (org string, aligned bool, err error) {
	if a.walk == nil {
		w := a.finder.walk(ctx, a.author)
		a.walk = &w
	}
	if a.walk.Err != nil {
		return "", false, a.walk.Err
	}
	if !isBelow(domain, a.walk.Org) {
		return "", false, nil
	}
	w := a.finder.walk(ctx, domain)
	a.walks = append(a.walks, w)
	return w.Org, w.Err == nil && w.Org == a.walk.Org, w.Err
}

// sameTop reports whether two domains have the same last label. If not, they
// cannot belong to one organization, whatever the DNS says.
func sameTop(a, b string) bool {
	return lastLabel(a) == lastLabel(b)
}

func lastLabel(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return name
}
