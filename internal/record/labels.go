package record

import "slices"

// Labels are what decisions are counted by. Empty fields read "none", an empty
// mode "enforce", as in the record.
type Labels struct {
	Check   string
	Verdict string
	Reason  Reason
	Mode    string
}

// Labels returns those of r.
func (r *Record) Labels() Labels { return Labels{r.Check, r.Verdict, r.Reason, r.Mode} }

// The words of Record.Verdict.
const (
	pass     = "pass"
	deferral = "defer"
	reject   = "reject"
	failed   = "error"
)

// objects reports whether a verdict interferes with mail.
func objects(verdict string) bool { return verdict == deferral || verdict == reject }

// use is a reason with the verdicts that a check gives it with.
type use struct {
	reason   Reason
	verdicts []string
}

func with(verdict string, reasons ...Reason) (uses []use) {
	for _, r := range reasons {
		uses = append(uses, use{r, []string{verdict}})
	}
	return uses
}

// uses is every reason by the check whose decisions it explains, "" for
// decisions of no check. Reasons that are only found in steps are not here: they
// are counted nowhere.
func uses(check string) []use {
	switch check {
	case "":
		return slices.Concat(with(pass, NotApplicable, NoChecks), with(deferral, CheckFailed), with(failed, BadRequest, Panicked, ConnectionLost))
	case "policy_context":
		return []use{{UnknownHook, []string{pass, deferral}}}
	case "ownership":
		return slices.Concat(couldNotTell(OwnerLookupFailed), with(pass, OwnerOwned, OwnerOwnedByAlias, OwnerSelf, OwnerExempt),
			with(reject, OwnerNotOwned, OwnerNotLoggedIn, OwnerSenderNotAddress, OwnerSenderUnclear),
			[]use{{OwnerUnlisted, []string{pass, reject}}, {OwnerNullSender, []string{pass, reject}}})
	case "dnsbl":
		return slices.Concat(couldNotTell(DNSBLUnavailable), with(pass, DNSBLClean, DNSBLBelowThreshold, DNSBLAllowed),
			with(reject, DNSBLClientListed, DNSBLSenderListed, DNSBLHeloListed, DNSBLNameListed))
	case "greylist":
		return slices.Concat(couldNotTell(GreylistUnavailable),
			with(pass, GreylistWaited, GreylistKnown, GreylistAutoAllowed, GreylistAllowedByHand, GreylistNotSuspicious),
			with(deferral, GreylistNew, GreylistEarly, GreylistFloodNetwork, GreylistFlood))
	case "sign":
		return slices.Concat(with(failed, CheckFailed, DeadlineSpent, ConnectionLost, BadRequest), with(reject, HeaderTooLarge), with(deferral, HeaderNoRoom),
			with(pass, Signed, SignNoFrom, SignSeveralFrom, SignBadFrom, SignSeveralDomains, SignNoKey, SignAlreadySigned, SignFailed, SignMarked))
	case "verify":
		return slices.Concat(with(failed, CheckFailed, DeadlineSpent, ConnectionLost, BadRequest), with(deferral, HeaderNoRoom), with(reject, HeaderTooLarge, SPFFailed, DMARCRejected, TooManyResults),
			with(pass, Verified, VerifyUnsure, DMARCQuarantined, VerdictKept))
	}
	return nil
}

// couldNotTell are the reasons of a check that could not tell, whose rule decides.
func couldNotTell(own Reason) []use {
	var all []use
	for _, r := range []Reason{own, CheckFailed, DeadlineSpent} {
		all = append(all, use{r, []string{pass, deferral}})
	}
	return all
}

// Known returns the labels that decisions of a check can have, so that they can
// be counted from 0 on. When the check is only watched, its objections have the
// mode of the shadow.
func Known(check string, shadowed bool) []Labels {
	var all []Labels
	for _, u := range uses(check) {
		for _, verdict := range u.verdicts {
			l := Labels{check, verdict, u.reason, ModeEnforce}
			if shadowed && (objects(verdict) || u.reason == DMARCQuarantined) {
				l.Mode = ModeShadow
			}
			all = append(all, l)
		}
	}
	return all
}
