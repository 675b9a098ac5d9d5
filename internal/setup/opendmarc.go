package setup

import (
	"strings"
)

const openDMARCConf = "/etc/opendmarc.conf"

func isOpenDMARC(o *Options, socket string) bool {
	if socketIs("inet:127.0.0.1:8893", "opendmarc")(o, socket) {
		return true
	}
	return sameSocket(parseOptions(o.text(openDMARCConf), "").get("Socket"), socket) || sameSocket(shellVariable(o.text("/etc/default/opendmarc"), "SOCKET"), socket)
}

// carryOpenDMARC carries over what OpenDMARC refuses and which hosts it ignores.
func carryOpenDMARC(p *planner) {
	own := parseOptions(p.read(openDMARCConf), "")
	if own.yes("RejectFailures") {
		p.milterd.set("dmarc-enforce", "strict")
		p.warn("OpenDMARC refuses whatever fails under p=reject, mail of lists and forwarders too, and so will Postern; dmarc-enforce = \"evidence\" refuses what is forged (milter/DMARC.md)")
	}
	if id := own.get("AuthservID"); id != "" && !strings.EqualFold(id, "HOSTNAME") {
		p.milterd.set("authserv-id", id)
	}
	if own.yes("HoldQuarantinedMessages") {
		p.milterd.set("dmarc-quarantine", "hold")
	}
	if id := own.get("TrustedAuthservIDs"); strings.EqualFold(id, "HOSTNAME") || id == p.value("myhostname") {
		delete(own, "trustedauthservids")
	}
	p.cannotAll("OpenDMARC", own, openDMARCLeft)
	if list := own.get("IgnoreHosts"); list != "" {
		p.trust(entries(p.read(list)))
	}
	p.retire("opendmarc")
}

// openDMARCLeft are the settings of OpenDMARC that decide about mail and are not carried
// over. milter/DMARC.md says of the others why none is needed.
var openDMARCLeft = []left{
	{"HistoryFile", "nothing is added to it any more, so opendmarc-import and opendmarc-reports have nothing to report; report-store has Postern report (milter/REPORTS.md)"},
	{"FailureReports", noFailureReports}, {"FailureReportsBcc", noFailureReports}, {"FailureReportsOnNone", noFailureReports},
	{"FailureReportsSentBy", noFailureReports}, {"CopyFailuresTo", noFailureReports},
	{"RequiredHeaders", "mail is not refused for its header alone"},
	{"RejectMultiValueFrom", "each domain of From is judged, and the strictest verdict counts"},
	{"IgnoreMailFrom", "write the domains into a file, one a line, and name that in dmarc-allow"},
	{"DomainWhitelist", "write the domains into a file, one a line, and name that in trusted-arc-sealers"},
	{"DomainWhitelistFile", "name a file with the domains, one a line, in trusted-arc-sealers"},
	{"TrustedAuthservIDs", "no Authentication-Results of others are trusted; name the hosts that verify in front of this one in trusted-relays"},
}

const noFailureReports = "failures are not reported one by one; postern log --reason 'dmarc_*' shows them"
