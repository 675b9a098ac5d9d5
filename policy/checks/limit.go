package checks

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/limit"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/policy"
)

// LimitName is the check's name in settings, records and metrics.
const LimitName = "limit"

// Limit asks the judge whether a login, sender or client may send more. When a
// later check refuses the mail, its count is taken back.
type Limit struct {
	Judge *limit.Judge // nil when there are no limits
	// Exempt is the recipient of the daemon's own alarm mails; "" for none.
	Exempt string
	URL    string // where a sender can read more; "" for none
	// Alarm is called when a limit is reached. It must not block.
	Alarm func(limit.Alarm)
	// Lost is called when a count could not be corrected; it may be nil.
	Lost func(error)
	// Attached notices that Postfix does not ask for the limits of logins; nil if there are
	// none. Unattached is then called, at most once an hour.
	Attached   *Attached
	Unattached func()
}

// Name implements policy.Check.
func (*Limit) Name() string { return LimitName }

// Check implements policy.Check.
func (l *Limit) Check(ctx context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	return l.decide(ctx, r, false)
}

// Peek implements policy.Peeker.
func (l *Limit) Peek(ctx context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	return l.decide(ctx, r, true)
}

// decide asks the judge, which counts nothing when it only looks.
func (l *Limit) decide(ctx context.Context, r *policy.Request, look bool) (policy.Verdict, error) {
	if l.Judge == nil {
		return policy.Verdict{Reason: record.LimitNone}, nil
	}
	e := limitEvent(r)
	if !counts(r.State) {
		if b := l.Judge.Blocked(&e); b != nil && r.State.HasSender() {
			return blockedVerdict(b, r.Received), nil
		}
		return policy.Verdict{Reason: record.NotApplicable}, nil
	}
	if l.exempt(r) {
		return policy.Verdict{Reason: record.LimitExempt}, nil
	}
	if !look {
		l.Attached.asked(r)
	}
	var ruling limit.Ruling
	var err error
	if look {
		ruling, err = l.Judge.Look(ctx, &e)
	} else {
		ruling, err = l.Judge.Judge(ctx, &e)
	}
	if err != nil {
		return policy.Verdict{Reason: record.LimitUnavailable}, err
	}
	for _, alarm := range ruling.Alarms {
		l.Alarm(alarm)
	}
	return l.verdict(r, &ruling), nil
}

// counts reports whether the check counts in this state.
func counts(s policy.State) bool { return s == policy.StateRcpt || s == policy.StateEndOfMessage }

// exempt reports whether a mail may be an alarm of this daemon. An alarm comes
// from this machine, with the null sender, and goes to the address of alarms.
func (l *Limit) exempt(r *policy.Request) bool {
	return l.Exempt != "" && !r.Authenticated() && r.Sender.IsNull() && r.Client.Address.IsLoopback() &&
		mailaddr.FoldKey(r.Recipient.Key()) == l.Exempt
}

// limitEvent returns a request as the judge needs it.
func limitEvent(r *policy.Request) limit.Event {
	e := limit.Event{
		Step: limit.Name, Time: r.Received, Service: r.ServerPort, Login: r.Login, Sender: r.Sender,
		Client: r.Client.Address, Recipient: r.Recipient, Recipients: r.RecipientCount, Size: r.Size,
	}
	if r.State == policy.StateEndOfMessage {
		e.Step = limit.End
	}
	if r.Instance != "" { // unique on one host; the client's address and port distinguish hosts
		name := make([]byte, 0, 96)
		name = r.Client.Address.AppendTo(append(append(name, r.Instance...), '/'))
		e.Transaction = limit.DigestOf(append(append(name, '/'), r.Client.Port...))
	}
	return e
}

// verdict returns the verdict for a ruling.
func (l *Limit) verdict(r *policy.Request, ruling *limit.Ruling) policy.Verdict {
	switch ruling.Kind {
	case limit.None:
		if ruling.Unknown != nil { // an override may have limits
			return policy.Verdict{Kind: policy.Pass, Reason: record.LimitUnavailable, Unknown: ruling.Unknown}
		}
		return policy.Verdict{Reason: record.LimitNone}
	case limit.Blocked:
		return blockedVerdict(ruling.Block, r.Received)
	}
	v := policy.Verdict{Kind: policy.Pass, Reason: record.LimitWithin, Detail: limitDetail(ruling), Unknown: ruling.Unknown}
	if ruling.Unknown != nil && (ruling.Kind == limit.Within || ruling.Rule.Action == limit.Warn) {
		v.Reason = record.LimitUnavailable
		return v
	}
	if ruling.Kind == limit.Within {
		return v
	}
	v.Reason, v.Text = limitReason(ruling.Rule.Unit), l.text(ruling)
	switch ruling.Rule.Action {
	case limit.Reject:
		v.Kind, v.Code = policy.Reject, policy.CodeRefused
	case limit.Defer:
		v.Kind, v.Code = policy.Defer, policy.CodeTooMuch
	case limit.Hold:
		v.Kind = policy.Hold
	default:
		v.Reason, v.Text = record.LimitWarned, ""
	}
	return v
}

// Blocks refuses the mail of blocked logins in a hook that does not ask for limits. It
// counts nothing.
type Blocks struct{ Limit *Limit }

// Name implements policy.Check.
func (Blocks) Name() string { return LimitName }

// Check implements policy.Check.
func (b Blocks) Check(ctx context.Context, r *policy.Request, prior policy.Signals) (policy.Verdict, error) {
	if b.Limit.Attached.missed(r) {
		b.Limit.Unattached()
	}
	return b.Peek(ctx, r, prior)
}

// Peek implements policy.Peeker.
func (b Blocks) Peek(_ context.Context, r *policy.Request, _ policy.Signals) (policy.Verdict, error) {
	judge := b.Limit.Judge
	if judge == nil || !judge.Blocks() || !r.State.HasSender() {
		return policy.Verdict{Reason: record.NotApplicable}, nil
	}
	block := judge.Blocked(&limit.Event{Time: r.Received, Login: r.Login, Sender: r.Sender, Client: r.Client.Address})
	if block == nil {
		return policy.Verdict{Reason: record.NotApplicable}, nil
	}
	return blockedVerdict(block, r.Received), nil
}

func blockedVerdict(b *limit.Block, now time.Time) policy.Verdict {
	v := policy.Verdict{Kind: policy.Reject, Reason: record.LimitBlocked, Code: policy.CodeRefused, Detail: "login=" + b.Login,
		Text: "This account may not send mail at the moment, please ask your administrator"}
	if !b.Until.IsZero() {
		v.Detail += " until=" + b.Until.UTC().Format(time.RFC3339)
		v.Text += ", or try again in " + inWords(b.Until.Sub(now))
	}
	return v
}

// limitReason returns the reason for a limit that is reached.
func limitReason(u limit.Unit) record.Reason {
	switch u {
	case limit.Messages:
		return record.LimitMessages
	case limit.Bytes:
		return record.LimitBytes
	case limit.Networks:
		return record.LimitNetworks
	case limit.Refused:
		return record.LimitRefused
	}
	return record.LimitRecipients
}

// limitDetail returns the basis of a verdict, for the record.
func limitDetail(r *limit.Ruling) string {
	b := make([]byte, 0, 128)
	b = append(append(b, "limit="...), r.Limit...)
	b = strconv.AppendInt(append(b, " used="...), r.Used, 10)
	b = append(append(append(b, ' '), r.Rule.Key...), '=')
	detail := string(append(b, r.Value...))
	if o := r.Override; o != nil {
		detail += " override=" + o.Found
		if o.Err != nil {
			detail += " (not used: " + o.Err.Error() + ")"
		}
	}
	if r.Repeat {
		detail += " repeated"
	}
	return detail
}

// text returns the reply: which limit is reached, and when there is room again.
func (l *Limit) text(r *limit.Ruling) string {
	what := string(r.Rule.Unit)
	if r.Rule.Unit == limit.Refused {
		what = "refused recipients"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Limit of %d %s in %s reached for %s", r.Rule.Count, what, windowInWords(r.Rule), ofKey(r.Rule.Key))
	if r.Wait > 0 {
		fmt.Fprintf(&b, ", try again in %s", inWords(r.Wait))
	}
	if l.URL != "" {
		b.WriteString("; see " + l.URL)
	}
	return b.String()
}

func windowInWords(r *limit.Rule) string {
	_, window, _ := strings.Cut(r.Amount(), "/")
	return window
}

// ofKey returns the kind of a limit's key for the reply, without its value.
func ofKey(k limit.Key) string {
	switch k {
	case limit.Login:
		return "this account"
	case limit.LoginDomain:
		return "the accounts of this domain"
	case limit.Sender:
		return "this sender"
	case limit.SenderDomain:
		return "this sender domain"
	case limit.Client, limit.Network:
		return "your " + strings.Replace(string(k), "client", "address", 1)
	case limit.Recipient:
		return "this recipient"
	}
	return "this server"
}

// inWords returns a duration for people, rounded up.
func inWords(d time.Duration) string {
	if d = max(d, time.Second); d < time.Minute {
		return fmt.Sprintf("%d s", (d+time.Second-1)/time.Second)
	}
	if d < 2*time.Hour {
		return fmt.Sprintf("%d min", (d+time.Minute-1)/time.Minute)
	}
	return fmt.Sprintf("%d h", (d+time.Hour-1)/time.Hour)
}

// Settle implements policy.Settler. When another check refuses a mail, its
// count is taken back, and a rejected one counts as refused.
func (l *Limit) Settle(ctx context.Context, r *policy.Request, own *policy.Verdict, d *policy.Decision) {
	if l.Judge == nil || d.Kind != policy.Defer && d.Kind != policy.Reject || d.Check == LimitName || !counts(r.State) {
		return
	}
	e := limitEvent(r)
	if counted(own) {
		l.lost(l.Judge.Undo(ctx, &e))
	}
	if d.Kind == policy.Reject {
		l.lost(l.Judge.Refused(ctx, &e))
	}
}

// counted reports whether the request was counted with this verdict. With a
// shadowed check, all are.
func counted(own *policy.Verdict) bool {
	return own != nil && own.Kind != policy.None && own.Reason != record.LimitBlocked
}

func (l *Limit) lost(err error) {
	if err != nil && l.Lost != nil {
		l.Lost(err)
	}
}

// AlarmAddress returns an address of alarms in the form of Limit.Exempt.
func AlarmAddress(address string) string { return mailaddr.FoldKey(mailaddr.Parse(address).Key()) }
