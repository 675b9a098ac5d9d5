package doctor

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/postern-mail/postern/internal/daemon"
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
	keys, _ := f.loaded() // the keys check reports an error
	signer := sign.New(sign.Options{Tables: f.tables, Subdomains: f.signsSubdomains()}, keys)
	switch reason, err := signer.Refusal(ctx, from); {
	case f.tablesErr != nil: // so does the keys check
	case err != nil:
		found = append(found, warnf("look at dkim-key-table and dkim-signing-table", "it is not known whether reports from %s can be signed: %v", from, err))
	case reason != "":
		domain := mailaddr.Parse(from).Domain
		found = append(found, failf(fmt.Sprintf("postern dkim genkey %s, or set report-from to a domain that has a key", domain), "report-from is %s, and there is no DKIM key for %s: no report is sent", from, domain))
	}
	if f.Postfix != nil && !strings.Contains(f.Postfix.Params["recipient_delimiter"], "+") {
		found = append(found, warnf("postconf -e 'recipient_delimiter = +'", "recipient_delimiter is %q: reports that come back do not reach %s", f.Postfix.Params["recipient_delimiter"], from))
	}
	units := readUnits(ctx, []string{reportTimer, reportService})
	found = append(found, sendsReports(units[0])...)
	found = append(found, mayAsk(ctx, units[1], f.Milterd)...)
	return orOK(found, "DMARC reports can be sent")
}

// The units that send reports.
const (
	reportTimer   = "postern-report.timer"
	reportService = "postern-report.service"
)

// sendsReports looks whether the command that sends reports is started regularly.
func sendsReports(timer Unit) []Finding {
	if !timer.known() || timer.active() {
		return nil // without systemd, something else starts the command
	}
	return []Finding{warnf("systemctl enable --now "+reportTimer, "nothing sends the DMARC reports that are counted: %s is not active", reportTimer)}
}

// mayAsk connects to the daemon's admin socket with the rights that systemd gives the
// command that sends reports.
func mayAsk(ctx context.Context, service Unit, d *Daemon) []Finding {
	if !service.known() || !d.Running || d.Identity == nil || d.client.Network == daemon.NetworkTCP || !isRoot() {
		return nil
	}
	id, err := unitIdentity(service)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, d.bounds.ask)
		defer cancel()
		err = connects(ctx, id, place{daemon.NetworkUnix, d.client.Path})
	}
	if err == nil {
		return nil
	}
	user, group, _ := strings.Cut(d.Identity.Name, ":")
	if d.Unit.known() {
		user, group = d.Unit.Properties["User"], d.Unit.Properties["Group"]
	}
	return []Finding{failf(fmt.Sprintf("systemctl edit %s, and add [Service] User=%s and Group=%s", reportService, user, cmp.Or(group, user)),
		"%s, as user %s, may not ask %s: %v: no report is sent", reportService, service.Properties["User"], d.Name, err)}
}
