package e2e

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"path/filepath"

	"github.com/postern-mail/postern/internal/postfixtest"
)

// ReportedRow is a row of a DMARC report.
type ReportedRow struct {
	Source      string   `xml:"row>source_ip"`
	Count       int      `xml:"row>count"`
	Disposition string   `xml:"row>policy_evaluated>disposition"`
	DKIM        string   `xml:"row>policy_evaluated>dkim"`
	SPF         string   `xml:"row>policy_evaluated>spf"`
	Reasons     []string `xml:"row>policy_evaluated>reason>type"`
}

// reportedRows is a DMARC report.
type reportedRows struct {
	Rows []ReportedRow `xml:"record"`
}

// PreviewReport sends mails in the bank's name. It returns the rows of the report about
// them, and the address that the report goes to.
func (s *Site) PreviewReport(ctx context.Context) (rows []ReportedRow, to string, err error) {
	flags := []string{"--report-store=sqlite:" + filepath.Join(s.Dir, "reports.db"), "--report-from=reports@" + homeDomain}
	if err := s.milterdWith(ctx, flags); err != nil {
		return nil, "", err
	}
	own, spoof := DMARCCases()[0].Mail, DMARCCases()[1].Mail
	for _, m := range []postfixtest.Mail{own, own, spoof} {
		if _, err := s.Postfix.Send(ctx, postfixtest.MX, m); err != nil {
			return nil, "", err
		}
		if _, err := s.Postfix.Delivered(ctx, m.To[0]); err != nil { // a later mail would find this delivery
			return nil, "", err
		}
	}
	admin := "--admin=unix:" + filepath.Join(s.Dir, "milterd.sock")
	text, err := s.Postern(ctx, "dmarc", "report", "preview", "bank.example", admin)
	if err != nil {
		return nil, "", err
	}
	var report reportedRows
	if err := xml.Unmarshal([]byte(text), &report); err != nil {
		return nil, "", fmt.Errorf("%w in %s", err, text)
	}
	text, err = s.Postern(ctx, "dmarc", "report", "preview", "bank.example", admin, "--json")
	if err != nil {
		return nil, "", err
	}
	var known struct {
		Deliveries []struct{ To string }
	}
	if err := json.Unmarshal([]byte(text), &known); err != nil || len(known.Deliveries) != 1 {
		return nil, "", fmt.Errorf("no one address in %s: %w", text, err)
	}
	return report.Rows, known.Deliveries[0].To, nil
}
