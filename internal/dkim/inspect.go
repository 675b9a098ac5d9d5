package dkim

import (
	"crypto"
	"errors"
	"slices"
	"strings"
)

// Inspection is the result of Inspect: how one TXT record at the name of a key
// relates to the key of the signer.
type Inspection struct {
	// Err is the reason why verifiers do not accept the record as a key.
	Err     error
	Revoked bool // p= is empty
	Same    bool // the record has the public half of the key
	Testing bool // t=y
	Strict  bool // t=s: the domain of i= must be equal to d=
	// Unusable is why verifiers refuse signatures of the key, or "".
	Unusable string
}

// Inspect parses one record at the name of a key and compares it with the
// public half.
func Inspect(record string, public crypto.PublicKey) Inspection {
	k, err := parseKey(strings.TrimSpace(record))
	if errors.Is(err, errRevoked) {
		return Inspection{Revoked: true}
	}
	if err != nil {
		return Inspection{Err: err}
	}
	i := Inspection{Same: k.is(public), Testing: k.testing, Strict: k.strict}
	if refused := k.allows(&parsed{keyAlgorithm: k.algorithm}); refused != nil {
		i.Unusable = refused.reason
	}
	return i
}

// Misprint returns the mistake that was made when the record of a key was
// written into the DNS, or "" if no mistake was recognized. want is the
// correct record.
func Misprint(record, want string) string {
	upper := strings.ToUpper(record)
	switch {
	case strings.HasPrefix(strings.TrimSpace(upper), "V=SPF1"):
		return "it is an SPF record, which a wildcard (*) in the zone puts here"
	case strings.Contains(record, `\;`):
		return `it has backslashes before its semicolons; enter it without them`
	case strings.Contains(record, `"`):
		return "it has quotation marks within the text; enter it without them"
	case strings.Contains(upper, "_DOMAINKEY"), strings.Contains(upper, "IN TXT"), strings.Contains(upper, "TXT ("):
		return "it holds the whole line of a zone file; enter only what is between the quotation marks"
	}
	got, key := keyText(record), keyText(want)
	if len(got) >= minCut && len(got) < len(key) && strings.HasPrefix(key, got) {
		return "the key is cut off: the field it was entered into is too short; enter it as several strings of one record"
	}
	return ""
}

// minCut is the least length at which a part of a key is recognized.
const minCut = 40

// keyText returns the text after p= up to the next semicolon, without white
// space. It also works for a list that cannot be parsed.
func keyText(record string) string {
	_, text, ok := strings.Cut(record, "p=")
	if !ok {
		return ""
	}
	text, _, _ = strings.Cut(text, ";")
	return strings.Join(strings.Fields(text), "")
}

// SplitOver reports whether a key was split into several records. It should be
// several strings of one record.
func SplitOver(records []string, public crypto.PublicKey) bool {
	if len(records) < 2 || len(records) > maxSplit {
		return false
	}
	for first := range records {
		rest := slices.Delete(slices.Clone(records), first, first+1)
		joined := records[first] + strings.Join(rest, "")
		slices.Reverse(rest)
		if Inspect(joined, public).Same || Inspect(records[first]+strings.Join(rest, ""), public).Same {
			return true
		}
	}
	return false
}

// maxSplit is how many pieces are joined: an RSA key of 4096 bit needs three.
const maxSplit = 3
