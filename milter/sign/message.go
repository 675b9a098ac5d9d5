// Package sign adds DKIM signatures (RFC 6376, RFC 8463) to outgoing mail.
//
// Signer.Message takes the header of a mail and chooses the keys by its From field.
// The body is then written in pieces of any size. Message.Close returns one
// DKIM-Signature field for each key, or the reason why there is none.
//
// Invariants:
//
//   - A mail is signed only for the domain of its From field or, when asked for,
//     a parent of it: nothing else aligns under DMARC. Mail whose From could show
//     another domain to a careless reader is not signed.
//   - All signatures of a mail share one pass over the body and one canonical
//     header. Memory does not depend on the length of the body.
//   - Canonicalization is relaxed/relaxed, without l=. Fields that a reader sees are
//     oversigned. Received and other trace fields are never signed.
//   - Keys are an immutable snapshot that is replaced as a whole. A message keeps the
//     snapshot that it began with.
//
// github.com/emersion/go-msgauth does not sign here. It hashes the body once for each
// signature, octet by octet and in a goroutine of its own. It also cannot fold h=,
// which is signed as it is written. The tests verify the signatures with it.
package sign

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/dkim"
	"github.com/postern-mail/postern/internal/record"
)

// DefaultExpire is how long signatures are valid. Mail can wait five days in the queue
// of a relay.
const DefaultExpire = 7 * 24 * time.Hour

// Options is what a Signer needs besides keys.
type Options struct {
	// Headers are the fields to sign; the zero value means DefaultHeaders.
	Headers Headers
	// Expire is the life of a signature, in x=; 0 means DefaultExpire, a negative
	// duration no x= at all.
	Expire time.Duration
	// Subdomains signs mail of a domain without keys with those of its nearest
	// parent.
	Subdomains bool
	// Tables are the Postfix tables that are looked up for each mail; nil for none.
	Tables *Tables
	// SelfCheck verifies each new signature with the public half of its key.
	SelfCheck bool
	// Observe is called for every mail that was signed; may be nil.
	Observe func(*Outcome)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Rand is the random source for signing; nil means crypto/rand.
	Rand io.Reader
}

// Signer signs messages. It may be used by several goroutines.
type Signer struct {
	options Options
	keys    atomic.Pointer[Keys]
}

// New returns a Signer. keys may be nil: nothing is signed until SetKeys.
func New(options Options, keys *Keys) *Signer {
	if len(options.Headers.names) == 0 {
		options.Headers, _ = ParseHeaders(nil) // the default list has no error
	}
	if options.Expire == 0 {
		options.Expire = DefaultExpire
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Rand == nil {
		options.Rand = rand.Reader
	}
	s := &Signer{options: options}
	s.SetKeys(keys)
	return s
}

// SetKeys replaces the keys. Messages that have begun keep the keys they have.
func (s *Signer) SetKeys(keys *Keys) {
	if keys == nil {
		keys = new(Keys)
	}
	s.keys.Store(keys)
}

// Keys returns the keys for the next message.
func (s *Signer) Keys() *Keys { return s.keys.Load() }

// Field is one header field, see dkim.Field.
type Field = dkim.Field

// Outcome is what became of a message.
type Outcome struct {
	// Fields are the signatures to insert at the top. Values begin with a space
	// and are folded with CRLF.
	Fields []Field
	// Reason is record.Signed if there are Fields, else the reason why there are
	// none.
	Reason record.Reason
	// Domain is the domain of the author, in A-labels; "" if From has none.
	Domain string
	// SignedBy names the keys that signed, as domain/selector.
	SignedBy []string
	// Checked is set when the signatures were verified (Options.SelfCheck). CheckErr
	// names those that did not verify.
	Checked  bool
	CheckErr error
	// Fragile are the reasons why the signatures may break on the way to a receiver.
	Fragile []Fragile
	// Notes are warnings for the operator.
	Notes []string
	// Err names the keys that could not sign.
	Err error
	// Unavailable is set when there are no Fields because a table could not be asked.
	Unavailable bool
}

// Message is one mail being signed. It is not safe for concurrent use.
type Message struct {
	signer  *Signer
	options Options // of the signer, and of the author's domain
	result  Outcome

	keys  []*Key
	names []string
	// header is the canonical form of the signed fields.
	header  []byte
	body    *dkim.BodyHash
	fragile fragility
	check   *selfCheck         // nil for none
	own     *dkim.Verification // of our own signatures that the mail had already
}

// Message begins a mail with its whole header. Close must be called.
func (s *Signer) Message(ctx context.Context, fields []Field) *Message {
	m := &Message{signer: s, options: s.options}
	var a author.Mailbox
	if a, m.result.Reason = readAuthor(fields); m.result.Reason != "" {
		return m
	}
	m.result.Domain = a.Domain
	if m.choose(ctx, a); len(m.keys) == 0 {
		return m
	}
	m.names, m.header = m.options.Headers.pick(fields)
	m.body = dkim.NewBodyHash(dkim.Relaxed)
	m.fragile.fields(fields, m.names)
	m.own = s.startOwn(ctx, fields, m.keys)
	if m.options.SelfCheck {
		m.check = newSelfCheck(fields)
	}
	return m
}

// choose finds the keys for mail of an author, or the reason why there are none.
func (m *Message) choose(ctx context.Context, a author.Mailbox) {
	own, optionsErr := m.options.Tables.options(ctx, a)
	if own.off {
		m.result.Reason = record.SignOff
		return
	}
	m.options = own.applied(m.options)
	keys, err := m.options.Tables.choose(ctx, a, m.options.Subdomains)
	m.keys, m.result.Err = m.signer.Keys().addKeys(keys, a, m.options.Subdomains)
	m.result.Err = errors.Join(err, m.result.Err, optionsErr)
	switch {
	case len(m.keys) > 0:
	case err != nil:
		m.result.Reason, m.result.Unavailable = record.SignFailed, true
	default:
		m.result.Reason = record.SignNoKey
	}
}

// readAuthor returns the author of a mail if From has one domain and no reader could
// see another one, else the reason why the mail is not signed. The local part is that
// of the first address, or "".
func readAuthor(fields []dkim.Field) (author.Mailbox, record.Reason) {
	named := 0
	seen := author.ParseFrom(func(yield func(string, string) bool) {
		for i := range fields {
			if fields[i].Is("From") {
				named++
			}
			if !yield(fields[i].Name, fields[i].Value) {
				return
			}
		}
	})
	reason := refuse(&seen, named)
	if reason != "" {
		return author.Mailbox{}, reason
	}
	a := author.Mailbox{Domain: seen.Domains[0]}
	if len(seen.Mailboxes) > 0 {
		a.Local = seen.Mailboxes[0].Local
	}
	return a, ""
}

// refuse returns the reason why mail of an author is not signed. named is the number
// of fields that every reader takes for From.
func refuse(seen *author.Author, named int) record.Reason {
	switch {
	case seen.Fields == 0:
		return record.SignNoFrom
	case named > 1:
		return record.SignSeveralFrom
	case len(seen.Domains) == 0:
		return record.SignBadFrom
	case len(seen.Domains) > 1, seen.Defect == author.TooManyDomains:
		return record.SignSeveralDomains
	case seen.Fields > 1:
		return record.SignSeveralFrom
	case seen.Defect != "":
		return record.SignBadFrom
	}
	return ""
}

// Refusal returns the reason why mail from an address would not be signed, or "" if it
// would be. The error says more about it.
func (s *Signer) Refusal(ctx context.Context, address string) (record.Reason, error) {
	m := s.Message(ctx, []Field{{Name: "From", Value: " " + address}})
	defer m.Abort()
	return m.result.Reason, m.result.Err
}

// UTF8 marks the mail as sent with SMTPUTF8: its header may have any octets.
func (m *Message) UTF8() { m.fragile.header = "" }

// NeedsBody reports whether the body has to be written.
func (m *Message) NeedsBody() bool { return m.body != nil }

// Write adds p to the body. It never fails. Line ends are CRLF.
func (m *Message) Write(p []byte) (int, error) {
	if m.body != nil {
		m.body.Write(p)
		m.fragile.body(p)
		if m.check != nil {
			m.check.body.Write(p)
		}
		if m.own != nil {
			m.own.Write(p)
		}
	}
	return len(p), nil
}

// Abort ends the message without a result.
func (m *Message) Abort() {
	if m.own != nil {
		m.own.Close()
	}
	m.body, m.own = nil, nil
}

// Close ends the body and signs. It is called once.
func (m *Message) Close() Outcome {
	if m.body == nil {
		return m.result
	}
	if m.keys = m.unsigned(); len(m.keys) == 0 {
		m.result.Reason = record.SignAlreadySigned
		return m.result
	}
	m.signAll()
	m.verifyOwn()
	var notes []string
	m.result.Fragile, notes = m.fragile.causes()
	m.result.Notes = append(m.result.Notes, notes...)
	if m.options.Observe != nil {
		m.options.Observe(&m.result)
	}
	return m.result
}

// signAll signs with every key. A key that fails does not affect the others.
func (m *Message) signAll() {
	options := &m.options
	sum := m.body.Sum()
	t := template{
		names:    m.names,
		bodyHash: base64.StdEncoding.EncodeToString(sum[:]),
		signed:   options.Now(),
	}
	if options.Expire > 0 {
		t.expires = t.signed.Add(options.Expire)
	}
	var errs []error
	for _, key := range m.keys {
		t.key = key
		field, err := t.sign(options.Rand, m.header)
		if err != nil {
			errs = append(errs, fmt.Errorf("sign with %s: %w", key.Name(), err))
			continue
		}
		m.result.Fields = append(m.result.Fields, field)
		m.result.SignedBy = append(m.result.SignedBy, key.Domain+"/"+key.Selector)
	}
	m.result.Err = errors.Join(append(errs, m.result.Err)...)
	m.result.Reason = record.Signed
	if len(m.result.Fields) == 0 {
		m.result.Reason = record.SignFailed
	}
}

// sign hashes the header and the field itself, with an empty b= and without its final
// line break, and returns the field with the signature.
func (t *template) sign(random io.Reader, header []byte) (dkim.Field, error) {
	value := t.value()
	unsigned := dkim.Field{Name: dkim.FieldName, Value: value.b.String()}
	canonical := dkim.AppendField(make([]byte, 0, fieldSize), dkim.Relaxed, unsigned)
	hash := sha256.New()
	hash.Write(header)
	hash.Write(canonical[:len(canonical)-len("\r\n")])
	signature, err := t.key.sign(random, hash.Sum(nil))
	if err != nil {
		return dkim.Field{}, err
	}
	value.base64(base64.StdEncoding.EncodeToString(signature))
	return dkim.Field{Name: dkim.FieldName, Value: value.b.String()}, nil
}
