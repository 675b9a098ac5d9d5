package greylist

import "strings"

const (
	// minDigits is the length from which a run of digits inside a word counts as
	// a serial number.
	minDigits = 4
	// minHex is the length from which a word of hexadecimal digits counts as an
	// identifier. It must have a decimal digit, so that deadbeef is not masked.
	minHex = 8
	// minOpaque is the length from which a word of letters and digits counts as an
	// identifier. It must have two digits, one of them before the number at its end.
	minOpaque = 20
	// minGroups is the number of hexadecimal words joined by hyphens that make
	// one identifier, as a UUID has five.
	minGroups = 4
	// maxRest is the most letters after a token that belong to the token.
	maxRest = 3
)

// mask replaces what changes from mail to mail.
const mask = "#"

// Sender returns the sender part of a key: the address without the parts that the
// sending system changes from mail to mail. The recipient that VERP writes into a
// sender is dropped too, because the key has the recipient anyway.
//
// The first steps are those of postgrey. So a sender from postgrey's database and
// the same sender in a mail have the same key. Later steps must therefore only
// depend on the result of the first steps.
func Sender(local, domain string) string {
	if local == "" && domain == "" {
		return NullSender
	}
	local = normaliseLocal(strings.Map(wordByte, local))
	if domain == "" {
		return local
	}
	return local + "@" + strings.ToLower(domain)
}

func normaliseLocal(local string) string {
	// The hash of SRS may contain a +, which does not begin an extension.
	local = maskBase64(withoutSRS(withoutTag(local)))
	if plus := strings.IndexByte(local, '+'); plus > 0 {
		local = local[:plus]
	}
	local = replaceWords(local, isWordByte, func(w string) string {
		if count(w, isDigit) == len(w) {
			return mask
		}
		return w
	})
	return maskTokens(local)
}

// maskTokens masks random words and serial numbers. Masking its own result changes
// nothing.
func maskTokens(local string) string {
	return withoutRest(joinGroups(replaceWords(local, isAlnum, maskWord)))
}

// maskBase64 masks a token in base64, which contains / or ends with =. It may also
// contain +, which would otherwise count as the beginning of an extension.
func maskBase64(local string) string {
	if !strings.ContainsAny(local, "/=") || isSRS(local) {
		return local
	}
	return replaceWords(local, isBase64Byte, func(w string) string {
		if strings.Contains(w, "/") || strings.HasSuffix(w, "=") {
			if isOpaque(replaceWords(w, isBase64Sign, func(string) string { return "" })) {
				return mask
			}
		}
		return w
	})
}

// withoutRest removes a few letters that remain at the end after a masked token, as
// in #_xk.
func withoutRest(local string) string {
	at := strings.LastIndexByte(local, '_')
	if at < 1 || local[at-1] != mask[0] || len(local)-at-1 > maxRest || count(local[at+1:], isAlnum) != len(local)-at-1 {
		return local
	}
	return local[:at]
}

// withoutTag removes a tag by which the sending system recognises bounces of its own
// mail: BATV (prvs=tag=user, in some systems prvs=user=tag), btv1==tag==user of
// Barracuda, msprvs1=tag=user of SparkPost.
func withoutTag(local string) string {
	scheme, rest, ok := strings.Cut(local, "=")
	if !ok {
		return local
	}
	switch scheme {
	case "prvs":
		tag, user, ok := strings.Cut(rest, "=")
		if !ok || tag == "" || user == "" {
			return local
		}
		if !isTag(tag) && isTag(user) {
			return tag
		}
		return user
	case "msprvs1":
		if _, user, ok := strings.Cut(rest, "="); ok && user != "" {
			return user
		}
	case "btv1":
		if _, user, ok := strings.Cut(strings.TrimPrefix(rest, "="), "=="); ok && user != "" {
			return user
		}
	}
	return local
}

// isTag reports whether s looks like BATV's key number, day and hash.
func isTag(s string) bool {
	const length = 10
	return len(s) >= length && count(s[:length], isAlnum) == length && count(s[:length], isDigit) > 0
}

// withoutSRS removes hash and day from a rewritten sender:
// srs0=hash=day=domain=user and srs1=hash=forwarder==hash=day=domain=user.
func withoutSRS(local string) string {
	switch {
	case !isSRS(local):
	case local[3] == '0':
		if p := strings.SplitN(local[5:], "=", 3); len(p) == 3 {
			return "srs0=" + p[2]
		}
	default:
		p := strings.SplitN(local[5:], "=", 3)
		if len(p) < 3 {
			break
		}
		if q := strings.SplitN(strings.TrimPrefix(p[2], "="), "=", 3); len(q) == 3 {
			return "srs1=" + p[1] + "==" + q[2]
		}
	}
	return local
}

// isSRS reports whether a sender was rewritten by SRS: it begins with srs0= or
// srs1=, or has - in the place of the first =.
func isSRS(local string) bool {
	return len(local) > 4 && (local[:4] == "srs0" || local[:4] == "srs1") && (local[4] == '=' || local[4] == '-')
}

// maskWord masks a word that is an identifier, or the serial numbers in it.
func maskWord(w string) string {
	digits := count(w, isDigit)
	switch {
	case digits == 0 && isOpaque(w):
		return mask
	case digits == 0:
		return w
	case len(w) >= minHex && count(w, isHex) == len(w), len(w) >= minOpaque && digits > 1 && count(strings.TrimRight(w, "0123456789"), isDigit) > 0:
		return mask
	case isOpaque(w):
		return mask
	}
	return replaceWords(w, isDigit, func(run string) string {
		if len(run) >= minDigits {
			return mask
		}
		return run
	})
}

// joinGroups makes one mask of an identifier in groups, such as a UUID or the sender
// of Amazon SES. Some of its groups were too short to be masked alone.
func joinGroups(local string) string {
	if strings.Count(local, "-") < minGroups-1 || !strings.Contains(local, mask) {
		return local
	}
	return replaceWords(local, isJoined, func(w string) string {
		words := strings.Split(w, "-")
		var out []string
		for len(words) > 0 {
			n := groups(words)
			if n >= minGroups && strings.Contains(strings.Join(words[:n], ""), mask) {
				out, words = append(out, mask), words[n:]
				continue
			}
			n = max(n, 1)
			out, words = append(out, words[:n]...), words[n:]
		}
		return strings.Join(out, "-")
	})
}

// groups counts the words at the beginning that can be part of an identifier.
func groups(words []string) int {
	n := 0
	for n < len(words) && words[n] != "" && count(words[n], isGroupByte) == len(words[n]) {
		n++
	}
	return n
}

// replaceWords replaces each longest run of bytes for which in returns true.
func replaceWords(s string, in func(byte) bool, by func(string) string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && in(s[end]) {
			end++
		}
		if end == i {
			b.WriteByte(s[i])
			i++
			continue
		}
		b.WriteString(by(s[i:end]))
		i = end
	}
	return b.String()
}

func count(s string, is func(byte) bool) int {
	n := 0
	for i := range len(s) {
		if is(s[i]) {
			n++
		}
	}
	return n
}

func isDigit(c byte) bool      { return '0' <= c && c <= '9' }
func isHex(c byte) bool        { return isDigit(c) || 'a' <= c && c <= 'f' }
func isAlnum(c byte) bool      { return isDigit(c) || 'a' <= c && c <= 'z' }
func isGroupByte(c byte) bool  { return isHex(c) || c == mask[0] }
func isBase64Sign(c byte) bool { return c == '+' || c == '/' || c == '=' }
func isBase64Byte(c byte) bool { return isAlnum(c) || isBase64Sign(c) }
func isJoined(c byte) bool     { return isAlnum(c) || c == '-' || c == mask[0] }

// isWordByte reports whether Perl's \b counts a byte as part of a word. Bytes beyond
// ASCII do not count.
func isWordByte(c byte) bool { return isAlnum(c) || c == '_' }
