package dmarcreport

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/postern-mail/postern/internal/dmarc"
	"github.com/postern-mail/postern/internal/mailaddr"
	"github.com/postern-mail/postern/internal/resolver"
)

const (
	// MaxDestinations is the most addresses that get a report.
	MaxDestinations = 5
	maxURIs         = 16 // of a rua tag; further ones are ignored
	maxAddress      = 254
)

// Resolver asks for TXT records, see [dmarc.Resolver].
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Destination is an address that gets a report.
type Destination struct {
	Address string
	// MaxSize is the greatest size of the attachment in octets, 0 for no limit (RFC
	// 7489 section 6.2).
	MaxSize int64
}

// Refused is a URI to which no report is sent.
type Refused struct {
	URI, Why string
	// Name is where the destination does not agree; "" if the reason is another one.
	Name string
}

// Wanted is the result of Find: who wants the reports about a domain.
type Wanted struct {
	Destinations []Destination
	Refused      []Refused
	// Undecided is not nil if the DNS did not answer whether some destinations agree.
	Undecided error
	// Record is false if the domain has no usable DMARC record now.
	Record bool
}

// Find asks the DNS who wants the reports about a domain. An error means that the DNS
// did not answer for the domain itself.
func Find(ctx context.Context, r Resolver, domain string) (Wanted, error) {
	records, err := recordsAt(ctx, r, "_dmarc."+domain+".")
	if err != nil || len(records) != 1 { // several count as none
		return Wanted{}, err
	}
	w := Wanted{Record: true}
	uris := ruaOf(records[0])
	if len(uris) > maxURIs {
		w.refuse(uris[maxURIs], fmt.Sprintf("only the first %d are looked at", maxURIs), "")
		uris = uris[:maxURIs]
	}
	var asked []*answer
	seen := make(map[string]bool)
	for _, uri := range uris {
		d, err := parseURI(uri)
		switch {
		case err != nil:
			w.refuse(uri, err.Error(), "")
		case !seen[d.Address]:
			seen[d.Address] = true
			asked = append(asked, &answer{uri: uri, to: d})
		}
	}
	askAll(ctx, r, domain, asked)
	for _, a := range asked {
		w.take(a)
	}
	return w, nil
}

// answer is what the DNS says about one destination.
type answer struct {
	uri string
	to  Destination
	err error
}

// askAll asks about all destinations at once, so that none delays the others.
func askAll(ctx context.Context, r Resolver, domain string, all []*answer) {
	var asking sync.WaitGroup
	for _, a := range all {
		asking.Go(func() { a.to, a.err = agree(ctx, r, domain, a.to) })
	}
	asking.Wait()
}

// take adds what was asked to the result.
func (w *Wanted) take(a *answer) {
	no := (*disagreement)(nil)
	switch {
	case errors.As(a.err, &no):
		w.refuse(a.uri, no.why, no.name)
	case a.err != nil: // the others need not wait for this
		w.Undecided = errors.Join(w.Undecided, fmt.Errorf("whether %s agrees: %w", a.to.Address, a.err))
	case len(w.Destinations) >= MaxDestinations && !slices.ContainsFunc(w.Destinations, func(d Destination) bool { return d.Address == a.to.Address }):
		w.refuse(a.uri, fmt.Sprintf("only %d addresses get reports", MaxDestinations), "")
	default:
		w.add(a.to)
	}
}

// add adds a destination. Several addresses can have agreed to the same one, which gets
// one report, and the smaller limit.
func (w *Wanted) add(d Destination) {
	i := slices.IndexFunc(w.Destinations, func(one Destination) bool { return one.Address == d.Address })
	if i < 0 {
		w.Destinations = append(w.Destinations, d)
		return
	}
	if size := &w.Destinations[i].MaxSize; *size == 0 || d.MaxSize > 0 && d.MaxSize < *size {
		*size = d.MaxSize
	}
}

func (w *Wanted) refuse(uri, why, name string) {
	w.Refused = append(w.Refused, Refused{URI: uri[:min(len(uri), maxAddress)], Why: why, Name: name})
}

// recordsAt returns the DMARC records at a name, in an order that does not depend on the
// order of the answer.
func recordsAt(ctx context.Context, r Resolver, name string) (records []string, err error) {
	texts, err := r.LookupTXT(ctx, name)
	if resolver.IsAbsent(err) {
		return nil, nil
	}
	for _, text := range texts {
		if _, ok := dmarc.ParseRecord(text); ok {
			records = append(records, text)
		}
	}
	slices.Sort(records)
	return records, err
}

// ruaOf returns the URIs of the rua tag, or none if the tag occurs twice.
func ruaOf(record string) (uris []string) {
	found := false
	for tag := range strings.SplitSeq(record, ";") {
		name, value, ok := strings.Cut(tag, "=")
		if !ok || !strings.EqualFold(strings.TrimSpace(name), "rua") {
			continue
		}
		if found {
			return nil
		}
		found = true
		for uri := range strings.SplitSeq(value, ",") {
			if uri = strings.TrimSpace(uri); uri != "" {
				uris = append(uris, uri)
			}
		}
	}
	return uris
}

// parseURI parses mailto:ADDRESS, which may end in a size limit such as "!10m".
func parseURI(uri string) (d Destination, err error) {
	scheme, rest, _ := strings.Cut(uri, ":")
	if !strings.EqualFold(scheme, "mailto") {
		return d, errors.New("it is no mailto: address")
	}
	if at := strings.LastIndexByte(rest, '!'); at >= 0 {
		if d.MaxSize, err = parseSize(rest[at+1:]); err != nil {
			return d, err
		}
		rest = rest[:at]
	}
	rest, _, _ = strings.Cut(rest, "?")
	text, err := url.PathUnescape(rest)
	if err != nil {
		return d, err
	}
	address := mailaddr.Parse(text)
	if !address.IsValid() || !Plain(text) {
		return d, errors.New("it has no address that can be used")
	}
	d.Address = address.Local + "@" + address.Domain
	if len(d.Address) > maxAddress {
		return d, errors.New("its address is too long")
	}
	return d, nil
}

// Plain reports whether an address needs no quoting. Other addresses are not used,
// because they are probably attacks.
func Plain(address string) bool {
	for _, b := range []byte(address) {
		if b <= ' ' || b >= 0x7f || strings.IndexByte("\"<>()[]\\,;:", b) >= 0 {
			return false
		}
	}
	return true
}

// parseSize parses a number that may end in k, m, g or t.
func parseSize(text string) (int64, error) {
	shift := 0
	digits := strings.ToLower(text)
	if n := len(digits); n > 0 {
		if unit := strings.IndexByte("kmgt", digits[n-1]); unit >= 0 {
			shift, digits = 10*(unit+1), digits[:n-1]
		}
	}
	n, err := strconv.ParseUint(digits, 10, 62-shift)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("its size limit %.20q is no number with k, m, g or t", text)
	}
	return int64(n) << shift, nil
}

// disagreement is why a destination does not get the reports that it would have to agree to.
type disagreement struct{ name, why string }

func (d *disagreement) Error() string { return d.why }

// agree asks the DNS whether a destination in another organization wants the reports
// about a domain (RFC 9990). Without this, anyone could direct reports to any address. One
// record is enough to agree, and several agree too. Each may name another address at the
// same host; the first that does is used.
func agree(ctx context.Context, r Resolver, domain string, d Destination) (Destination, error) {
	host := hostOf(d.Address)
	if dmarc.PSLOrg(host) == dmarc.PSLOrg(domain) {
		return d, nil
	}
	name := domain + "._report._dmarc." + host
	if len(name) > mailaddr.MaxDomain {
		return d, &disagreement{name, host + " cannot be asked, the name is too long"}
	}
	records, err := recordsAt(ctx, r, name+".")
	if err != nil {
		return d, err
	}
	if len(records) == 0 {
		return d, &disagreement{name, fmt.Sprintf("%s does not agree, there is no v=DMARC1 at %s", host, name)}
	}
	var moved []Destination
	for _, record := range records {
		uris := ruaOf(record)
		if len(uris) == 0 {
			continue
		}
		other, err := parseURI(uris[0])
		if err != nil || hostOf(other.Address) != host {
			return d, &disagreement{name, fmt.Sprintf("%s names %.100q, which is not at %s", name, uris[0], host)}
		}
		moved = append(moved, other)
	}
	if len(moved) > 0 {
		return moved[0], nil
	}
	return d, nil
}

func hostOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }
