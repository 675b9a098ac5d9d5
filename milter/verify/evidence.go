package verify

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/postern-mail/postern/dnsbl"
	"github.com/postern-mail/postern/internal/arc"
	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/helo"
	"github.com/postern-mail/postern/milter/authres"
)

// BlockList looks up a client in DNS lists. *dnsbl.Lists implements it.
type BlockList interface {
	Check(ctx context.Context, q dnsbl.Query) (dnsbl.Result, error)
}

// Evidence is what is known for or against a mail, beside the results of the checks.
type Evidence struct {
	// Signals are signs that the mail is forged. They are collected only if it fails
	// under a policy of reject.
	Signals []Signal
	// Unknown are the errors of signals that could not be looked up in DNS.
	Unknown []error
	Traits  Traits
	// Allowed is why the administrator's settings let the mail through, "" if they do
	// not.
	Allowed string
	// Forwarder is set when the client is a trusted forwarder.
	Forwarder bool
	// Marked is set when an earlier pass through our hosts marked the mail.
	Marked bool
	// Sealer is the trusted server that vouches for the author, "" for none.
	Sealer string
}

// Signal is one sign that a mail is forged, with the reason.
type Signal struct {
	Kind   SignalKind
	Detail string
}

// Traits are the fields that show that a mail looks like one of a mailing list or of
// a forwarder: the name of the first such field, "" for none. Any sender can add
// them.
type Traits struct {
	List, Forwarder string
	// Report is set when the subject is that of a DMARC report (RFC 9990).
	Report bool
}

// reportSubject begins the subject of a DMARC report.
const reportSubject = "report domain:"

// traitsOf returns the traits of a header.
func traitsOf(fields []Field) (t Traits) {
	for _, f := range fields {
		name := strings.ToLower(strings.TrimRight(f.Name, " \t"))
		switch {
		case t.List == "" && (name == "list-id" || name == "list-post"):
			t.List = strings.TrimRight(f.Name, " \t")
		case t.Forwarder == "" && (name == "sender" || strings.HasPrefix(name, "resent-")):
			t.Forwarder = strings.TrimRight(f.Name, " \t")
		case name == "subject":
			t.Report = t.Report || strings.HasPrefix(strings.ToLower(strings.TrimLeft(f.Value, " \t\r\n")), reportSubject)
		}
	}
	return t
}

// Why mail is let through.
const (
	allowedByList = "listed"
	allowedLocal  = "from this machine"
	allowedRelay  = "from a client of our relay that its Received field does not name"
)

// evidence collects the evidence, except the traits.
func (v *Verifier) evidence(ctx context.Context, f *Findings) (e Evidence) {
	o := &v.options.DMARC
	client, name := f.Envelope.Client, ""
	if f.IPRev.Value == authres.Pass {
		name = f.IPRev.Name
	}
	switch {
	case anonymous(client) && f.Envelope.Relayed:
		e.Allowed = allowedRelay
	case anonymous(client):
		e.Allowed = allowedLocal
	case len(f.Author.Domains) > 0 && f.Author.Defect == "" &&
		!slices.ContainsFunc(f.Author.Domains, func(d string) bool { return !o.Allow.Has(d, client, name) }):
		e.Allowed = allowedByList
	}
	e.Forwarder = v.options.forwarder(client, f.IPRev)
	e.Sealer = vouching(o, &f.ARC, &f.DMARC)
	if failsReject(&f.DMARC.Verdict) && !anonymous(client) {
		v.signals(ctx, f, &e)
	}
	return e
}

// forwarder reports whether the client is one of the trusted forwarders.
func (o *Options) forwarder(client netip.Addr, r IPRev) bool {
	name := ""
	if r.Value == authres.Pass {
		name = r.Name
	}
	return o.DMARC.Forwarders.Has(client, name)
}

// vouching returns the trusted sealer that saw DMARC pass for every domain that fails
// here. No one vouches for several From fields: a signature of the sealer covers only the
// last one, so that another may have been added to mail that it has sealed.
func vouching(o *DMARCOptions, chain *arc.Result, report *dmarc.Report) (sealer string) {
	if report.Author.Fields > 1 {
		return ""
	}
	for _, r := range report.Results {
		if r.Status != dmarc.Fail {
			continue
		}
		by, ok := chain.Vouched(o.Sealers.Has, r.Domain)
		if !ok {
			return ""
		}
		sealer = by
	}
	return sealer
}

// failsReject reports whether a mail fails under a policy of reject.
func failsReject(r *dmarc.Result) bool {
	return r.Status == dmarc.Fail && r.Policy == dmarc.PolicyReject
}

// signals collects the signs of forgery. Those that need DNS are asked concurrently.
func (v *Verifier) signals(ctx context.Context, f *Findings, e *Evidence) {
	o := &v.options.DMARC
	var running sync.WaitGroup
	name := start(&running, func() found { return v.heloSignal(ctx, f) })
	listed := start(&running, func() found { return blockListSignal(ctx, o.BlockList, f.Envelope.Client) })
	e.addSignal(reverseSignal(f.IPRev), nil)
	for _, work := range []*later[found]{name, listed} {
		got := work.wait()
		if work.err != nil {
			got = found{err: work.err}
		}
		e.addSignal(got.signal, got.err)
	}
	for _, domain := range f.Author.Domains {
		if o.OurDomain(domain) {
			e.addSignal(Signal{SignalOurDomain, "we sign mail of " + domain}, nil)
			break
		}
	}
}

// found is the outcome of the search for one signal. Its Kind is "" if there is none.
type found struct {
	signal Signal
	err    error // of DNS
}

func (e *Evidence) addSignal(s Signal, err error) {
	if err != nil {
		e.Unknown = append(e.Unknown, err)
	}
	if s.Kind != "" {
		e.Signals = append(e.Signals, s)
	}
}

// reverseSignal judges the client's name.
func reverseSignal(r IPRev) Signal {
	switch r.Value {
	case authres.PermError:
		return Signal{SignalReverseName, "the client has no reverse name"}
	case authres.Fail:
		return Signal{SignalReverseName, "the client's reverse name " + r.Name + " does not lead back to it"}
	}
	return Signal{}
}

// heloSignal looks for a HELO argument that does not lead to the client.
func (v *Verifier) heloSignal(ctx context.Context, f *Findings) found {
	client := helo.Client{Addr: f.Envelope.Client}
	if f.IPRev.Value == authres.Pass {
		client.Name = f.IPRev.Name
	}
	verdict, err := helo.Judge(ctx, v.options.Resolver, f.Envelope.Helo, client)
	if verdict != helo.Misleads {
		return found{err: err}
	}
	return found{signal: Signal{SignalHelo, "HELO " + f.Envelope.Helo + " does not lead to the client"}}
}

// blockListSignal looks up the client in the lists.
func blockListSignal(ctx context.Context, lists BlockList, client netip.Addr) found {
	if lists == nil {
		return found{}
	}
	r, err := lists.Check(ctx, dnsbl.Query{Address: client.Unmap().WithZone("")})
	if err != nil {
		return found{err: fmt.Errorf("block list: %w", err)}
	}
	if r.Outcome != dnsbl.Listed {
		return found{}
	}
	detail := "the client is listed"
	if hit := r.Best(); hit != nil {
		detail += " by " + hit.Zone + " (" + hit.Meaning() + ")"
	}
	return found{signal: Signal{SignalBlockList, detail}}
}
