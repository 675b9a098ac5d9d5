package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-mail/postern/internal/postfixtest"
	"github.com/postern-mail/postern/internal/record"
)

func TestDMARCCases(t *testing.T) {
	t.Parallel()
	s := newSigningSite(t, SiteConfig{})
	for _, c := range DMARCCases() {
		t.Run(c.Name, func(t *testing.T) {
			o, err := c.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if o.Wrong != nil {
				t.Error(o.Wrong)
			}
			if o.Rule() == "" || o.Record.DMARC == "" || o.Record.ARC == "" {
				t.Errorf("record %s", o.Record.Raw)
			}
			if c.Sealed && o.Record.ARC != "pass" {
				t.Errorf("the chain: %s", o.Record.Raw)
			}
			if c.Code == 550 && o.Reply.String() != "550 5.7.1 Email rejected per DMARC policy for bank.example" {
				t.Errorf("reply %s", o.Reply)
			}
		})
	}
	t.Run("marks from outside are removed", func(t *testing.T) { checkMarks(t, s) })
	t.Run("hold", func(t *testing.T) { checkHold(t, s) })
	t.Run("shadow", func(t *testing.T) { checkDMARCShadow(t, s) })
}

// spoofCase is the mail of somebody who pretends to be the bank.
func spoofCase() DMARCCase { return DMARCCases()[1] }

// checkMarks has strangers mark their own mail, in several ways.
func checkMarks(t *testing.T, s *Site) {
	m := fromOutside(Stranger, Bob)
	m.Message = "X-Postern-Quarantine: dmarc\nx-postern-quarantine: no\nX-POSTERN-QUARANTINE:\n folded\nFrom: <" + Stranger + ">\nSubject: a test\n\nHello.\n"
	if got := deliver(t, s, postfixtest.MX, m).Headers(quarantineField); len(got) != 0 {
		t.Errorf("marks %q", got)
	}
}

// checkHold has a spoof put on hold, for all of its recipients, and counted.
func checkHold(t *testing.T, s *Site) {
	c := spoofCase()
	if err := s.milterdWith(t.Context(), []string{"--dmarc-quarantine=hold", "--queue-directory=" + s.queueDir()}); err != nil {
		t.Fatal(err)
	}
	c.Mail.To = []string{Press, Bob}
	if got := send(t, s, postfixtest.MX, c.Mail); got.Code != 250 {
		t.Fatal(got)
	}
	r, err := s.VerifyRecord(t.Context(), c.Mail)
	if err != nil {
		t.Fatal(err)
	}
	if r.Reason != string(record.DMARCQuarantined) || !strings.Contains(r.Action, "quarantine") {
		t.Errorf("record %s", r.Raw)
	}
	held := func(queue []postfixtest.Queued) bool {
		return slices.ContainsFunc(queue, func(q postfixtest.Queued) bool {
			return q.QueueName == "hold" && q.Sender == spoofer && len(q.Recipients) == 2
		})
	}
	queue, err := s.Postfix.Queue(t.Context())
	if err != nil || !held(queue) {
		t.Errorf("queue %+v, %v", queue, err)
	}
	// The daemon counts when it starts, and each minute.
	if err := s.Milterd.StopUnlessEnded(); err != nil {
		t.Fatal(err)
	}
	if err := s.StartMilterd(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return strings.Contains(s.milterdMetrics(t), "\npostern_hold_queue_messages 1\n") })
}

// milterdMetrics are those of the daemon now.
func (s *Site) milterdMetrics(t *testing.T) string {
	t.Helper()
	return scrape(t, s.milterdMetricsAddr)
}

// checkDMARCShadow asserts that what would have been done is in the record, and
// is not done.
func checkDMARCShadow(t *testing.T, s *Site) {
	c := spoofCase()
	c.Name, c.Flags = "shadow", []string{"--dmarc-enforce=evidence", "--shadow=dmarc"}
	c.Disposition, c.Marked, c.Want = "none", false, "dmarc=fail (p=reject dis=none) header.from=bank.example"
	o, err := c.Run(t.Context(), s)
	if err != nil || o.Wrong != nil {
		t.Fatal(err, o.Wrong)
	}
	if o.Record.Mode != "shadow" || o.Record.Verdict != "reject" || o.Record.Reason != string(record.DMARCRejected) || o.Record.Step("dmarc").Reason != string(record.DMARCRejected) {
		t.Errorf("record %s", o.Record.Raw)
	}
	want := `postern_dmarc_results_total{disposition="none",result="fail",rule="reject_evidence"} 1`
	if m := s.milterdMetrics(t); !strings.Contains(m, want) {
		t.Errorf("no %s", want)
	}
}
