package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/dmarc"
)

// Enforcement is the value of --dmarc-enforce: a column of the table.
type Enforcement string

// The columns.
const (
	EnforceOff        Enforcement = "off"
	EnforceQuarantine Enforcement = "quarantine"
	EnforceEvidence   Enforcement = "evidence"
	EnforceStrict     Enforcement = "strict"
)

// Enforcements lists the columns in the order of the table.
func Enforcements() []Enforcement {
	return []Enforcement{EnforceOff, EnforceQuarantine, EnforceEvidence, EnforceStrict}
}

// Action is what happens to the mail: the disposition of RFC 9990.
type Action string

// The actions.
const (
	ActionNone       Action = "none"
	ActionPass       Action = "pass" // none, because DMARC passed
	ActionQuarantine Action = "quarantine"
	ActionReject     Action = "reject"
)

// Override is why the action differs from the published policy, with the names of RFC
// 9990.
type Override string

// The overrides.
const (
	OverrideLocalPolicy      Override = "local_policy"
	OverrideMailingList      Override = "mailing_list"
	OverrideOther            Override = "other"
	OverridePolicyTestMode   Override = "policy_test_mode"
	OverrideTrustedForwarder Override = "trusted_forwarder"
)

// SignalKind is a sign that a mail that failed was forged. The signs are independent
// of each other. An SPF failure is not a sign, because plain forwarding causes it
// too.
type SignalKind string

// The signals.
const (
	SignalReverseName SignalKind = "reverse_name" // the client's name is missing or does not lead back to it
	SignalHelo        SignalKind = "helo"         // the HELO name does not lead to the client
	SignalOurDomain   SignalKind = "our_domain"   // From has a domain that we sign for
	SignalBlockList   SignalKind = "block_list"   // the client is on a block list
)

// NeededSignals is how many distinct signals make evidence.
const NeededSignals = 2

// Situation is everything that the disposition depends on.
type Situation struct {
	Enforce Enforcement  // an unknown one counts as EnforceQuarantine
	Verdict dmarc.Result // of the Report

	Authenticated    bool // the client logged in
	Marked           bool // an earlier pass through our hosts marked it
	LocalAllow       bool // the administrator lets this mail through
	TrustedForwarder bool // the client is on the administrator's list of forwarders
	// TrustedSealer is set when a trusted sealer saw DMARC pass for the author
	// domain, and its ARC chain is valid.
	TrustedSealer bool
	// ListTraits and ForwarderTraits are set when the header looks like that of a
	// list (List-Id, List-Post) or of a forwarder (Sender, Resent-*). Any sender can
	// add such fields. So they only turn a rejection into a quarantine.
	ListTraits, ForwarderTraits bool
	Signals                     []SignalKind
}

// Rule is a row of the table. The first row that applies decides.
type Rule struct {
	Name string
	When string // in words
	// Actions are the actions by column, in the order of Enforcements.
	Actions  [4]Action
	Override Override // reported when the action is less than the policy
	Comment  string

	applies func(*Situation) bool
}

// Rules returns the table that decides what happens to a mail after DMARC.
func Rules() []Rule {
	const n, q, r = ActionNone, ActionQuarantine, ActionReject
	failed := func(policy dmarc.Policy) func(*Situation) bool {
		return func(s *Situation) bool { return s.Verdict.Status == dmarc.Fail && s.Verdict.Policy == policy }
	}
	rejected := failed(dmarc.PolicyReject)
	return []Rule{
		{"authenticated", "the client is authenticated", [4]Action{n, n, n, n}, "", "",
			func(s *Situation) bool { return s.Authenticated }},
		{"marked", "our own mark says that an earlier pass quarantined it", [4]Action{n, q, q, q}, OverrideLocalPolicy, "judged before",
			func(s *Situation) bool { return s.Marked }},
		{"pass", "DMARC passes", [4]Action{ActionPass, ActionPass, ActionPass, ActionPass}, "", "",
			func(s *Situation) bool { return s.Verdict.Status == dmarc.Pass }},
		{"no_policy", "no policy applies: no record, a broken one, or no domain in From", [4]Action{n, n, n, n}, "", "",
			func(s *Situation) bool { return s.Verdict.Status == dmarc.None || s.Verdict.Reason == dmarc.BadRecord }},
		{"temperror", "DNS lookup failed", [4]Action{n, n, n, n}, "", "",
			func(s *Situation) bool { return s.Verdict.Status == dmarc.TempError }},
		{"local_allow", "the administrator allows it", [4]Action{n, n, n, n}, OverrideLocalPolicy, "allowed locally",
			func(s *Situation) bool { return s.LocalAllow }},
		{"trusted_forwarder", "the client is a trusted forwarder", [4]Action{n, n, n, n}, OverrideTrustedForwarder, "",
			func(s *Situation) bool { return s.TrustedForwarder }},
		{"trusted_sealer", "a trusted ARC sealer saw DMARC pass", [4]Action{n, n, n, n}, OverrideLocalPolicy, "arc=pass",
			func(s *Situation) bool { return s.TrustedSealer }},
		{"from_unusable", "From cannot be judged: missing, broken, or too many domains", [4]Action{n, q, q, q}, "", "",
			func(s *Situation) bool { return s.Verdict.Status == dmarc.PermError }},
		{"policy_none", "fails, the policy is none", [4]Action{n, n, n, n}, "", "", failed(dmarc.PolicyNone)},
		{"policy_quarantine", "fails, the policy is quarantine", [4]Action{n, q, q, q}, OverrideLocalPolicy, "not enforced",
			failed(dmarc.PolicyQuarantine)},
		{"reject_list", "fails, the policy is reject, and the mail looks like a list's", [4]Action{n, q, q, r}, OverrideMailingList, "",
			func(s *Situation) bool { return rejected(s) && s.ListTraits }},
		{"reject_forwarded", "fails, the policy is reject, and the mail looks forwarded", [4]Action{n, q, q, r}, OverrideOther, "forwarded",
			func(s *Situation) bool { return rejected(s) && s.ForwarderTraits }},
		{"reject_evidence", "fails, the policy is reject, and two signals say forged",
			[4]Action{n, q, r, r}, OverrideLocalPolicy, "rejection not enforced",
			func(s *Situation) bool { return rejected(s) && s.evidence() >= NeededSignals }},
		{"reject", "fails, the policy is reject, and no row above applies", [4]Action{n, q, q, r}, OverrideLocalPolicy, "no rejection for the policy alone",
			rejected},
	}
}

// evidence counts the distinct signals.
func (s *Situation) evidence() int {
	n := 0
	for _, known := range []SignalKind{SignalReverseName, SignalHelo, SignalOurDomain, SignalBlockList} {
		if slices.Contains(s.Signals, known) {
			n++
		}
	}
	return n
}

// strictColumn is the column with the strongest action of a rule.
const strictColumn = 3

// Decide returns the disposition of the first row that applies.
func Decide(s Situation) Disposition {
	column := slices.Index(Enforcements(), s.Enforce)
	if column < 0 {
		column = slices.Index(Enforcements(), EnforceQuarantine)
	}
	for _, rule := range Rules() {
		if rule.applies(&s) {
			d := rule.disposition(rule.Actions[column], &s.Verdict)
			if s.Enforce == EnforceOff && d.Override != "" && rule.Actions[strictColumn] != ActionNone {
				d.Override, d.Comment = OverrideLocalPolicy, "not enforced"
			}
			return d
		}
	}
	// Every Status has a row; only a Result without a verdict has none.
	return Disposition{Action: ActionNone, Rule: "not_judged"}
}

// disposition adds the reason why the action differs from the published policy. If
// the domain is in test mode, that is the reason; otherwise the rule is.
func (r *Rule) disposition(a Action, v *dmarc.Result) Disposition {
	d := Disposition{Action: a, Rule: r.Name}
	switch {
	case v.Status != dmarc.Fail || a.strength() >= strength(v.Published):
	case v.TestMode && a.strength() == strength(v.Policy):
		d.Override = OverridePolicyTestMode
	case v.Sampled && a.strength() == strength(v.Policy):
		d.Override, d.Comment = OverrideOther, "sampled out by pct"
	default:
		d.Override, d.Comment = r.Override, r.Comment
	}
	return d
}

func (a Action) strength() int {
	return slices.Index([]Action{ActionQuarantine, ActionReject}, a)
}

func strength(p dmarc.Policy) int { return Action(p).strength() }

// Table returns the rules in Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| rule | when |")
	for _, e := range Enforcements() {
		fmt.Fprintf(&b, " `%s` |", e)
	}
	b.WriteString(" override |\n|---|---|" + strings.Repeat("---|", len(Enforcements())+1) + "\n")
	for _, r := range Rules() {
		fmt.Fprintf(&b, "| `%s` | %s |", r.Name, r.When)
		for _, a := range r.Actions {
			fmt.Fprintf(&b, " %s |", a)
		}
		fmt.Fprintf(&b, " %s |\n", r.overrideText())
	}
	return b.String()
}

func (r *Rule) overrideText() string {
	switch {
	case r.Override == "":
		return "–"
	case r.Comment == "":
		return "`" + string(r.Override) + "`"
	}
	return "`" + string(r.Override) + "` (" + r.Comment + ")"
}
