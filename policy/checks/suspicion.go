package checks

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/postern-mail/postern/internal/helo"
	"github.com/postern-mail/postern/internal/spf"
	"github.com/postern-mail/postern/policy"
)

// The grounds of suspicion, as the record names them.
const (
	suspectDNSBL       = "dnsbl_score"      // the client is on a DNS list, below the threshold
	suspectAbused      = "dbl_abused"       // a legitimate domain that is being abused
	suspectFresh       = "zrd_fresh"        // a domain first seen in the last hours
	suspectNoName      = "no_reverse_name"  // the address has no name
	suspectUnconfirmed = "unconfirmed_name" // it has a name that does not lead back
	suspectDynamic     = "dynamic_name"     // the name looks like a customer's line
	suspectHelo        = "helo_mismatch"    // HELO is not a name of the client
	suspectSPF         = "spf_"             // and the status
)

// suspicions returns the grounds of suspicion in a request. A DNS failure is
// not a ground. It is returned as the error.
func suspicions(ctx context.Context, resolver spf.Resolver, r *policy.Request, prior policy.Signals, result *spf.Result) (found []string, unknown error) {
	add := func(name string, is bool) {
		if is {
			found = append(found, name)
		}
	}
	add(suspectDNSBL, prior[policy.DNSBLScore] > 0)
	add(suspectAbused, prior[policy.DBLAbused] != 0)
	add(suspectFresh, prior[policy.ZRDFresh] != 0)
	add(suspectNoName, r.Client.Name == "" && r.Client.ReverseName == "")
	add(suspectUnconfirmed, r.Client.Name == "" && r.Client.ReverseName != "")
	add(suspectDynamic, looksDynamic(r.Client.ReverseName, r.Client.Address) || looksDynamic(r.Client.Name, r.Client.Address))
	if result != nil {
		switch result.Status {
		case spf.Fail, spf.SoftFail, spf.None:
			found = append(found, suspectSPF+string(result.Status))
		case spf.TempError:
			unknown = fmt.Errorf("SPF: %w", result.Err)
		}
	}
	verdict, err := helo.Judge(ctx, resolver, r.Helo, helo.Client{Addr: r.Client.Address, Name: r.Client.Name})
	add(suspectHelo, verdict == helo.Misleads)
	switch {
	case unknown == nil:
		unknown = err
	case err != nil:
		unknown = fmt.Errorf("%w; %w", unknown, err)
	}
	return found, unknown
}

// dynamicWords are words in the names that providers give to lines of
// customers.
const dynamicWords = " adsl broadband cable catv cpe cust customer dhcp dial dialin dialup dsl dyn dynamic dynip fiber ftth gprs home hsd pool ppp pppoe res retail user vdsl wimax xdsl "

// looksDynamic reports whether a name contains the client's address, in any
// order or in hexadecimal, or a word for a customer's line. A name with
// "static" is never dynamic.
func looksDynamic(name string, addr netip.Addr) bool {
	name = strings.ToLower(name)
	if name == "" || strings.Contains(name, "static") {
		return false
	}
	words := strings.FieldsFunc(name, func(c rune) bool { return c == '.' || c == '-' || c == '_' })
	for _, w := range words[:max(len(words)-2, 0)] { // the last two are the provider's domain
		if strings.Contains(dynamicWords, " "+strings.TrimRight(w, "0123456789")+" ") {
			return true
		}
	}
	return addr.Is4() && holdsOctets(name, addr.As4())
}

// holdsOctets reports whether a name contains at least three octets of an
// address, in any order, or the address in hexadecimal.
func holdsOctets(name string, ip [4]byte) bool {
	octet := func(i int) string { return strconv.Itoa(int(ip[i])) }
	var numbers []string
	for _, w := range strings.FieldsFunc(name, func(c rune) bool { return c < '0' || c > '9' }) {
		if w = strings.TrimLeft(w, "0"); w == "" {
			w = "0"
		}
		numbers = append(numbers, w)
	}
	found := 0
	for i := range ip {
		for _, n := range numbers {
			if n == octet(i) {
				found++
				break
			}
		}
	}
	hex := ""
	for _, b := range ip {
		hex += strconv.FormatUint(uint64(b)+0x100, 16)[1:]
	}
	return found >= 3 && len(numbers) >= 3 || strings.Contains(name, hex)
}
