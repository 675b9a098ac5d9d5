// Package mark marks mail that we have judged, so that a later pass of the same mail
// knows the verdict.
//
// Mail may pass our milters more than once: a content filter hands it back from
// 127.0.0.1, a backup MX delivers it to the primary, Sieve forwards it with
// sendmail(1). The client's address proves nothing then. So the first pass adds a
// field
//
//	X-Postern-Mark: v=1; t=1764167000; x=1764771800; dmarc=fail; dis=mark;
//	 f=…; u=…; r=…; bh=…; b=…
//
// with a keyed hash (b=, HMAC-SHA256) over the verdict, its time and expiry, and
// hashes of the From fields (f=), of the local parts in them (u=), of our
// Authentication-Results (r=) and of the body (bh=). The hosts of a site share the
// key.
//
// Content filters add fields, rewrite the Subject, fold fields anew, and some
// change the body. Hence:
//
//   - White space does not count in any of the hashes, so that folding and line
//     ends may change. Fields other than From may change too.
//   - A mark with the right keyed hash is genuine: it is our verdict on some mail.
//     That is enough to keep a bad verdict, because it can only harm the mail that
//     carries it.
//   - A good verdict counts only with the same From, the same results and the
//     same body (see [Sealed.Whole]). Otherwise anyone who got one good mail from us
//     could put its mark on another.
//   - A different From may come from a list of ours, or from cleanup(8), which
//     completes "ceo" or "ceo@host" when the mail is forwarded. The local parts
//     distinguish the two (see [Sealed.Completed]).
//
// Invariants: no panics; the cost is linear in the input; at most [MaxMarks] fields
// are read; the key is never printed.
package mark

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/author"
)

// Field is the name of the field.
const Field = "X-Postern-Mark"

const (
	// MaxMarks is how many fields of one mail are read.
	MaxMarks = 8
	// Lifetime is how long a mark is valid: mail waits up to five days in the
	// queue of a relay.
	Lifetime = 7 * 24 * time.Hour
	// skew is how far the clocks of our hosts may differ.
	skew = 5 * time.Minute
	// maxField bounds what is read of a field, in octets.
	maxField = 1000
	// prefix keeps the hash apart from any other use of the key.
	prefix = "postern mark v1\n"
)

// Done is what the first pass did with the mail.
type Done string

// What was done.
const (
	Delivered   Done = "none"
	Quarantined Done = "mark" // delivered with the field that says quarantine
	Held        Done = "hold" // put into the hold queue; a person who releases it has decided
)

// Verdict is our judgement of a mail.
type Verdict struct {
	DMARC string // the result, as Authentication-Results spells it
	Done  Done
	At    time.Time
}

// Passed reports whether the mail was proven to be its author's.
func (v Verdict) Passed() bool { return v.DMARC == "pass" && v.Done == Delivered }

// Forged reports whether the mail failed: it must never get a signature of ours.
func (v Verdict) Forged() bool {
	return v.DMARC == "fail" || v.DMARC == "permerror" || v.Done != Delivered
}

// Content has the hashes of what a mark covers. Locals is "" for a mail whose From
// has no address with a domain, see [HashOfLocals].
type Content struct{ From, Locals, Results, Body string }

// Keys make and check marks. The zero value, and nil, have no key.
type Keys struct{ secrets [][]byte }

// String does not print the keys.
func (*Keys) String() string { return "***" }

// GoString does not print the keys either.
func (*Keys) GoString() string { return "***" }

// New returns keys of these secrets: the first one makes marks, all of them check.
func New(secrets ...[]byte) *Keys { return &Keys{secrets} }

// Seal returns the value of a new field.
func (k *Keys) Seal(v Verdict, c Content) string {
	tags := strings.Join([]string{
		"v=1",
		"t=" + strconv.FormatInt(v.At.Unix(), 10),
		"x=" + strconv.FormatInt(v.At.Add(Lifetime).Unix(), 10),
		"dmarc=" + v.DMARC,
		"dis=" + string(v.Done),
		"f=" + c.From,
		"u=" + c.Locals,
		"r=" + c.Results,
		"bh=" + c.Body,
	}, "; ")
	sum := sign(k.secrets[0], bare(tags))
	head, tail, _ := strings.Cut(tags, " f=")
	return head + "\n\tf=" + tail + ";\n\tb=" + encode(sum)
}

// Sealed is a genuine mark.
type Sealed struct {
	Verdict
	Content
}

// Whole reports whether a mail with this content is the one that was judged.
func (s *Sealed) Whole(c Content) bool { return s.Content == c }

// Completed reports whether a From with these local parts may be the judged one after
// the MTA rewrote it. The MTA may complete it, masquerade its domain, or apply
// canonical maps. A From without any domain may become anything.
func (s *Sealed) Completed(locals string) bool { return s.Locals == "" || s.Locals == locals }

// Errors of Open.
var (
	errForm    = errors.New("not the form of a mark")
	errKey     = errors.New("made with another key, or altered")
	errExpired = errors.New("expired")
)

// Open parses the value of a field and checks it. An error means that the field is no
// valid mark.
func (k *Keys) Open(value string, now time.Time) (*Sealed, error) {
	s, err := k.genuine(value, now)
	if err == nil && s.early(now) {
		return nil, errExpired
	}
	return s, err
}

// early reports whether the mark was made in the future: the clock was set back since, or
// that of the host that made it is wrong.
func (s *Sealed) early(now time.Time) bool { return s.At.After(now.Add(skew)) }

// genuine is Open for a mark that may be early.
func (k *Keys) genuine(value string, now time.Time) (*Sealed, error) {
	if k == nil || len(value) > maxField {
		return nil, errForm
	}
	text, sum, ok := strings.Cut(bare(value), ";b=")
	if !ok || !k.made(text, sum) {
		return nil, errKey
	}
	tags, ok := split(text)
	if !ok {
		return nil, errForm
	}
	made, err := strconv.ParseInt(tags["t"], 10, 64)
	if err != nil {
		return nil, errForm
	}
	expiry, err := strconv.ParseInt(tags["x"], 10, 64)
	if err != nil {
		return nil, errForm
	}
	s := &Sealed{
		Verdict{tags["dmarc"], Done(tags["dis"]), time.Unix(made, 0)},
		Content{tags["f"], tags["u"], tags["r"], tags["bh"]},
	}
	if now.After(time.Unix(expiry, 0)) {
		return nil, errExpired
	}
	return s, nil
}

// made reports whether one of the keys made the hash of the tags.
func (k *Keys) made(text, sum string) bool {
	given, err := base64.StdEncoding.DecodeString(sum)
	if err != nil {
		return false
	}
	for _, secret := range k.secrets {
		if hmac.Equal(given, sign(secret, text)) {
			return true
		}
	}
	return false
}

// split reads tags in the order in which Seal writes them.
func split(text string) (map[string]string, bool) {
	tags := make(map[string]string)
	for tag := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(tag, "=")
		if _, twice := tags[name]; !ok || twice {
			return nil, false
		}
		tags[name] = value
	}
	return tags, tags["v"] == "1"
}

// hashLength is how many octets of a hash are kept. The keyed hash covers them, so an
// attacker would need a second content with the same hash.
const hashLength = 16

func sign(secret []byte, text string) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(prefix + text))
	return mac.Sum(nil)
}

func encode(sum []byte) string { return base64.StdEncoding.EncodeToString(sum) }

// Hash hashes one part of a mail; white space does not count.
type Hash struct {
	sum  hash.Hash
	room [1024 + 8]byte
}

// NewHash returns the hash of nothing.
func NewHash() *Hash { return &Hash{sum: sha256.New()} }

// Write adds p. It never fails.
func (h *Hash) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, len(h.room)-8) {
		h.sum.Write(h.room[:squeeze(h.room[:], part)])
	}
	return len(p), nil
}

// squeeze copies everything but white space and returns its length. into needs room
// for 8 more octets. It handles 8 octets at a time. One at a time, hashing a text
// would take a sixth longer, and hashing an attachment two thirds longer
// (BenchmarkHash).
func squeeze(into, from []byte) (n int) {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; len(from) >= 8; from = from[8:] {
		word := binary.LittleEndian.Uint64(from)
		length := 8
		// The high bit of each octet up to ' '.
		for low := ^((word&^high + (0x7f-' ')*each) | word) & high; low != 0; {
			at := bits.TrailingZeros64(low) &^ 7
			if !blank(byte(word >> at)) {
				low &= low - 1 // another control character
				continue
			}
			before := uint64(1)<<at - 1
			word = word&before | word>>8&^before
			low = low&before | low>>8&^before
			length--
		}
		binary.LittleEndian.PutUint64(into[n:], word)
		n += length
	}
	for _, c := range from {
		if !blank(c) {
			into[n] = c
			n++
		}
	}
	return n
}

// Sum returns the hash of what was written.
func (h *Hash) Sum() string { return encode(h.sum.Sum(nil)[:hashLength]) }

// HashOf hashes values of fields, each separately.
func HashOf(values ...string) string {
	h := NewHash()
	for _, v := range values {
		_, _ = h.Write([]byte(v))
		h.sum.Write([]byte{'\n'})
	}
	return h.Sum()
}

// HashOfLocals hashes the local parts of an author's addresses; it returns "" for
// none. Their order, case and quotes do not count.
func HashOfLocals(a *author.Author) string {
	if len(a.Mailboxes) == 0 {
		return ""
	}
	locals := make([]string, len(a.Mailboxes))
	for i, m := range a.Mailboxes {
		locals[i] = strings.ToLower(strings.Trim(m.Local, `"`))
	}
	slices.Sort(locals)
	return HashOf(slices.Compact(locals)...)
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// bare drops white space.
func bare(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x80 && blank(byte(r)) {
			return -1
		}
		return r
	}, s)
}
