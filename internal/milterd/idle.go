package milterd

import (
	"github.com/postern-mail/postern/internal/config"
	"github.com/postern-mail/postern/milter/verify"
)

// findIdle returns an error for each setting that was made and does nothing as the
// others are. --check-config fails for them. The daemon runs and logs them as
// errors: mail must not stop for them.
func (o *Options) findIdle(s *config.Set) (idle []error) {
	add := func(flag string, idles bool, fix string) {
		if idles && s.Origin(flag).Level != config.Default {
			idle = append(idle, s.Errorf(flag, "has no effect: %s", fix))
		}
	}
	bySocket := len(o.Listen) == 0
	add("internal-networks", bySocket, "it decides on sockets of --listen, and there is none; let these clients' mail come in at a --listen-sign socket, or replace --listen-verify by --listen")
	add("originating", bySocket, "it decides on sockets of --listen, and there is none; have those services use a --listen-sign socket, or replace --listen-verify by --listen")
	for _, flag := range []string{"dkim-headers", "dkim-expire"} {
		add(flag, bySocket && len(o.ListenSign) == 0, "no socket signs mail; add --listen-sign, or remove it")
	}
	for _, flag := range []string{
		"spf-reject", "received-spf", "verify-deadline", "dkim-skew", "dmarc-enforce", "dmarc-quarantine", "dmarc-org", "dmarc-allow",
		"trusted-forwarders", "trusted-relays", "trusted-arc-sealers",
	} {
		add(flag, bySocket && len(o.ListenVerify) == 0, "no socket verifies mail; add --listen-verify, or remove it")
	}
	d := roomOf[*dmarcPart](o)
	evidence := d.DMARCEnforce == string(verify.EnforceEvidence)
	for _, flag := range []string{"dnsbl", "dnsbl-threshold", "dqs-key-file"} {
		add(flag, !evidence, "lists are asked for evidence only; set --dmarc-enforce evidence, or remove it (postern-policyd has lists of its own)")
	}
	add("dmarc-quarantine", d.DMARCEnforce == string(verify.EnforceOff), "--dmarc-enforce off quarantines nothing; set it to quarantine, or remove this")
	return idle
}

// roomOf returns the part of type P.
func roomOf[P part](o *Options) (found P) {
	for _, r := range o.rooms {
		if p, ok := r.part.(P); ok {
			return p
		}
	}
	return found
}
