package sign

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/postern-mail/postern/internal/author"
	"github.com/postern-mail/postern/internal/mailaddr"
)

// Lookup looks up a key in a Postfix table. It returns every value of the key, and
// none if the key is not listed. An error means that the table could not be asked.
type Lookup interface {
	Lookup(ctx context.Context, key string) ([]string, error)
}

// LookupTable is a Postfix table. A value is read when it is needed.
type LookupTable struct {
	Lookup
	Name    string   // for errors: type:name
	Pattern bool     // of regexp: and the like: only the whole key is looked up
	Files   []string // that hold its values
}

// Tables are the Postfix tables of keys, senders and options. Each may be nil, but
// Senders requires Keys.
type Tables struct {
	// Keys has the keys of a domain or, with Senders, those of a name. See cutValue for
	// the form of its values.
	Keys *LookupTable
	// Senders names keys by the author's address.
	Senders *LookupTable
	// Options has the options that differ for the domain of an author.
	Options *LookupTable
	// Group is the group whose members may read keys, as in KeySource.
	Group int
	// RSA returns what signs with an RSA key. Nil means the key itself.
	RSA func(*rsa.PrivateKey) crypto.Signer

	signers signerCache
	parsed  optionCache
	seen    seenKeys
}

// Seen returns the keys that mail was signed with lately, by domain and selector: a
// table in a server cannot be listed.
func (t *Tables) Seen() []*Key {
	if t == nil {
		return nil
	}
	return t.seen.list()
}

// Find returns the keys for mail of a domain.
func (t *Tables) Find(ctx context.Context, domain string, subdomains bool) ([]*Key, error) {
	return t.choose(ctx, author.Mailbox{Domain: domain}, subdomains)
}

// lookupTimeout bounds the time of the lookups of keys for one mail, and that of the
// lookups of options.
const lookupTimeout = 15 * time.Second

// maxTableNames bounds the names in the entry of a sender.
const maxTableNames = 32

// choose returns the keys of the tables for mail of an author. The keys of the
// author's own domain come first.
func (t *Tables) choose(ctx context.Context, a author.Mailbox, subdomains bool) ([]*Key, error) {
	if t == nil || t.Keys == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	if t.Senders != nil {
		return t.ofSender(ctx, a)
	}
	name, values, err := t.Keys.first(ctx, domainPatterns(a.Domain, subdomains))
	if err != nil {
		return nil, err
	}
	var found keySet
	found.read(t, values, strings.TrimPrefix(name, "."), entry{}, a.Domain)
	found.mustAlign(a.Domain)
	return found.keys, found.err()
}

// ofSender returns the keys that the senders' table names for an author.
func (t *Tables) ofSender(ctx context.Context, a author.Mailbox) ([]*Key, error) {
	values, err := t.senderValues(ctx, a)
	if err != nil {
		return nil, err
	}
	var found keySet
	for _, e := range entriesOf(values) {
		if len(found.keys) == MaxKeysPerDomain {
			found.fail(fmt.Errorf("%s: more than %d keys for one sender", t.Senders.Name, MaxKeysPerDomain))
			break
		}
		name := e.nameFor(a.Domain)
		keys, err := t.Keys.Lookup.Lookup(ctx, name)
		switch {
		case err != nil:
			found.fail(fmt.Errorf("%s: %w", t.Keys.Name, err))
		case len(keys) == 0:
			found.fail(fmt.Errorf("%s: no key is named %q, which %s names", t.Keys.Name, name, t.Senders.Name))
		default:
			found.read(t, keys, name, e, a.Domain)
		}
	}
	found.alignOne(a.Domain)
	return found.keys, found.err()
}

// senderValues looks up the author's address, then the domain, with or without "@",
// then its parent domains, then "*". The first one that is listed decides.
func (t *Tables) senderValues(ctx context.Context, a author.Mailbox) ([]string, error) {
	var address []string
	if a.Local != "" {
		address = []string{mailaddr.Fold(a.Local) + "@" + a.Domain}
	}
	if t.Senders.Pattern {
		_, values, err := t.Senders.first(ctx, append(address, "@"+a.Domain)[:1])
		return values, err
	}
	if _, values, err := t.Senders.first(ctx, address); err != nil || len(values) > 0 {
		return values, err
	}
	_, at, err := t.Senders.first(ctx, []string{"@" + a.Domain})
	if err != nil {
		return nil, err
	}
	name, bare, err := t.Senders.first(ctx, domainPatterns(a.Domain, false))
	if name == a.Domain && len(at) > 0 && !slices.Equal(at, bare) {
		return nil, fmt.Errorf("%s: ambiguous: it has both %s and @%s; keep one", t.Senders.Name, a.Domain, a.Domain)
	}
	if len(at) > 0 {
		return at, nil
	}
	return bare, err
}

// entriesOf reads the names of keys, separated by commas or white space, each with an
// optional ":signer".
func entriesOf(values []string) []entry {
	var entries []entry
	for _, value := range values {
		for _, text := range strings.FieldsFunc(value, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
			name, signer, _ := strings.Cut(text, ":")
			if !isIdentity(signer) {
				signer = ""
			}
			if len(entries) < maxTableNames {
				entries = append(entries, entry{name: name, signer: signer})
			}
		}
	}
	return entries
}

// domainPatterns lists what can match a domain, the most specific first: itself, ".x"
// for what is below x, and "*". With parents, each parent domain matches too.
func domainPatterns(domain string, parents bool) []string {
	patterns := []string{domain}
	for name := domain; ; {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return append(patterns, "*")
		}
		patterns = append(patterns, "."+parent)
		if parents {
			patterns = append(patterns, parent)
		}
		name = parent
	}
}

// first returns the first of patterns that is listed, and its values.
func (t *LookupTable) first(ctx context.Context, patterns []string) (string, []string, error) {
	if t.Pattern && len(patterns) > 1 {
		patterns = patterns[:1]
	}
	for _, pattern := range patterns {
		values, err := t.Lookup.Lookup(ctx, pattern)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		if len(values) > 0 {
			return pattern, values, nil
		}
	}
	return "", nil, nil
}

// keySet collects the keys for one mail, and the errors of other keys.
type keySet struct {
	keys      []*Key
	ambiguous []*Key // keys like them are not added any more
	errs      []error
}

func (s *keySet) fail(err error) { s.errs = append(s.errs, err) }

func (s *keySet) err() error { return errors.Join(s.errs...) }

// read adds the keys of a name's values.
func (s *keySet) read(t *Tables, values []string, name string, e entry, authors string) {
	for _, value := range splitValues(values) {
		key, err := t.key(value, name, authors)
		if err != nil {
			s.fail(fmt.Errorf("%s: %q: %w", t.Keys.Name, name, err))
		}
		if key != nil {
			t.seen.note(key)
			s.addKey(t.Keys.Name, key.as(e.signer, authors))
		}
	}
}

// addKey adds a key. If there are different keys of the same name, none of them is used,
// and that is an error.
func (s *keySet) addKey(table string, key *Key) {
	i := indexOf(s.keys, key)
	switch {
	case indexOf(s.ambiguous, key) >= 0:
	case i < 0 && len(s.keys) == MaxKeysPerDomain:
		s.fail(fmt.Errorf("%s: more than %d keys for one mail", table, MaxKeysPerDomain))
	case i < 0:
		s.keys = append(s.keys, key)
	case !s.keys[i].SameAs(key):
		s.keys = slices.Delete(s.keys, i, i+1)
		s.ambiguous = append(s.ambiguous, key)
		s.fail(fmt.Errorf("%s: ambiguous: two different keys for %s; keep one", table, key.Name()))
	}
}

// join adds a key from a file, unless it is there already.
func (s *keySet) join(key *Key) {
	i := indexOf(s.keys, key)
	switch {
	case i < 0:
		s.keys = append(s.keys, key)
	case s.keys[i] != key && !s.keys[i].SameAs(key):
		s.fail(fmt.Errorf("%s: %s has its key in %s already; keep one", key.Path, key.Name(), s.keys[i].Path))
	}
}

// mustAlign drops keys whose domain does not align with the author's.
func (s *keySet) mustAlign(authors string) {
	s.keys = slices.DeleteFunc(s.keys, func(k *Key) bool {
		if covers(k.Domain, authors) {
			return false
		}
		s.fail(fmt.Errorf("the key %s does not align with %s, the author's domain; name it in a signing table beside one that does", k.Name(), authors))
		return true
	})
}

// alignOne puts the keys that align with the author's domain first. If no key aligns,
// none signs: DMARC would ignore such a signature, and a key of another domain must
// not vouch for the mail alone.
func (s *keySet) alignOne(authors string) {
	slices.SortStableFunc(s.keys, func(a, b *Key) int {
		return rankOf(covers(b.Domain, authors)) - rankOf(covers(a.Domain, authors))
	})
	if len(s.keys) > 0 && !covers(s.keys[0].Domain, authors) {
		s.mustAlign(authors)
	}
}

func rankOf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}
