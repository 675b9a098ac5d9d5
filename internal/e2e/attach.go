package e2e

// The lines that attach postern-policyd, as in README.md.

// recipientRestrictions returns the MX hook. It comes after everything that Postfix can
// decide by itself, and lets mail pass while the daemon is away. The inner braces are
// for contexts with several checks. Without them, the comma between two checks ends the
// attribute, and smtpd(8) refuses to start.
func recipientRestrictions(endpoint, context string) string {
	return "smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination, reject_unlisted_recipient, " +
		CheckPolicy(endpoint, "{ policy_context = "+context+" }, default_action=DUNNO")
}

// senderRestrictions returns the submission hook. It keeps Postfix's default action:
// while the daemon is away, no user can send.
func senderRestrictions(endpoint string) string {
	return "smtpd_sender_restrictions=" + CheckPolicy(endpoint, "policy_context="+ownership)
}

// ownership is the name of the check in policy_context.
const ownership = "ownership"

// CheckPolicy returns the restriction that asks endpoint, such as
// "inet:127.0.0.1:10045", with attributes such as "timeout=2s, default_action=DUNNO".
func CheckPolicy(endpoint, attributes string) string {
	if attributes != "" {
		attributes = ", " + attributes
	}
	return "check_policy_service { " + endpoint + attributes + " }"
}
