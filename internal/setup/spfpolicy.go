package setup

import (
	"cmp"
	"strings"
)

var policydSPFConfs = []string{"/etc/postfix-policyd-spf-python/policyd-spf.conf", "/etc/python-policyd-spf/policyd-spf.conf"}

func isPolicydSPF(o *Options, socket string) bool {
	return socket == "unix:private/spf" || socketIs("policyd-spf", "policy-spf", "spfpolicy", "spf-policy")(o, socket)
}

// carryPolicydSPF carries over what policyd-spf refuses and whom it trusts.
func carryPolicydSPF(p *planner) {
	var own options
	for _, conf := range policydSPFConfs {
		if p.exists(conf) {
			own = parseOptions(p.read(conf), "=")
		}
	}
	testOnly := own.get("TestOnly", "defaultSeedOnly") == "0"
	refuses := strings.ToLower(own.get("Mail_From_reject"))
	if (refuses == "" || refuses == "fail" || refuses == "softfail" || refuses == "spf_not_pass") && !testOnly {
		p.milterd.set("spf-reject", "fail")
		if peer := p.peer("policyd-spf"); !peer.judgesHosts { // the milter sees what permit_mynetworks permits
			p.trust(p.strangeHosts())
		}
	}
	if refuses == "softfail" || refuses == "spf_not_pass" {
		p.cannot("policyd-spf: Mail_From_reject = %s; mail is refused on SPF fail only", own.get("Mail_From_reject"))
	}
	helo := cmp.Or(own.get("HELO_reject"), "Fail") // its default
	if !strings.EqualFold(helo, "false") && !strings.EqualFold(helo, "null") && !testOnly {
		p.cannot("policyd-spf: HELO_reject = %s; what HELO says is judged for the null sender only", helo)
	}
	if kind := strings.ToUpper(own.get("Header_Type")); (kind == "" || kind == "SPF") && !p.plan.Shadow {
		p.milterd.set("received-spf", "true")
	}
	for _, name := range []string{"PermError_reject", "TempError_Defer"} {
		if own.yes(name) {
			p.cannot("policyd-spf: %s = %s", name, own.get(name))
		}
	}
	for _, name := range []string{"Domain_Whitelist", "Domain_Whitelist_PTR", "HELO_Whitelist", "Reject_Not_Pass_Domains", "HELO_pass_restriction", "Mail_From_pass_restriction", "No_Mail", "Authserv_Id", "Reason_Message"} {
		if value := own.get(name); value != "" && !strings.EqualFold(value, "false") {
			p.cannot("policyd-spf: %s = %s", name, value)
		}
	}
	p.trust(strings.FieldsFunc(own.get("Whitelist")+","+own.get("skip_addresses"), func(r rune) bool { return r == ',' || r == ' ' }))
}
