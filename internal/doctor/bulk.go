package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-mail/postern/internal/resolver"
	"github.com/postern-mail/postern/milter/sign"
)

// bulkBits is the size of RSA key that large receivers recommend. They accept none
// below 1024.
const bulkBits = 2048

// ruleResults maps the rules of large receivers to whether a domain follows them.
type ruleResults map[string]bool

// bulkReceiver is a receiver with rules for senders of much mail.
type bulkReceiver struct {
	name  string
	rules []string
}

// bulkReceivers returns the published rules: support.google.com/a/answer/81126,
// senders.yahooinc.com/best-practices, and Outlook's policies for high-volume senders
// of 2025. Outlook asks for a link to unsubscribe, but not for the one-click fields.
func bulkReceivers() []bulkReceiver {
	all := []string{aboutSPF, aboutKey, aboutDMARC, aboutAlignment, aboutHost, aboutFields}
	return []bulkReceiver{
		{"gmail", all},
		{"yahoo", all},
		{"microsoft", all[:len(all)-1]},
	}
}

// ruleText returns what a rule requires.
func ruleText(rule string) string {
	return map[string]string{
		aboutSPF:       "an SPF record that lets this host send",
		aboutKey:       fmt.Sprintf("an RSA key of at least %d bit that verifies", bulkBits),
		aboutDMARC:     "a DMARC record",
		aboutAlignment: "a signature that aligns with From",
		aboutHost:      "a host name for the address of this host, and that address for the name",
		aboutFields:    "List-Unsubscribe and List-Unsubscribe-Post in the signature",
	}[rule]
}

// finding reports whether a receiver would accept much mail of a domain.
func (r bulkReceiver) finding(kept ruleResults) Finding {
	var missing []string
	for _, rule := range r.rules {
		if !kept[rule] {
			missing = append(missing, ruleText(rule))
		}
	}
	if len(missing) > 0 {
		return warnf("see the other findings", "its rules for bulk senders ask for %s", strings.Join(missing, "; "))
	}
	return okf("its rules for bulk senders are kept, as far as DNS and settings show")
}

// checkHost checks the address that mail leaves from, and its name.
func (f *Facts) checkHost(ctx context.Context) *sender {
	ctx, cancel := context.WithTimeout(ctx, f.Options.bounds.lists)
	defer cancel()
	s := &sender{outgoing: f.outgoing(ctx)}
	if len(s.outgoing) == 0 {
		s.findings = []Finding{okf("not looked at: from which address mail leaves cannot be told here (a relay host, a private address, or no Postfix)")}
		return s
	}
	for _, addr := range s.outgoing {
		s.findings = append(s.findings, f.reverse(ctx, addr))
	}
	return s
}

// reverse judges the name of an address. The address must have a name, and the name
// must have that address.
func (f *Facts) reverse(ctx context.Context, addr netip.Addr) Finding {
	fix := fmt.Sprintf("have who gives you the address set its PTR record to %s", f.hostname())
	names, err := f.DNS.LookupAddr(ctx, addr.String())
	if err != nil && !resolver.IsAbsent(err) {
		return warnf("look at the name servers of the address", "%s: its PTR record cannot be looked up: %v", addr, err)
	}
	for _, name := range names {
		addrs, err := f.DNS.LookupNetIP(ctx, "ip", name)
		if err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == addr.Unmap() }) {
			return okf("%s is %s, and that is %s", addr, strings.TrimSuffix(name, "."), addr)
		}
	}
	if len(names) == 0 {
		return failf(fix, "%s has no host name (PTR record): large receivers refuse its mail", addr)
	}
	return failf(fix, "%s is %s by its PTR record, and that name has not this address: large receivers refuse its mail", addr, strings.TrimSuffix(names[0], "."))
}

// checkFields looks for the fields of one-click unsubscription (RFC 8058), which the
// signature must cover.
func (f *Facts) checkFields() []Finding {
	headers, err := sign.ParseHeaders(f.Milterd.list("dkim-headers"))
	if err != nil {
		return nil // the settings have been checked already
	}
	var missing []string
	for _, name := range []string{"List-Unsubscribe", "List-Unsubscribe-Post"} {
		if !headers.Has(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{warnf("add them to dkim-headers", "%s is not signed: one-click unsubscription does not count", strings.Join(missing, ", "))}
}
