package allowlist

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// An entry that can never match is an error, because the administrator relies
// on it.
var (
	errWildcard = errors.New("wild cards are not supported; write a domain, which includes the names below it in most lists")
	errRange    = errors.New("ranges of addresses are not supported; write networks, such as 192.0.2.0/24")
)

// never returns why an entry can never match, nil if it can.
func never(entry string) error {
	if strings.ContainsAny(entry, "*?") {
		return errWildcard
	}
	if first, _, ok := strings.Cut(entry, "-"); ok {
		if _, err := netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			return errRange
		}
	}
	return nil
}

// isNoName reports whether no host or domain can have this name: no top-level
// domain is a number.
func isNoName(name string) bool {
	top := name[strings.LastIndexByte(name, '.')+1:]
	return mailaddr.LooksNumeric(name) || strings.Trim(top, "0123456789-") == ""
}
