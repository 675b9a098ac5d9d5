package dmarc

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/postern-mail/postern/internal/resolver"
)

// zone is DNS for tests: TXT records and the names that fail. Other names that
// exist are there with an empty record set.
type zone struct {
	txt    map[string][]string
	broken map[string]string // SERVFAIL, TIMEOUT, REFUSED, WRAPPED, CNAMELOOP
	asked  []string
}

func newZone() *zone {
	return &zone{txt: map[string][]string{}, broken: map[string]string{}}
}

// add puts a record of type TXT, makes a name exist with any other type, or
// breaks it.
func (z *zone) add(name, qtype, value string) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	switch qtype {
	case "TXT":
		z.txt[name] = append(z.txt[name], value)
	case "SERVFAIL", "TIMEOUT", "REFUSED", "WRAPPED", "CNAMELOOP":
		z.broken[name] = qtype
	default:
		z.txt[name] = append([]string{}, z.txt[name]...)
	}
}

func (z *zone) LookupTXT(ctx context.Context, name string) ([]string, error) {
	z.asked = append(z.asked, name)
	if !strings.HasSuffix(name, ".") {
		return nil, fmt.Errorf("name %q is not absolute", name)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key := strings.ToLower(strings.TrimSuffix(name, "."))
	if how := z.broken[key]; how != "" {
		return nil, failure(name, how)
	}
	if got := z.txt[key]; len(got) > 0 {
		return got, nil
	}
	return nil, &net.DNSError{Err: "no such record", Name: name, IsNotFound: true}
}

func failure(name, how string) error {
	switch how {
	case "TIMEOUT":
		return &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
	case "SERVFAIL", "CNAMELOOP":
		return &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	case "WRAPPED":
		return fmt.Errorf("resolver: %w", &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true})
	}
	return &net.DNSError{Err: strings.ToLower(how), Name: name} // neither temporary nor absent
}

// fullZone is a zone that is a Querier too.
type fullZone struct{ *zone }

func (z fullZone) Query(ctx context.Context, name string, _ uint16) (resolver.Answer, error) {
	texts, err := z.LookupTXT(ctx, name)
	answer := resolver.Answer{TXT: texts, Name: name}
	if err != nil && !resolver.IsAbsent(err) {
		return resolver.Answer{}, err
	}
	if len(texts) == 0 {
		answer.Status = resolver.StatusNXDomain
		key := strings.ToLower(strings.TrimSuffix(name, "."))
		for exists := range z.txt {
			if isBelow(exists, key) {
				answer.Status = resolver.StatusNoData
			}
		}
	}
	return answer, nil
}
