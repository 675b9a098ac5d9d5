package checks

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/postern-mail/postern/greylist"
	"github.com/postern-mail/postern/internal/allowlist"
	"github.com/postern-mail/postern/internal/record"
	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy"
)

// GreylistName is the check's name in settings, records and metrics.
const GreylistName = "greylist"

// Greylist defers mail from unknown sources once. It decides for each
// recipient, and does not apply before one is known.
type Greylist struct {
	Store  greylist.Store
	Flood  *greylist.Flood // limits the new triplets of this daemon
	Limits greylist.Limits

	Keyer    greylist.Keyer
	Resolver spf.Resolver

	// OnlySuspicious passes requests without any ground of suspicion.
	OnlySuspicious bool

	Relays          allowlist.Networks // our own relays: their clients cannot be asked to come back
	AllowClients    *GreylistClients
	AllowRecipients *GreylistRecipients
	Delimiters      string              // between user and extension of a recipient, as in recipient_delimiter
	AllowSenders    *GreylistRecipients // only together with an SPF pass

	Header    bool // add a header with the delay of the mail
	Instances *Instances
	Hostname  string // of this host, for the header and for SPF
	URL       string // where a sender can read more; "" for none

	Waited func(time.Duration) // called with the wait of a sender that passes for the first time; may be nil
}

// Name implements policy.Check.
func (*Greylist) Name() string { return GreylistName }

// Check implements policy.Check.
func (g *Greylist) Check(ctx context.Context, r *policy.Request, prior policy.Signals) (policy.Verdict, error) {
	return g.check(ctx, r, prior, g.askStore)
}

// judge returns the verdict on a request that is greylisted.
type judge func(context.Context, *policy.Request, *sight) (policy.Verdict, error)

func (g *Greylist) check(ctx context.Context, r *policy.Request, prior policy.Signals, judge judge) (policy.Verdict, error) {
	if reason := g.Exempt(r); reason != "" {
		return policy.Verdict{Reason: reason, Detail: exemptDetail(r, reason)}, nil
	}
	ctx = resolver.For(ctx, resolver.NewAsker(r.Client.Address))
	sight := g.look(ctx, r)
	if sight.senderListed && proves(sight.spf) {
		return policy.Verdict{Reason: record.GreylistSenderAllowed, Detail: sight.detail()}, nil
	}
	if g.OnlySuspicious {
		var unknown error
		sight.suspicions, unknown = suspicions(ctx, g.Resolver, r, prior, sight.spf)
		switch {
		case len(sight.suspicions) > 0:
		case unknown != nil:
			return policy.Verdict{Kind: policy.Pass, Reason: record.GreylistUnsure, Detail: sight.detail(), Unknown: unknown}, nil
		default:
			return policy.Verdict{Kind: policy.Pass, Reason: record.GreylistNotSuspicious, Detail: sight.detail()}, nil
		}
	}
	return judge(ctx, r, &sight)
}

// Exempt returns the reason why a request is not greylisted, or "". It does not
// depend on the store or on DNS.
func (g *Greylist) Exempt(r *policy.Request) record.Reason {
	switch {
	case r.State != policy.StateRcpt:
		return record.NotApplicable
	case r.Authenticated():
		return record.GreylistAuthenticated
	case !r.Client.Address.IsValid():
		return record.GreylistNoClient
	case isLocal(r.Client.Address):
		return record.GreylistLocalClient
	case g.Relays.Has(r.Client.Address):
		return record.GreylistTrustedRelay
	case isComplaintsDesk(r.Recipient, g.Delimiters) || g.AllowRecipients.Has(r.Recipient, g.Delimiters):
		return record.GreylistRecipientAllowed
	case g.AllowClients.Has(r.Client.Address, r.Client.Name):
		return record.GreylistClientAllowed
	}
	return ""
}

// exemptDetail returns what was found in an allow list, for the record.
func exemptDetail(r *policy.Request, reason record.Reason) string {
	switch reason {
	case record.GreylistClientAllowed:
		return strings.TrimSpace("client=" + r.Client.Address.String() + " " + r.Client.Name)
	case record.GreylistRecipientAllowed:
		return "recipient=" + greylist.RecipientPart(r.Recipient)
	}
	return ""
}

// isLocal reports whether an address cannot be a stranger's: RFC 1918, RFC
// 4193, loopback or link-local.
func isLocal(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()
}

// sight is what is known about a request without the store.
type sight struct {
	key          greylist.Key
	spf          *spf.Result // nil when SPF was not asked
	senderListed bool        // in AllowSenders
	suspicions   []string
}

// spfShare is the share of the remaining time that SPF may take. The store
// needs the rest. Without an SPF result the key is the client's network, which
// is better than no decision.
const spfShare = 0.6

// look makes the key. If DNS fails, the key is the client's network. SPF is
// checked only where its result is used: when only the allow list of senders
// needs it, only for the senders in that list.
func (g *Greylist) look(ctx context.Context, r *policy.Request) sight {
	s := sight{senderListed: g.AllowsSender(r)}
	var source greylist.Source
	if !g.Keyer.NetworkKey || g.OnlySuspicious || s.senderListed {
		s.spf = g.askSPF(ctx, r)
		source = sourceOf(s.spf, r.Client)
	}
	s.key = g.Keyer.Key(greylist.Mail{Client: r.Client.Address, Sender: r.Sender, Recipient: r.Recipient, Source: source})
	return s
}

// askSPF checks MAIL FROM, or the HELO name for the null sender. It first tries
// with the answers that the resolver remembers, without a deadline: the timers
// of a deadline cost more than a check from memory.
func (g *Greylist) askSPF(ctx context.Context, r *policy.Request) *spf.Result {
	if remembering, ok := g.Resolver.(resolver.Remembering); ok {
		memory := remembering.Memory()
		if result := g.checkSPF(ctx, memory, r); !memory.Missed() {
			return result
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(spfShare*float64(time.Until(deadline))))
		defer cancel()
	}
	return g.checkSPF(ctx, g.Resolver, r)
}

func (g *Greylist) checkSPF(ctx context.Context, dns spf.Resolver, r *policy.Request) *spf.Result {
	result := spf.CheckMailFrom(ctx, dns, spf.Args{
		IP:            r.Client.Address,
		Helo:          r.Helo,
		Sender:        spf.Sender{Local: r.Sender.Local, Domain: r.Sender.Domain},
		Receiver:      g.Hostname,
		Now:           r.Received,
		NoExplanation: true,
	})
	return &result.Result
}

// askStore asks the store.
func (g *Greylist) askStore(ctx context.Context, r *policy.Request, s *sight) (policy.Verdict, error) {
	limits := g.Limits
	limits.Full = g.Flood.Full(r.Received)
	known, err := g.Store.Seen(ctx, s.key, r.Received, limits)
	if err != nil {
		return policy.Verdict{Reason: record.GreylistUnavailable, Detail: s.detail()}, err
	}
	o := greylist.Decide(known, r.Received, limits)
	v := policy.Verdict{Kind: policy.Pass, Reason: GreylistReason(o.Why), Detail: s.detail()}
	switch {
	case !o.Pass():
		if o.Why == greylist.New {
			g.Flood.Made()
		}
		v.Kind, v.Text = policy.Defer, g.text(o, s.key)
	case o.Why == greylist.Waited:
		if g.Waited != nil {
			g.Waited(o.Waited)
		}
		v.Detail += waitedWord(o.Waited)
		v.Header = g.header(r, o)
		if err := g.Store.Credit(ctx, s.key.Creditor(), r.Received); err != nil {
			v.Detail += " credit lost: " + err.Error()
		}
	}
	return v, nil
}

// GreylistReason returns the reason for an outcome.
func GreylistReason(w greylist.Why) record.Reason {
	switch w {
	case greylist.AllowedByHand:
		return record.GreylistAllowedByHand
	case greylist.AutoAllowed:
		return record.GreylistAutoAllowed
	case greylist.Known:
		return record.GreylistKnown
	case greylist.Waited:
		return record.GreylistWaited
	case greylist.New:
		return record.GreylistNew
	case greylist.Early:
		return record.GreylistEarly
	case greylist.FloodNetwork:
		return record.GreylistFloodNetwork
	}
	return record.GreylistFlood
}

// text returns the reply, which says when to come back. Its status code is
// 4.2.0 ("other mailbox status"), because old Exchange servers treat the policy
// code, 4.7.1, as permanent.
func (g *Greylist) text(o greylist.Outcome, k greylist.Key) string {
	source := "network"
	if k.Domain != "" {
		source = "domain"
	}
	text := fmt.Sprintf("4.2.0 Greylisted, please try again in %d seconds", seconds(o.Wait))
	switch o.Why {
	case greylist.FloodNetwork:
		text = fmt.Sprintf("4.2.0 Too many new senders from your %s in an hour, please try again in %d seconds", source, seconds(o.Wait))
	case greylist.FloodDaemon:
		text = "4.2.0 Too many new senders at the moment, please try again later"
	}
	if g.URL != "" {
		text += "; see " + g.URL
	}
	return text
}

// header returns the header line once for each message. A message has one
// instance, but may have many recipients.
func (g *Greylist) header(r *policy.Request, o greylist.Outcome) string {
	if !g.Header || !g.Instances.First(r.Instance) {
		return ""
	}
	return g.headerOf(r, o)
}

func (g *Greylist) headerOf(r *policy.Request, o greylist.Outcome) string {
	return fmt.Sprintf("X-Greylist: delayed %d seconds by postern at %s; %s",
		seconds(o.Waited), g.Hostname, r.Received.Format(time.RFC1123Z))
}

// seconds rounds up, because a sender that comes back a little early is not
// accepted.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
