package dkim

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/postern-mail/postern/internal/mailaddr"
)

// refusal is a status other than pass, with the reason for the report.
type refusal struct {
	status Status
	reason string
}

func (r *refusal) Error() string { return string(r.status) + ": " + r.reason }

func permError(reason string) *refusal { return &refusal{PermError, reason} }

// parsed is a parsed DKIM-Signature field. Even if the field is refused,
// Signature has the tags that could be parsed, for the report.
type parsed struct {
	Signature

	field        Field
	keyAlgorithm string // rsa or ed25519
	header, body Canonicalization
	bodyHash     []byte
	signature    []byte
	limit        int64  // l=
	text         string // b= without white space
	// bStart and bEnd are the bounds of the value of b= in field.Value. The hash
	// of the header leaves it out.
	bStart, bEnd int
}

// parseSignature parses the field at index. The refusal is nil if the
// signature must be verified.
func parseSignature(field Field, index int) (*parsed, *refusal) {
	p, tags, err := openSignature(field, index)
	switch {
	case errors.Is(err, errFieldLong):
		return p, permError("signature " + err.Error())
	case err != nil:
		return p, permError("signature syntax: " + err.Error())
	}
	for _, read := range []func(tagList) *refusal{
		p.readRequired, p.readDomain, p.readIdentity, p.readNames, p.readTimes,
		p.readAlgorithm, p.readLength, p.readCanonicalization, p.readQuery, p.readHashes,
	} {
		if refused := read(tags); refused != nil {
			return p, refused
		}
	}
	return p, nil
}

var errFieldLong = errors.New("field too long")

// openSignature parses the tags of a field of DKIM or ARC, and fills in the
// description. The error contains only our own text, and can be shown.
func openSignature(field Field, index int) (*parsed, tagList, error) {
	p := &parsed{field: field}
	p.Index = index
	if len(field.Value) > maxSignature {
		return p, nil, errFieldLong
	}
	tags, err := parseTags(field.Value)
	if err != nil {
		return p, nil, err
	}
	p.describe(tags)
	b, _ := tags.get("b")
	p.bStart, p.bEnd = b.start, b.end
	return p, tags, nil
}

// describe fills in what the report shows for every signature.
func (p *parsed) describe(tags tagList) {
	p.Domain = strings.ToLower(tags.text("d"))
	p.Selector = tags.text("s")
	p.Algorithm = tags.text("a")
	p.text = tags.text("b")
	p.Identity = tags.text("i")
	if p.Identity == "" && p.Domain != "" {
		p.Identity = "@" + p.Domain
	}
}

// readRequired checks that all required tags are present (section 3.5).
func (p *parsed) readRequired(tags tagList) *refusal {
	if v, ok := tags.get("v"); ok && v.value != "1" {
		return permError("signature version is not 1")
	}
	for _, name := range []string{"v", "a", "b", "bh", "d", "h", "s"} {
		if _, ok := tags.get(name); !ok {
			return permError("signature has no " + name + "=")
		}
	}
	return nil
}

func (p *parsed) readDomain(tagList) *refusal {
	domain, err := mailaddr.ParseDomain(p.Domain)
	if err != nil {
		return permError("d= is not a domain")
	}
	p.Domain = domain
	if err := p.readSelector(); err != nil {
		return permError("s= is not a selector")
	}
	return nil
}

// readSelector converts U-labels to A-labels, because the DNS is asked for
// A-labels (RFC 8616 section 5).
func (p *parsed) readSelector() error {
	if strings.ContainsFunc(p.Selector, func(r rune) bool { return r >= utf8.RuneSelf }) {
		selector, err := mailaddr.ParseDomain(p.Selector)
		if err != nil {
			return err
		}
		p.Selector = selector
	}
	_, err := mailaddr.ParseDomain(p.keyName())
	return err
}

// keyName returns the domain name of the key record (section 3.6.2.1).
func (p *parsed) keyName() string {
	return p.Selector + "._domainkey." + p.Domain
}

// readIdentity checks that i= is in d= or below it. The local part may contain
// any character, even "@", so the domain begins after the last "@".
func (p *parsed) readIdentity(tags tagList) *refusal {
	if _, ok := tags.get("i"); !ok {
		p.Identity = "@" + p.Domain
		return nil
	}
	domain, refused := p.identityDomain()
	if refused != nil {
		return refused
	}
	if domain != p.Domain && !strings.HasSuffix(domain, "."+p.Domain) {
		return permError("i= is not below d=")
	}
	return nil
}

func (p *parsed) identityDomain() (string, *refusal) {
	at := strings.LastIndexByte(p.Identity, '@')
	if at < 0 {
		return "", permError("i= has no @")
	}
	domain, err := mailaddr.ParseDomain(p.Identity[at+1:])
	if err != nil {
		return "", permError("i= has no domain")
	}
	return domain, nil
}

func (p *parsed) readNames(tags tagList) *refusal {
	if refused := p.splitNames(tags); refused != nil {
		return refused
	}
	if slices.Contains(p.Signed, "") {
		return permError("empty name in h=")
	}
	return p.checkFrom()
}

func (p *parsed) splitNames(tags tagList) *refusal {
	h := tags.text("h")
	if strings.Count(h, ":") >= MaxSignedNames {
		return permError("too many names in h=")
	}
	p.Signed = strings.Split(h, ":")
	return nil
}

func (p *parsed) checkFrom() *refusal {
	if !p.signs("From") {
		return permError("From is not signed")
	}
	return nil
}

func (p *parsed) signs(name string) bool {
	return slices.ContainsFunc(p.Signed, func(signed string) bool { return strings.EqualFold(signed, name) })
}

func (p *parsed) readTimes(tags tagList) *refusal {
	var ok bool
	if p.Time, ok = readTime(tags, "t"); !ok {
		return permError("t= is not a time")
	}
	if p.Expires, ok = readTime(tags, "x"); !ok {
		return permError("x= is not a time")
	}
	if !p.Expires.IsZero() && !p.Time.IsZero() && !p.Expires.After(p.Time) {
		return permError("x= is not after t=")
	}
	return nil
}

// maxUnix is the largest time of 12 digits. t= and x= cannot have more digits.
const maxUnix = 999_999_999_999

// readTime returns the zero time for an absent tag.
func readTime(tags tagList, name string) (time.Time, bool) {
	if _, ok := tags.get(name); !ok {
		return time.Time{}, true
	}
	n, err := strconv.ParseUint(tags.text(name), 10, 63)
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(int64(min(n, maxUnix)), 0), true
}

func (p *parsed) readAlgorithm(tags tagList) *refusal {
	switch p.Algorithm {
	case "rsa-sha256":
		p.keyAlgorithm = "rsa"
	case "ed25519-sha256":
		p.keyAlgorithm = "ed25519"
	case "rsa-sha1":
		return &refusal{Policy, "rsa-sha1 is too weak"}
	default:
		return &refusal{Neutral, "unknown algorithm"}
	}
	return nil
}

// readLength parses how much of the body is signed. Whether this is the whole
// body is known only at its end.
func (p *parsed) readLength(tags tagList) *refusal {
	if _, p.Limited = tags.get("l"); !p.Limited {
		return nil
	}
	n, err := strconv.ParseUint(tags.text("l"), 10, 63)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return permError("l= is not a length")
	}
	p.limit = int64(n)
	return nil
}

// checkLength refuses a signature if it allows text to be appended, or if its
// length is greater than that of the body.
func (p *parsed) checkLength(sums Sums) *refusal {
	switch size := sums[p.body].Size; {
	case !p.Limited, p.limit == size:
		return nil
	case p.limit < size:
		return &refusal{Policy, "l= leaves part of the body unsigned"}
	}
	return &refusal{Fail, "l= is longer than the body"}
}

func (p *parsed) readCanonicalization(tags tagList) *refusal {
	header, body, both := strings.Cut(tags.text("c"), "/")
	if !both {
		body = string(Simple)
	}
	if header == "" && !both {
		header = string(Simple)
	}
	p.header, p.body = Canonicalization(header), Canonicalization(body)
	for _, c := range []Canonicalization{p.header, p.body} {
		if c != Simple && c != Relaxed {
			return &refusal{Neutral, "unknown canonicalization"}
		}
	}
	return nil
}

func (p *parsed) readQuery(tags tagList) *refusal {
	if _, ok := tags.get("q"); ok && !slices.Contains(tags.words("q"), "dns/txt") {
		return &refusal{Neutral, "unknown query method"}
	}
	return nil
}

func (p *parsed) readHashes(tags tagList) *refusal {
	var err error
	if p.bodyHash, err = decodeBase64(tags.text("bh")); err != nil || len(p.bodyHash) != sha256.Size {
		return permError("bh= is not a SHA-256 hash")
	}
	if p.signature, err = decodeBase64(p.text); err != nil || len(p.signature) == 0 {
		return permError("b= is not base64")
	}
	return nil
}

// matchesBody reports whether bh= is the hash of the body.
func (p *parsed) matchesBody(sums Sums) bool {
	sum := sums[p.body].Hash
	return subtle.ConstantTimeCompare(sum[:], p.bodyHash) == 1
}

// decodeBase64 accepts missing padding, because some publishers lose it.
func decodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// unsigned returns the field as the signer hashed it: with an empty b=.
func (p *parsed) unsigned() Field {
	v := p.field.Value
	return Field{Name: p.field.Name, Value: v[:p.bStart] + v[p.bEnd:]}
}
