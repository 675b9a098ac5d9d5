package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/doctor"
)

const dqsKey = "abcdefghijklmnopqrstuvwxyz"

// What setup says while it works has no key of Spamhaus's DQS in it, wherever it comes from.
func TestSetupHidesKeys(t *testing.T) {
	var out bytes.Buffer
	sayTo(&out)("%s was changed since: %s", "main.cf", "reject_rbl_client "+dqsKey+".zen.dq.spamhaus.net")
	if said := out.String(); strings.Contains(said, dqsKey) || !strings.Contains(said, "main.cf was changed") {
		t.Errorf("setup says %q", said)
	}
}

// Neither has what doctor quotes of Postfix.
func TestDoctorHidesKeys(t *testing.T) {
	list := "reject_rhsbl_sender " + dqsKey + ".dbl.dq.spamhaus.net"
	r := doctor.Report{Findings: []doctor.Finding{{Text: "smtpd_sender_restrictions is " + list, Fix: "postconf -e 'smtpd_sender_restrictions=" + list + "'"}}}
	hideKeys(&r)
	var out bytes.Buffer
	printReport(&out, r)
	if said := out.String(); strings.Contains(said, dqsKey) || strings.Count(said, "dbl.dq.spamhaus.net") != 2 {
		t.Errorf("doctor says %q", said)
	}
}
