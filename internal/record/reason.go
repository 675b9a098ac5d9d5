package record

import "slices"

// Reason is why a decision was made: a stable token, the key "reason" of the
// record and a label of the counter of decisions. All reasons are in this file,
// so that they can be read at once. The function vocabulary has the checks and
// verdicts with which each is used.
type Reason string

// Reasons that any check may have.
const (
	NotApplicable Reason = "not_applicable" // the check does not apply to this request
	CheckFailed   Reason = "check_failed"   // a check could not decide (see error)
	DeadlineSpent Reason = "deadline_spent" // a check could not decide in its time
	NoChecks      Reason = "no_checks"      // no check applies to this hook
	UnknownHook   Reason = "unknown_policy_context"
	UnknownState  Reason = "unknown_protocol_state"
	BadRequest    Reason = "bad_request" // the request broke the protocol; the connection was closed
	Panicked      Reason = "panicked"    // a defect of ours; the connection was closed
)

// Reasons of the ownership check.
const (
	OwnerOwned            Reason = "owned"
	OwnerOwnedByAlias     Reason = "owned_by_alias"
	OwnerSelf             Reason = "owned_by_login"  // the sender is the login's own address
	OwnerExempt           Reason = "owner_exempt"    // the login is listed in --owner-exempt
	OwnerNotOwned         Reason = "not_owned"       // the sender has owners, but the login is not one of them
	OwnerUnlisted         Reason = "sender_unlisted" // no map lists the sender
	OwnerNotLoggedIn      Reason = "not_logged_in"   // an owned sender, used without login
	OwnerNullSender       Reason = "null_sender"
	OwnerUnauthenticated  Reason = "unauthenticated" // no login: nothing to compare
	OwnerLookupFailed     Reason = "owners_unavailable"
	OwnerSenderNotAddress Reason = "sender_not_an_address"
	OwnerSenderUnclear    Reason = "sender_unclear" // what Postfix makes of the sender cannot be determined
)

// Reasons of the From ownership check, beside those of the ownership check.
const (
	FromNotOwned   Reason = "from_not_owned"  // an address of From, Sender or the like is not the login's
	FromRedirected Reason = "from_redirected" // the same in a mail that a login resends under its own Resent-From
	FromSeveral    Reason = "from_several"    // several From fields
	FromUnreadable Reason = "from_unreadable" // an address that not every reader takes for the same
	FromDisplay    Reason = "from_display"    // a display name shows an address that is not the login's
	FromExempt     Reason = "from_exempt"     // --from-exempt allows it
)

// Reasons of the limit check. Those with the name of a unit are for a limit of
// that unit.
const (
	LimitNone        Reason = "limit_none" // no limit applies to this request
	LimitWithin      Reason = "limit_within"
	LimitRecipients  Reason = "limit_recipients"
	LimitMessages    Reason = "limit_messages"
	LimitBytes       Reason = "limit_bytes"
	LimitNetworks    Reason = "limit_networks"
	LimitRefused     Reason = "limit_refused"
	LimitWarned      Reason = "limit_warned"  // reached, and only recorded
	LimitBlocked     Reason = "limit_blocked" // postern limits block
	LimitExempt      Reason = "limit_exempt"  // the alarm mail of this daemon
	LimitUnavailable Reason = "limits_unavailable"
)

// Reasons of the DNS lists' check.
const (
	DNSBLClean           Reason = "dnsbl_clean"
	DNSBLBelowThreshold  Reason = "dnsbl_below_threshold"
	DNSBLAllowed         Reason = "dnsbl_allowed"          // lists with negative weights outweigh the others
	DNSBLClientListed    Reason = "dnsbl_client_listed"    // the address of the client
	DNSBLSenderListed    Reason = "dnsbl_sender_listed"    // the domain of MAIL FROM
	DNSBLHeloListed      Reason = "dnsbl_helo_listed"      // the name in HELO
	DNSBLNameListed      Reason = "dnsbl_name_listed"      // the client's confirmed or reverse name
	DNSBLAuthenticated   Reason = "dnsbl_authenticated"    // a login: lists do not apply
	DNSBLClientExempt    Reason = "dnsbl_client_exempt"    // in --dnsbl-allow-clients
	DNSBLTrustedRelay    Reason = "dnsbl_trusted_relay"    // in --trusted-relays
	DNSBLRecipientExempt Reason = "dnsbl_recipient_exempt" // postmaster@, abuse@, or in --dnsbl-allow-recipients
	DNSBLNothingToAsk    Reason = "dnsbl_nothing_to_ask"   // a private address and no name that lists could know
	DNSBLUnavailable     Reason = "dnsbl_unavailable"
)

// Reasons of the greylist check.
const (
	GreylistNew              Reason = "greylist_new"               // never seen: asked to come back
	GreylistEarly            Reason = "greylist_early"             // has come back too soon
	GreylistWaited           Reason = "greylist_waited"            // passes for the first time
	GreylistKnown            Reason = "greylist_known"             // has passed before
	GreylistAutoAllowed      Reason = "greylist_auto_allowed"      // its client has passed often enough
	GreylistAllowedByHand    Reason = "greylist_allowed_by_hand"   // postern greylist allow
	GreylistFloodNetwork     Reason = "greylist_flood_network"     // its network makes too many new triplets: deferred, not recorded
	GreylistFlood            Reason = "greylist_flood"             // too many new triplets in all: deferred, not recorded
	GreylistAuthenticated    Reason = "greylist_authenticated"     // clients that log in are never greylisted
	GreylistLocalClient      Reason = "greylist_local_client"      // private, loopback or link-local address
	GreylistNoClient         Reason = "greylist_no_client_address" // nothing to make a key of
	GreylistTrustedRelay     Reason = "greylist_trusted_relay"     // in --trusted-relays
	GreylistClientAllowed    Reason = "greylist_client_allowed"
	GreylistRecipientAllowed Reason = "greylist_recipient_allowed" // listed, or postmaster or abuse
	GreylistSenderAllowed    Reason = "greylist_sender_allowed"    // listed, and SPF passed
	GreylistNotSuspicious    Reason = "greylist_not_suspicious"
	GreylistUnsure           Reason = "greylist_unsure"      // not suspicious, but DNS did not answer a question (see error)
	GreylistUnavailable      Reason = "greylist_unavailable" // the store could not answer (see error)
)

// Reasons of the signer.
const (
	Signed             Reason = "signed"
	SignNoFrom         Reason = "no_from"
	SignSeveralFrom    Reason = "several_from"
	SignBadFrom        Reason = "from_not_an_address"
	SignSeveralDomains Reason = "several_from_domains"
	SignNoKey          Reason = "no_dkim_key"
	SignAlreadySigned  Reason = "already_signed" // by us, and the signature is valid
	SignFailed         Reason = "sign_failed"    // no key could sign (see error)
	SignOff            Reason = "signing_off"    // switched off for the author's domain by the table of options
	SignMarked         Reason = "not_our_mail"   // our mark shows that it came from outside, and its author was not proven
)

// Reasons of the verifier.
const (
	Verified         Reason = "verified"         // judged; the results are in spf, dkim, arc, dmarc and steps
	VerifyUnsure     Reason = "verify_unsure"    // the same, but DNS did not answer a question
	SPFFailed        Reason = "spf_fail"         // refused: the sender's domain does not let the client send
	DMARCRejected    Reason = "dmarc_reject"     // refused by the table of dispositions
	DMARCQuarantined Reason = "dmarc_quarantine" // marked or held by it
	VerdictKept      Reason = "verdict_kept"     // came back from a host of ours: the first verdict is kept
	TooManyResults   Reason = "too_many_results" // refused: more results in our name than can be removed
)

// Reasons of the milter server.
const (
	HeaderTooLarge Reason = "header_too_large" // the header is larger than the bound: refused
	HeaderNoRoom   Reason = "header_no_room"   // messages with large headers hold all memory for headers: deferred
	ConnectionLost Reason = "connection_lost"  // the MTA stalled, or disconnected inside a command
)

// Reasons of the rotation of DKIM keys: what was done. These records do not
// belong to a mail.
const (
	RotateStarted   Reason = "rotate_started"
	RotateHanded    Reason = "rotate_handed"    // the DNS was changed
	RotateByHand    Reason = "rotate_by_hand"   // a person has to change the DNS; steps has the changes
	RotateSeen      Reason = "rotate_seen"      // every name server shows the new records
	RotateSigns     Reason = "rotate_signs"     // the new keys sign
	RotateRetired   Reason = "rotate_retired"   // the old keys have stopped signing
	RotateRevoked   Reason = "rotate_revoked"   // the old records have an empty p=, the old keys are deleted
	RotateFinished  Reason = "rotate_finished"  // the old records are gone
	RotateLost      Reason = "rotate_lost"      // the new records are gone from a name server: the old keys sign again
	RotateUndone    Reason = "rotate_undone"    // postern dkim rotate --undo
	RotateWithdrawn Reason = "rotate_withdrawn" // new keys that have never signed are deleted
	RotateFailed    Reason = "rotate_failed"    // a step failed (see error)
)

// The words of Record.Verdict. A reason with the verdict none is only found in
// steps, because it does not decide anything.
const (
	none     = "none"
	pass     = "pass"
	held     = "hold"
	deferral = "defer"
	reject   = "reject"
	failed   = "error"
)

// use is a reason with the verdicts that it can have.
type use struct {
	reason     Reason
	verdicts   []string
	unanswered bool // the check had no answer to what it asked, see Failures
}

// vocabulary returns all reasons by the check that uses them, "" for decisions of
// no check.
func vocabulary() map[string][]use {
	return map[string][]use{
		"":               slices.Concat(with(pass, NotApplicable, NoChecks, UnknownState), with(deferral, CheckFailed), with(failed, BadRequest, Panicked, ConnectionLost)),
		"policy_context": ofErrors(UnknownHook),
		"ownership": slices.Concat(noAnswer(OwnerLookupFailed), with(none, OwnerUnauthenticated),
			with(pass, OwnerOwned, OwnerOwnedByAlias, OwnerSelf, OwnerExempt, OwnerUnlisted, OwnerNullSender),
			with(reject, OwnerNotOwned, OwnerNotLoggedIn, OwnerSenderNotAddress, OwnerSenderUnclear, OwnerUnlisted, OwnerNullSender)),
		"from_ownership": slices.Concat(with(deferral, OwnerLookupFailed),
			with(none, OwnerOwned, OwnerOwnedByAlias, OwnerSelf, OwnerExempt, OwnerUnlisted, OwnerNullSender, FromExempt),
			with(reject, FromNotOwned, FromRedirected, FromSeveral, FromUnreadable, FromDisplay)),
		"limit": slices.Concat(noAnswer(LimitUnavailable), with(none, LimitNone, LimitExempt), with(pass, LimitWithin, LimitWarned),
			ofLimits(LimitRecipients, LimitMessages, LimitBytes, LimitNetworks, LimitRefused), with(reject, LimitBlocked)),
		"dnsbl": slices.Concat(noAnswer(DNSBLUnavailable),
			with(none, DNSBLAuthenticated, DNSBLTrustedRelay, DNSBLClientExempt, DNSBLRecipientExempt, DNSBLNothingToAsk),
			with(pass, DNSBLClean, DNSBLBelowThreshold, DNSBLAllowed),
			with(reject, DNSBLClientListed, DNSBLSenderListed, DNSBLHeloListed, DNSBLNameListed)),
		"greylist": slices.Concat(noAnswer(GreylistUnavailable),
			with(none, GreylistAuthenticated, GreylistTrustedRelay, GreylistLocalClient, GreylistNoClient,
				GreylistClientAllowed, GreylistRecipientAllowed, GreylistSenderAllowed),
			with(pass, GreylistWaited, GreylistKnown, GreylistAutoAllowed, GreylistAllowedByHand, GreylistNotSuspicious),
			[]use{{GreylistUnsure, []string{pass}, true}},
			with(deferral, GreylistNew, GreylistEarly, GreylistFloodNetwork, GreylistFlood)),
		"sign": slices.Concat(ofSessions(), with(reject, TooManyResults),
			with(pass, Signed, SignNoFrom, SignSeveralFrom, SignBadFrom, SignSeveralDomains, SignNoKey, SignAlreadySigned, SignFailed, SignOff, SignMarked)),
		"verify": slices.Concat(ofSessions(), with(reject, SPFFailed, DMARCRejected, TooManyResults),
			with(pass, Verified, VerifyUnsure, DMARCQuarantined, VerdictKept)),
		"dkim_rotate": slices.Concat(with(failed, RotateFailed),
			with(pass, RotateStarted, RotateHanded, RotateByHand, RotateSeen, RotateSigns, RotateRetired, RotateRevoked, RotateFinished,
				RotateLost, RotateUndone, RotateWithdrawn)),
	}
}

func with(verdict string, reasons ...Reason) (uses []use) {
	for _, r := range reasons {
		uses = append(uses, use{reason: r, verdicts: []string{verdict}})
	}
	return uses
}

// noAnswer returns the reasons of a check that could not decide.
func noAnswer(own Reason) []use { return ofErrors(own, CheckFailed, DeadlineSpent) }

// ofErrors returns uses of reasons whose verdict depends on the check's rule for errors.
func ofErrors(reasons ...Reason) (uses []use) {
	for _, r := range reasons {
		uses = append(uses, use{r, []string{pass, deferral}, true})
	}
	return uses
}

// ofLimits returns uses of reasons whose verdict depends on the action of the
// limit.
func ofLimits(reasons ...Reason) (uses []use) {
	for _, r := range reasons {
		uses = append(uses, use{reason: r, verdicts: []string{held, deferral, reject}})
	}
	return uses
}

// ofSessions returns the reasons that every message of a milter session can have.
func ofSessions() []use {
	return slices.Concat(with(failed, CheckFailed, DeadlineSpent, ConnectionLost, BadRequest),
		with(reject, HeaderTooLarge), with(deferral, HeaderNoRoom))
}
