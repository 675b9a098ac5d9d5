package dmarc

import "context"

// discovery is the policy that applies to one author domain.
type discovery struct {
	record  *Record // usable; nil if no policy applies
	domain  string  // the domain that has the record: the Policy Domain
	reason  Reason  // why record is nil: NoRecord, BadRecord or DNSPolicy
	policy  Policy  // before t and pct
	missing bool    // the author domain does not exist
	walk    *Walk   // of the author domain, if one was needed
	err     error
}

// discover finds the policy for an author domain. It comes from the domain's
// own record, that of its organization, or that of the public suffix (RFC 9989
// section 4.10.1).
func (f *finder) discover(ctx context.Context, m Method, author string) discovery {
	own := f.record(ctx, author)
	switch {
	case own.Err != nil:
		return discovery{reason: DNSPolicy, err: own.Err}
	case own.Record != nil:
		return own.policyFor(author)
	case m == MethodPSL:
		return f.discoverPSL(ctx, author, own)
	}
	w := f.walk(ctx, author)
	d := discovery{reason: NoRecord, walk: &w}
	if w.Err != nil {
		d.reason, d.err = DNSPolicy, w.Err
		return d
	}
	domain, record := w.Org, w.step(w.Org)
	if record == nil {
		domain, record = w.suffixRecord()
	}
	if record == nil {
		return d
	}
	d = f.inherit(ctx, author, domain, *record)
	d.walk = &w
	return d
}

// discoverPSL uses the organizational domain from the Public Suffix List.
// Several records at the author domain end the discovery (RFC 7489 section
// 6.6.3, step 5). In RFC 9989 they count as no record, and the discovery
// continues.
func (f *finder) discoverPSL(ctx context.Context, author string, own Step) discovery {
	org := PSLOrg(author)
	if own.Discarded > 0 || org == author {
		return discovery{reason: NoRecord}
	}
	s := f.record(ctx, org)
	switch {
	case s.Err != nil:
		return discovery{reason: DNSPolicy, err: s.Err}
	case s.Record == nil:
		return discovery{reason: NoRecord}
	}
	return f.inherit(ctx, author, org, *s.Record)
}

// policyFor returns the policy in the author domain's own record.
func (s Step) policyFor(author string) discovery {
	r, ok := s.Record.usable()
	if !ok {
		return discovery{domain: author, reason: BadRecord}
	}
	return discovery{record: &r, domain: author, policy: r.P}
}

// inherit returns the policy for the author domain in the record of a domain
// above it. It asks the DNS whether the author domain exists only if the
// policy depends on it.
func (f *finder) inherit(ctx context.Context, author, domain string, record Record) discovery {
	r, ok := record.usable()
	if !ok {
		return discovery{domain: domain, reason: BadRecord}
	}
	d := discovery{record: &r, domain: domain, policy: r.forSubdomain(true)}
	if r.forSubdomain(false) == d.policy {
		return d
	}
	exists, err := f.domainExists(ctx, author)
	if err != nil {
		return discovery{domain: domain, reason: DNSPolicy, err: err}
	}
	d.missing, d.policy = !exists, r.forSubdomain(exists)
	return d
}
