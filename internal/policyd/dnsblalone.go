package policyd

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/postern-mail/postern/internal/admin/api"
	"github.com/postern-mail/postern/internal/metrics"
	"github.com/postern-mail/postern/internal/service"
	"github.com/postern-mail/postern/policy/checks"
)

// CheckDNSBL asks the lists about a subject, as the daemon with these arguments and
// environment would do once it has tested its lists. No daemon has to run. An error is
// about the settings.
func CheckDNSBL(ctx context.Context, args, environ []string, subject string) (out api.DNSBLCheckResult, err error) {
	err = withLists(args, environ, func(o *dnsblPart) error {
		if _, err := o.testLists(ctx); err != nil {
			return err
		}
		out = o.explain(ctx, subject)
		return nil
	})
	return out, err
}

// TestDNSBL tests the lists of the daemon with these arguments and environment.
func TestDNSBL(ctx context.Context, args, environ []string) (out api.DNSBLSelfTestResult, err error) {
	err = withLists(args, environ, func(o *dnsblPart) error {
		out, err = o.testLists(ctx)
		return err
	})
	return out, err
}

// withLists builds the dnsbl check and nothing else.
func withLists(args, environ []string, use func(*dnsblPart) error) error {
	s, err := configure(args, environ)
	if err != nil {
		return err
	}
	if !s.runs(checks.DNSBLName) {
		return errors.New("the dnsbl check does not run: add dnsbl to checks")
	}
	life := service.NewLife()
	defer life.Discard()
	n := &needs{
		Runtime: service.NewRuntime(zap.NewNop(), metrics.New(metrics.Options{})),
		life:    life, set: s.set, options: &s.Options,
	}
	for _, room := range s.rooms {
		if o, ok := room.part.(*dnsblPart); ok {
			if _, err := o.build(n); err != nil {
				return err
			}
			return use(o)
		}
	}
	return nil
}
