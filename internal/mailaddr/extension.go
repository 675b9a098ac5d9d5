package mailaddr

import "strings"

// Local parts that are never split, as in Postfix.
const (
	postmaster   = "postmaster"
	mailerDaemon = "mailer-daemon"
	doubleBounce = "double-bounce"
	ownerPrefix  = "owner-"
	requestEnd   = "-request"
)

// SplitExtension splits user+extension as Postfix's recipient_delimiter does.
// delims is a set of ASCII characters, and the leftmost one in the local part
// splits it. postmaster, mailer-daemon and double-bounce are never split. With
// "-" in the set, owner-list and list-request are not split either
// (owner_request_special, on by default). An extension may be empty, a base may
// not. base keeps the Raw of the whole address. If there is nothing to split,
// ok is false and base is the address itself.
func (a Address) SplitExtension(delims string) (base Address, ext string, ok bool) {
	at := extensionAt(a.Local, delims)
	if at < 0 {
		return a, "", false
	}
	base = a
	base.Local, base.plain = a.Local[:at], false
	return base, a.Local[at+1:], true
}

// extensionAt returns the index of the delimiter that splits local, or -1.
func extensionAt(local, delims string) int {
	if delims == "" {
		return -1
	}
	at := indexAny(local, delims)
	if at <= 0 || isReserved(local, delims) {
		return -1
	}
	return at
}

// indexAny is strings.IndexAny, with a fast path for one delimiter, the usual
// case.
func indexAny(s, chars string) int {
	if len(chars) == 1 {
		return strings.IndexByte(s, chars[0])
	}
	return strings.IndexAny(s, chars)
}

func isReserved(local, delims string) bool {
	if equalFold(local, postmaster) || equalFold(local, mailerDaemon) || equalFold(local, doubleBounce) {
		return true
	}
	if strings.IndexByte(delims, '-') < 0 {
		return false
	}
	if len(local) >= len(ownerPrefix) && equalFold(local[:len(ownerPrefix)], ownerPrefix) {
		return true
	}
	n := len(local) - len(requestEnd)
	return n > 0 && equalFold(local[n:], requestEnd)
}

func equalFold(s, t string) bool { return len(s) == len(t) && strings.EqualFold(s, t) }
