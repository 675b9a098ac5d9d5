package verify

import (
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/milter/authres"
)

// receivedSPFField is the field of RFC 7208 section 9.1.
const receivedSPFField = "Received-SPF"

// results returns the findings in the order in which readers expect them: the results
// that the DMARC result depends on come before it.
func (f *Findings) results() []authres.Result {
	list := []authres.Result{f.mailFromResult()}
	if f.Helo.Status != "" && f.Helo.Status != spf.None {
		list = append(list, authres.SPF{Value: authres.Value(f.Helo.Status), Helo: f.Envelope.Helo, Text: spfText(f.Helo.Result)})
	}
	list = append(list, dkimResults(f.DKIM)...)
	if f.IPRev.Value != "" {
		list = append(list, authres.IPRev{
			Value: f.IPRev.Value,
			IP:    f.Envelope.Client.Unmap().WithZone("").String(),
			Text:  authres.Text{Comment: f.IPRev.Name},
		})
	}
	if f.ARC.Status != arc.None {
		list = append(list, f.arcResult())
	}
	return append(list, f.dmarcResult())
}

// arcResult names the instances that count (RFC 8617 section 10.2).
func (f *Findings) arcResult() authres.Result {
	r := authres.ARC{Value: authres.Value(f.ARC.Status)}
	if client := f.Envelope.Client; client.IsValid() {
		r.RemoteIP = client.Unmap().WithZone("").String()
	}
	if f.ARC.Status == arc.Pass {
		r.OldestPass = strconv.Itoa(f.ARC.OldestPass)
		r.Comment = "i=" + strconv.Itoa(len(f.ARC.Sets)) + " d=" + f.ARC.Sealer
		return r
	}
	r.Comment = f.ARC.Reason
	if f.ARC.Temporary {
		r.Comment = dnsComment
	}
	return r
}

// dmarcResult returns only the verdict that counts. A second verdict, for another
// domain of the same From, could be mistaken for it.
func (f *Findings) dmarcResult() authres.Result {
	v := &f.DMARC.Verdict
	r := authres.DMARC{Value: authres.Value(v.Status), From: v.Domain, Policy: string(v.Policy)}
	switch {
	case v.Record != nil:
		r.Comment = policyComment(v.Record) + " " + f.Disposition.comment()
	case v.Status == dmarc.TempError:
		r.Comment = dnsComment
	case v.Status == dmarc.PermError:
		r.Comment = string(v.Reason) + " " + f.Disposition.comment()
	}
	return r
}

// comment returns what is done with the mail. For a mail that passes that is "none".
func (d *Disposition) comment() string {
	done := d.Done()
	if done == ActionPass {
		done = ActionNone
	}
	return "dis=" + string(done)
}

// policyComment returns the policies that a record publishes.
func policyComment(r *dmarc.Record) string {
	var parts []string
	for _, tag := range []struct {
		name   string
		policy dmarc.Policy
	}{{"p", r.P}, {"sp", r.SP}, {"np", r.NP}} {
		if tag.policy != "" {
			parts = append(parts, tag.name+"="+string(tag.policy))
		}
	}
	if r.Test {
		parts = append(parts, "t=y")
	}
	return strings.Join(parts, " ")
}

// mailFromResult returns the result for MAIL FROM. It shows only the domain, because
// the local part is private. With a null sender the identity is the HELO name.
func (f *Findings) mailFromResult() authres.Result {
	r := authres.SPF{Value: authres.Value(f.MailFrom.Status), Text: spfText(f.MailFrom.Result)}
	if f.MailFrom.NullSender {
		r.Helo = f.Envelope.Helo
		return r
	}
	r.MailFrom = f.MailFrom.Domain
	if r.MailFrom == "" {
		r.MailFrom = senderOf(f.Envelope.Sender).Domain
	}
	return r
}

// spfText returns what the status rests on. It does not show errors of DNS, because
// they would name our own name servers.
func spfText(r spf.Result) authres.Text {
	switch {
	case r.Status == spf.TempError:
		return authres.Text{Comment: dnsComment}
	case r.Status == spf.PermError && r.Err != nil:
		return authres.Text{Comment: brief(r.Err.Error())}
	case r.Mechanism == "":
		return authres.Text{}
	}
	return authres.Text{Comment: matched(r)}
}

// Bytes of an error's text that a comment shows: its start, and its cause at the end.
const (
	briefHead = 90
	briefTail = 80
)

// brief cuts out the middle of a long text. Errors of nested records have their cause
// at the end.
func brief(s string) string {
	const gap = " ... "
	if len(s) <= briefHead+len(gap)+briefTail {
		return s
	}
	return s[:briefHead] + gap + s[len(s)-briefTail:]
}

const dnsComment = "DNS lookup failed"

// matched returns the mechanism that matched, and the domain of its record.
func matched(r spf.Result) string {
	if n := len(r.Path); n > 1 {
		return r.Mechanism + " of " + r.Path[n-1]
	}
	return r.Mechanism
}

// dkimResults returns one result for each signature, or "none" if there is no
// signature.
func dkimResults(report dkim.Report) []authres.Result {
	if len(report.Signatures) == 0 {
		return []authres.Result{authres.DKIM{Value: authres.None}}
	}
	var list []authres.Result
	for i := range report.Signatures {
		s := &report.Signatures[i]
		list = append(list, authres.DKIM{
			Value:     authres.Value(s.Status),
			Domain:    s.Domain,
			Identity:  s.Identity,
			Selector:  s.Selector,
			Algorithm: s.Algorithm,
			Signature: s.B,
			Text:      authres.Text{Comment: dkimComment(s)},
		})
	}
	return list
}

func dkimComment(s *dkim.Signature) string {
	var parts []string
	if s.Reason != "" {
		parts = append(parts, s.Reason)
	}
	if s.KeyBits > 0 {
		parts = append(parts, strconv.Itoa(s.KeyBits)+"-bit key")
	}
	return strings.Join(parts, ", ")
}

// fields returns the fields to put at the top, in this order.
func (m *Mail) fields(f *Findings) []Field {
	list := []Field{{Name: resultsField, Value: " " + authres.Format(m.authservID, f.results()...)}}
	if m.verifier.options.ReceivedSPF && f.Envelope.Client.IsValid() { // the field needs its address
		list = append(list, Field{Name: receivedSPFField, Value: " " + f.MailFrom.ReceivedSPF(m.spfArgs)})
	}
	return list
}
