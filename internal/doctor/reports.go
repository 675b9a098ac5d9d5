package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/milter/sign"
)

// checkReports looks at what is needed to send DMARC reports.
func checkReports(ctx context.Context, f *Facts) []Finding {
	store, from := f.Milterd.text("report-store"), f.Milterd.text("report-from")
	if store == "" {
		return []Finding{okf("no DMARC reports are sent (report-store is not set)")}
	}
	if from == "" {
		return []Finding{warnf(`set report-from = "dmarc-reports@DOMAIN" in milterd.toml, with a domain that has a DKIM key`, "DMARC results are counted, and no report can be sent: report-from is not set")}
	}
	var found []Finding
	domain := mailaddr.Parse(from).Domain
	keys, _ := f.keys() // the keys check reports an error
	if !slices.ContainsFunc(keys, func(k *sign.Key) bool { return k.Domain == domain }) {
		found = append(found, failf(fmt.Sprintf("postern dkim genkey %s, or set report-from to a domain that has a key", domain), "report-from is %s, and there is no DKIM key for %s: no report is sent", from, domain))
	}
	if f.Postfix != nil && !strings.Contains(f.Postfix.Params["recipient_delimiter"], "+") {
		found = append(found, warnf("postconf -e 'recipient_delimiter = +'", "recipient_delimiter is %q: reports that come back do not reach %s", f.Postfix.Params["recipient_delimiter"], from))
	}
	found = append(found, reportTimer(ctx)...)
	return orOK(found, "DMARC reports can be sent")
}

// reportTimer looks whether the command that sends reports is started regularly.
func reportTimer(ctx context.Context) []Finding {
	const timer = "postern-report.timer"
	u := readUnits(ctx, []string{timer})[0]
	if u.Properties["LoadState"] != "loaded" || u.Properties["ActiveState"] == "active" {
		return nil // without systemd, something else starts the command
	}
	return []Finding{warnf("systemctl enable --now "+timer, "nothing sends the DMARC reports that are counted: %s is not active", timer)}
}
