package doctor

import (
	"context"
	"fmt"
)

// check is one of doctor's checks.
type check struct {
	name  string
	about string // for the manual
	run   func(context.Context, *Facts) []Finding
}

// allChecks returns all checks. What everything depends on comes first; then the order
// is that in which a mail passes through Postfix.
func allChecks() []check {
	return []check{
		{"postfix", "postconf can read Postfix's settings; parameters that are misspelt", checkPostfix},
		{"daemons", "both daemons are installed and run, with the settings that are configured", checkDaemons},
		{"settings", "each daemon's own check of its settings, with its rights: tables, keys, secrets, stores", checkSettings},
		{"units", "systemd: enabled, active, not failed, and what the sandbox hides", checkUnits},
		{"versions", "the command, the programs and the processes are of one release", checkVersions},
		{"attached", "what Postfix asks is where the daemons listen, and speaks the right protocol", checkAttached},
		{"sockets", "smtpd and cleanup reach the sockets: chroot, folders, permissions", checkSockets},
		{"context", "policy_context names checks that run, in braces where there are several", checkContext},
		{"ownership", "every service that takes logins asks for ownership, and before anything permits", checkOwnership},
		{"limit", "limits of logins are asked for where users log in, and at the end of the mail", checkLimit},
		{"order", "the hooks of the internet's mail come after what Postfix decides by itself, and are reached", checkOrder},
		{"delay", "the checks are asked neither before they have what they need (smtpd_delay_reject) nor too late", checkDelay},
		{"twice", "no second greylist, no list asked twice, no second signer", checkTwice},
		{"signing", "users' mail and that of this machine comes in at a socket that signs, the internet's at none; Postfix does not change what was signed", checkSigning},
		{"from", "with from-ownership: milterd sees the mail of every service that takes logins, and has policyd's tables of owners", checkFrom},
		{"actions", "what Postfix does while a daemon is away", checkActions},
		{"macros", "milter protocol and macros", checkMacros},
		{"postscreen", "postscreen does not ask the same lists or delay once more", checkPostscreen},
		{"proxy-filter", "what does not work in front of smtpd_proxy_filter and behind content_filter", checkFilters},
		{"clients", "Postfix sees the clients' addresses, not those of a proxy or of NAT; own hosts and backup MX hosts are not taken for strangers", checkClients},
		{"bounds", "Postfix opens no more connections, and waits no less, than the daemons allow for", checkBounds},
		{"resolver", "the DNS servers answer, are not shared with strangers, and validate DNSSEC", checkResolver},
		{"lists", "the DNS lists answer their test points; the key of the Data Query Service", checkLists},
		{"stores", "the stores of the greylist, of limits and of DMARC reports, and the Redis of rotations: reachable, version, latency, and whether they keep what is new and evict nothing", checkStores},
		{"hosts", "the hosts that share a Redis have the same settings and release, names of their own, and clocks that agree", checkHosts},
		{"keys", "the signing keys are in the DNS, and their rotation goes on", checkKeys},
		{"domains", "SPF and DMARC of the domains that are signed, which of them ask for no reports, and whether other organizations in their rua agree to get them", checkDomains},
		{"reports", "what is missing to send DMARC reports, when they are counted", checkReports},
		{"queue", "what lies in Postfix's hold queue, and how long", checkQueue},
		{"clock", "the clock is kept right", checkClock},
	}
}

func okf(format string, args ...any) Finding {
	return Finding{Level: OK, Text: fmt.Sprintf(format, args...)}
}

// warnf returns a finding for what works but should be changed.
func warnf(fix, format string, args ...any) Finding {
	return Finding{Level: Warn, Fix: fix, Text: fmt.Sprintf(format, args...)}
}

// failf returns a finding for what does not work, or does not work as intended.
func failf(fix, format string, args ...any) Finding {
	return Finding{Level: Fail, Fix: fix, Text: fmt.Sprintf(format, args...)}
}

// orOK returns found, or one good finding if it is empty.
func orOK(found []Finding, format string, args ...any) []Finding {
	if len(found) > 0 {
		return found
	}
	return []Finding{okf(format, args...)}
}
