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
	for _, name := range []string{"HistoryFile", "FailureReports", "FailureReportsSentBy", "CopyFailuresTo", "RequiredHeaders", "RejectMultiValueFrom", "IgnoreMailFrom", "DomainWhitelist", "DomainWhitelistFile"} {
		if value := own.get(name); value != "" && !strings.EqualFold(value, "false") && !strings.EqualFold(value, "no") {
			p.cannot("OpenDMARC: %s %s", name, value)
		}
	}
	if list := own.get("IgnoreHosts"); list != "" {
		p.trust(entries(p.read(list)))
	}
	p.retire("opendmarc")
}
